"""OpenStack's names for what a host can do, and what each follows from."""

from __future__ import annotations

from functools import lru_cache

COMPUTE_NODE = "COMPUTE_NODE"
CLOSED = "COMPUTE_STATUS_DISABLED"  # takes no new guests

# What libvirt calls a feature of a CPU -> what OpenStack calls it.
_OF_CPU = {
    "3dnow": "3DNOW",
    "abm": "ABM",
    "aes": "AESNI",
    "amd-no-ssb": "AMD_NO_SSB",
    "amd-ssbd": "AMD_SSBD",
    "avx": "AVX",
    "avx2": "AVX2",
    "avx512bitalg": "AVX512BITALG",
    "avx512bw": "AVX512BW",
    "avx512cd": "AVX512CD",
    "avx512dq": "AVX512DQ",
    "avx512er": "AVX512ER",
    "avx512f": "AVX512F",
    "avx512ifma": "AVX512IFMA",
    "avx512pf": "AVX512PF",
    "avx512vbmi": "AVX512VBMI",
    "avx512vbmi2": "AVX512VBMI2",
    "avx512vl": "AVX512VL",
    "avx512vnni": "AVX512VNNI",
    "avx512-vpopcntdq": "AVX512VPOPCNTDQ",
    "bmi1": "BMI",
    "bmi2": "BMI2",
    "f16c": "F16C",
    "fma": "FMA3",
    "fma4": "FMA4",
    "gfni": "AVX512GFNI",
    "ibpb": "AMD_IBPB",
    "md-clear": "INTEL_MD_CLEAR",
    "mmx": "MMX",
    "mpx": "MPX",
    "pcid": "INTEL_PCID",
    "pclmuldq": "CLMUL",
    "pclmulqdq": "CLMUL",
    "pdpe1gb": "PDPE1GB",
    "pni": "SSE3",
    "rtm": "TSX",
    "sgx": "SGX",
    "sha-ni": "SHA",
    "spec-ctrl": "INTEL_SPEC_CTRL",
    "ssbd": "INTEL_SSBD",
    "sse": "SSE",
    "sse2": "SSE2",
    "sse3": "SSE3",
    "sse4.1": "SSE41",
    "sse4.2": "SSE42",
    "sse4a": "SSE4A",
    "ssse3": "SSSE3",
    "stibp": "STIBP",
    "svm": "SVM",
    "tbm": "TBM",
    "vaes": "AVX512VAES",
    "virt-ssbd": "AMD_VIRT_SSBD",
    "vmx": "VMX",
    "vpclmulqdq": "AVX512VPCLMULQDQ",
    "xop": "XOP",
}
_VENDOR_ALIASES = {"svm": "HW_CPU_X86_AMD_SVM", "vmx": "HW_CPU_X86_INTEL_VMX"}  # by their vendor's name too
_ARCHITECTURES = ("X86_64", "AARCH64", "PPC64", "PPC64LE", "S390X", "RISCV64", "I686", "ARMV7")


KNOWN = frozenset(
    {
        COMPUTE_NODE,
        CLOSED,
        *_VENDOR_ALIASES.values(),
        *(f"HW_CPU_X86_{name}" for name in _OF_CPU.values()),
        *(f"HW_ARCH_{name}" for name in _ARCHITECTURES),
    }
)


@lru_cache(256)  # hosts of one kind say the same
def traits_of(features: tuple[str, ...], architecture: str, *, closed: bool) -> frozenset[str]:
    """The traits of a host with these CPU features. `closed`: it takes no new guests."""
    found = {COMPUTE_NODE}
    for feature in features:
        if feature in _OF_CPU:
            found.add(f"HW_CPU_X86_{_OF_CPU[feature]}")
        if feature in _VENDOR_ALIASES:
            found.add(_VENDOR_ALIASES[feature])
    arch = f"HW_ARCH_{architecture.upper()}"
    if arch in KNOWN:
        found.add(arch)
    if closed:
        found.add(CLOSED)
    return frozenset(found)
