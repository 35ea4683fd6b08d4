"""docs/clients.md: what the last run of every client has found (tests/test_clients_whole.py), and why it is so.

`python -m lab.clients_page` writes the table anew of what was found.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

CLONE = Path(__file__).resolve().parent.parent
PAGE, RESULTS = CLONE / "docs/clients.md", CLONE / "tests/clients/results.json"
BEGIN, END = "<!-- ./dev test --clients-full writes what follows -->", "<!-- as far as this -->"


class Outcome(NamedTuple):
    """Of a step. `is_right`: None, and it was left out by the client itself, which said why."""

    step: str
    is_right: bool | None
    said: str = ""


class Client(NamedTuple):
    """`why`: by a pattern of steps, why they do not work."""

    called: str
    what: str
    why: dict[str, str]


CLIENTS: dict[str, Client] = {
    "openstack": Client(
        "`openstack` (python-openstackclient)",
        "a cloud run and used, a command a step",
        {r"^address group": "address groups are not built"},
    ),
    "openstacksdk": Client(
        "openstacksdk",
        "its own functional tests of what is here",
        {
            r"access_rule": "access rules are refused: one that was ignored would open what is meant to be closed",
            r"metadef": "the properties of images are those that servers heed; the list is not changed",
            r"address_scope": "address scopes are not built",
            r"service_provider": "service providers are not built",
            r"test_group\.TestGroup\.test_group": "groups of volumes are not built",
            r"test_domain_config": "what a domain is configured with stands in the program's configuration",
            r"limit\.Test|registered_limit": "unified limits are not built: each service has its quotas",
            r"endpoint_group": "groups of endpoints are not built",
            r"_delete_server|image_flavor_dict": "a server has a password where one was asked for",
            r"range_search|test_inventory": "it asks for flavors and a network that developers' clouds have",
            r"_FailedTest": "a module of the tests does not load as they are published",
            r"create_router": "a gateway leads through a network that has a subnet",
            r"test_cleanup_vpnaas": "service providers are not built",
            r"test_cleanup$": "it is not known yet",
            r"test_endpoint\.TestEndpoint": "a region has an id and no name",
            r"test_floating_ip": "the port is told by its id alone, without details of it",
            r"^placement.*_(allocation|provider)": "providers and allocations are read, and not written",
            r"^placement.*usage": "usages are told without a type of consumer",
            r"test_router\.TestRouter\.test_list": "whether a router is highly available is told where one can be",
        },
    ),
    "ansible": Client(
        "openstack.cloud 2.5 with openstacksdk 4.8, in Ansible",
        "what a playbook makes, twice, and takes away; then people, volumes, images; a task a step",
        {r"^shelve and offload$": "only what is shelved already is offloaded, as with Nova"},
    ),
    "gophercloud": Client("gophercloud", "what Terraform's provider of OpenStack is built on", {}),
    "libcloud": Client(
        "libcloud",
        "nodes, networks, volumes",
        {r"^rebuild$": "it sends `flavorRef` with a rebuild, which Nova's schema refuses, too"},
    ),
    "fog": Client(
        "fog-openstack",
        "servers, networks, people",
        {r"^volume": "it asks for block storage as `volumev2`, which OpenStack has no longer"},
    ),
    "pkgcloud": Client(
        "pkgcloud",
        "servers, networks",
        {r"^volume": "it asks for block storage as `volume`, which OpenStack has no longer"},
    ),
    "packer": Client("Packer", "a build", {}),
    "prometheus": Client("Prometheus", "`openstack_sd_configs`, while it runs", {}),
    "rally": Client("rally-openstack", "scenarios, most with users of their own; each a step", {}),
}


def why_not(name: str, step: str) -> str | None:
    """The sentence of a step that is known not to work."""
    for pattern, sentence in CLIENTS[name].why.items():
        if re.search(pattern, step):
            return sentence
    return None


def keep(name: str, version: str, found: list[Outcome]) -> None:
    """What a run has found of one client; the page tells it."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[name] = {
        "version": version,
        "on": datetime.now(UTC).date().isoformat(),
        "right": sum(one.is_right is True for one in found),
        "skipped": [[one.step, one.said] for one in found if one.is_right is None],
        "wrong": [[one.step, one.said] for one in found if one.is_right is False],
    }
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
    write()


def write() -> None:
    text = PAGE.read_text()
    PAGE.write_text(filled(text, json.loads(RESULTS.read_text())))


def filled(text: str, results: dict[str, Any]) -> str:
    """The page with what was found."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(results)}{END}{after}"


def table(results: dict[str, Any]) -> str:
    lines = ["| client | what was run | works | does not |", "|---|---|---|---|"]
    for name, client in CLIENTS.items():
        told = results.get(name)
        if told is None:
            continue
        tried = told["right"] + len(told["wrong"])
        skipped = f"; {len(told['skipped'])} left out by the client" if told["skipped"] else ""
        row = (
            f"{client.called} {told['version']}",
            f"{client.what}, {told['on']}",
            f"{told['right']} of {tried}{skipped}",
        )
        lines.append(f"| {' | '.join(row)} | {_wrong(name, told['wrong'])} |")
    return "\n".join(lines) + "\n"


def _wrong(name: str, wrong: list[list[str]]) -> str:
    """Those with one sentence together."""
    by_sentence: dict[str, list[str]] = {}
    for step, said in wrong:
        by_sentence.setdefault(why_not(name, step) or said, []).append(step)
    told = []
    for sentence, steps in by_sentence.items():
        shown = f"{len(steps)} steps" if len(steps) > 3 else ", ".join(f"`{step}`" for step in steps)
        told.append(f"{shown}: {sentence}".replace("|", "\\|"))
    return "; ".join(told) or "–"


if __name__ == "__main__":
    sys.exit(write())
