"""Does a value satisfy what an extra spec wants of it? Nova's words for it (`<in>`, `s==`, `>=`, …), in one table.

Pure, and without numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable

from droveway.domain.placement import PlacementRequest

Value = str | tuple[str, ...]


def _number(compare: Callable[[float, float], bool]) -> Callable[[Value, list[str]], bool]:
    def matches(value: Value, words: list[str]) -> bool:
        if not words or not isinstance(value, str):
            return False
        try:
            return compare(float(value), float(words[0]))
        except ValueError:
            return False

    return matches


def _text(compare: Callable[[str, str], bool]) -> Callable[[Value, list[str]], bool]:
    return lambda value, words: isinstance(value, str) and bool(words) and compare(value, words[0])


def _holds(value: Value, word: str) -> bool:
    return word in value  # part of a text, or one of several values


def _either(value: Value, words: list[str]) -> bool:
    wanted = [word for word in words if word != "<or>"]
    return any(word in (value if isinstance(value, tuple) else (value,)) for word in wanted)


def _range(value: Value, words: list[str]) -> bool:
    """`<range-in> [ 10 20 ]`; a round bracket leaves its end out."""
    if len(words) != 4 or words[0] not in "[(" or words[3] not in "])" or not isinstance(value, str):
        return False
    try:
        low, at, high = float(words[1]), float(value), float(words[2])
    except ValueError:
        return False
    return (low < at or (words[0] == "[" and low == at)) and (at < high or (words[3] == "]" and at == high))


OPERATORS: dict[str, Callable[[Value, list[str]], bool]] = {
    "=": _number(operator.ge),  # so in Nova, for the sake of old flavors
    "==": _number(operator.eq),
    "!=": _number(operator.ne),
    ">=": _number(operator.ge),
    "<=": _number(operator.le),
    ">": _number(operator.gt),
    "<": _number(operator.lt),
    "s==": _text(operator.eq),
    "s!=": _text(operator.ne),
    "s>=": _text(operator.ge),
    "s<=": _text(operator.le),
    "s>": _text(operator.gt),
    "s<": _text(operator.lt),
    "<in>": lambda value, words: bool(words) and _holds(value, words[0]),
    "<all-in>": lambda value, words: all(_holds(value, word) for word in words),
    "<or>": _either,
    "<range-in>": _range,
}


def matches(value: Value | None, wanted: str) -> bool:
    """`value`: a text, or several (features); None when the host does not tell. No operator: it must be equal."""
    if value is None:
        return False
    first, *words = wanted.split() or [""]
    if first in OPERATORS:
        return OPERATORS[first](value, words)
    return wanted == value if isinstance(value, str) else wanted in value


CAPABILITIES = "capabilities:"
AGGREGATES = "aggregate_instance_extra_specs:"
TRAIT_OF_CPU = "trait:HW_CPU_X86_"


def capability_specs(ask: PlacementRequest) -> tuple[tuple[str, str], ...]:
    """What is wanted of the hardware: (path, wanted), `trait:HW_CPU_X86_…` as the CPU feature that it names."""
    specs = []
    for key, wanted in ask.extra_specs.items():
        if key.startswith(CAPABILITIES):
            specs.append((key.removeprefix(CAPABILITIES), wanted))
        elif key.startswith(TRAIT_OF_CPU):
            specs.append((f"trait:{key.removeprefix(TRAIT_OF_CPU)}", wanted))
    return tuple(sorted(specs))


def aggregate_specs(ask: PlacementRequest) -> tuple[tuple[str, str], ...]:
    """What is wanted of the metadata of the host's aggregates: keys of that namespace, and keys without one."""
    return tuple(
        sorted(
            (key.removeprefix(AGGREGATES), wanted)
            for key, wanted in ask.extra_specs.items()
            if key.startswith(AGGREGATES) or ":" not in key
        )
    )


def same_text(one: str, other: str) -> bool:
    return one.lower() == other.lower()


def same_hypervisor(wanted: str, has: str) -> bool:
    """A host with KVM runs what asks for QEMU alone, not the other way round."""
    return has.lower() in ({"qemu", "kvm"} if wanted.lower() == "qemu" else {wanted.lower()})


_ARCHITECTURES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "i386": "i686",
    "i486": "i686",
    "i586": "i686",
    "arm64": "aarch64",
    "powerpc64le": "ppc64le",
}


def architecture_of(text: str) -> str:
    """Its usual name."""
    return _ARCHITECTURES.get(text.lower(), text.lower())
