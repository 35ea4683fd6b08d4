"""The CPU that all hosts of an aggregate can run, and which of them cannot. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import msgspec

from droveway.domain.cpu_xml import canonical

EMULATED = "emulated"  # the model of a guest that never touches its host's CPU


class BaselineHost(msgspec.Struct, frozen=True):
    """`model`: the host's own CPU. `runs` None: it could not be asked, and `reason` says why."""

    host: str
    model: str
    runs: bool | None
    reason: str = ""


class CpuBaseline(msgspec.Struct, frozen=True):
    """`features`: that a guest of the model has besides; `without`: that it has not. `cpu_xml`: as libvirt takes it.
    `asked`: the host whose hypervisor has worked it out. A `reason` says why there is no model."""

    aggregate: str
    model: str = ""
    vendor: str = ""
    features: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    cpu_xml: str = ""
    asked: str = ""
    reason: str = ""
    hosts: tuple[BaselineHost, ...] = ()


def described(aggregate: str, cpu_xml: str, asked: str, hosts: tuple[BaselineHost, ...]) -> CpuBaseline:
    """From the XML of a hypervisor, which is another host's word. Raises WrongCpu."""
    text = canonical(cpu_xml)
    root = ET.fromstring(text) if text else ET.Element("cpu")
    features = {one.get("name", ""): one.get("policy", "require") for one in root.iterfind("feature")}
    return CpuBaseline(
        aggregate,
        root.findtext("model", "") or EMULATED,
        root.findtext("vendor", ""),
        tuple(name for name, policy in features.items() if policy != "disable"),
        tuple(name for name, policy in features.items() if policy == "disable"),
        text,
        asked,
        hosts=hosts,
    )
