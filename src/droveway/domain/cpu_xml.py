"""The XML by which one host's CPU is compared with another's: read, checked, and put together anew. Pure.

It is made on one host and handed to the libvirt of another, so nothing of it passes but the elements that a comparison
needs, with plain words in them: no document type, no entities, no processing instructions, no other element.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from functools import lru_cache

CPU_XML_MAX = 65_536  # characters; a real one has some 7,000
CHILDREN_MAX = 2048
_WORD = re.compile(r"[A-Za-z0-9._+ -]{0,64}")
_ATTRIBUTES: dict[str, frozenset[str]] = {
    "cpu": frozenset({"mode", "match", "check", "level"}),  # level: of a simulated host
    "arch": frozenset(),
    "model": frozenset({"fallback"}),
    "vendor": frozenset(),
    "feature": frozenset({"policy", "name"}),
}


class WrongCpu(ValueError):
    """It is no such XML; the message says why."""


@lru_cache(64)  # most hosts of a cloud have one of a few CPUs
def canonical(text: str) -> str:
    """The same CPU as checked XML; empty for an empty text. Raises WrongCpu."""
    if not text:
        return ""
    if len(text) > CPU_XML_MAX:
        raise WrongCpu(f"its description of its CPU has {len(text)} characters; {CPU_XML_MAX} are the bound")
    if "<!" in text or "<?" in text:
        raise WrongCpu("its description of its CPU holds a declaration, which is not taken from another host")
    try:
        found = ET.fromstring(text)
    except (ET.ParseError, ValueError):
        raise WrongCpu("its description of its CPU is no XML") from None
    if found.tag != "cpu" or len(found) > CHILDREN_MAX:
        raise WrongCpu(f"its description of its CPU is not a <cpu> with at most {CHILDREN_MAX} parts")
    whole = _copied(found, "cpu")
    for child in found:
        if child.tag not in _ATTRIBUTES or child.tag == "cpu" or len(child):
            raise WrongCpu(f"its description of its CPU holds <{str(child.tag)[:40]}>, which no comparison needs")
        part = _copied(child, child.tag)
        part.text = _word((child.text or "").strip()) or None
        whole.append(part)
    return ET.tostring(whole, encoding="unicode")


def _copied(element: ET.Element, tag: str) -> ET.Element:
    for name in element.attrib:
        if name not in _ATTRIBUTES[tag]:
            raise WrongCpu(f"its description of its CPU has {name[:40]!r} at <{tag}>, which no comparison needs")
    return ET.Element(tag, {name: _word(value) for name, value in element.attrib.items()})


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise WrongCpu(f"its description of its CPU holds the word {text[:40]!r}, which names no part of a CPU")
    return text
