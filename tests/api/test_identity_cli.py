"""Identity as the unmodified `openstack` command speaks it, against an API that is really served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_services_cli import Served
from tests.api.world import World
from tests.openstack_process import OpenstackProcess

pytestmark = pytest.mark.slow


class Cloud(Served):
    """With a catalog that names the port on which it is served."""

    def make_world(self, directory: Path) -> World:
        return World(directory, base_url=f"http://127.0.0.1:{self.port}")

    def start(self) -> None:
        """With a second cloud in the file, for the scope of the system."""
        path = self.home / "clouds.yaml"
        if "system:" not in path.read_text():
            known = path.read_text()
            places = ("project_name:", "project_domain_name:")
            lines = [line for line in known.splitlines()[1:] if not line.strip().startswith(places)]
            text = "\n".join(lines).replace("  droveway:", "  system:", 1)
            path.write_text(
                f"{known}{text}\n".replace("  system:\n    auth:", "  system:\n    auth:\n      system_scope: all")
            )
        super().start()
        self._shell = OpenstackProcess(self.home / "clouds.yaml")
        self.openstack = self._shell.run

    def stop(self) -> None:
        self._shell.close()
        super().stop()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    made = Cloud(tmp_path_factory.mktemp("identity"))
    yield made
    made.stop()


def test_people_projects_and_what_they_may(cloud: Cloud) -> None:
    cli = cloud.openstack
    corp = cli("domain", "create", "corp", "--description", "of the firm")
    assert (corp["enabled"], corp["description"]) == (True, "of the firm")
    assert "409" in cli("domain", "create", "corp", fails=True)
    lab = cli("project", "create", "lab", "--domain", "corp", "--tag", "blue", "--enable")
    inner = cli("project", "create", "inner", "--domain", "corp", "--parent", "lab")
    assert (lab["tags"], inner["parent_id"], lab["parent_id"]) == (["blue"], lab["id"], corp["id"])
    assert cli("project", "show", "inner", "--domain", "corp", "--parents")["parents"]
    cli("project", "set", "lab", "--domain", "corp", "--description", "tests", "--tag", "green")
    assert cli("project", "show", "lab", "--domain", "corp")["description"] == "tests"
    assert {one["Name"] for one in cli("project", "list", "--domain", "corp")} == {"lab", "inner"}
    words = ("--domain", "corp", "--password", "first one", "--email", "eve@lab", "--description", "d")
    eve = cli("user", "create", "eve", *words, "--project", "lab", "--project-domain", "corp")
    assert (eve["email"], eve["default_project_id"], eve["domain_id"]) == ("eve@lab", lab["id"], corp["id"])
    cli("user", "set", "eve", "--domain", "corp", "--email", "e@lab")
    assert cli("user", "show", "eve", "--domain", "corp")["email"] == "e@lab"
    assert [one["Name"] for one in cli("user", "list", "--domain", "corp")] == ["eve"]
    assert [one["Name"] for one in cli("user", "list", "--limit", "2")] == ["admin", "alice", "bob", "eve", "rita"]
    assert [one["Name"] for one in cli("user", "list", "--limit", "2", "--max-items", "2")] == ["admin", "alice"]
    cli("group", "create", "team", "--domain", "corp", "--description", "t")
    cli("group", "add", "user", "team", "eve", "--group-domain", "corp", "--user-domain", "corp")
    assert "eve in group team" in cli("group", "contains", "user", "team", "eve", *_DOMAINS)
    assert [one["Name"] for one in cli("group", "list", "--user", "eve", "--user-domain", "corp")] == ["team"]
    assert [one["Name"] for one in cli("user", "list", "--group", "team", "--domain", corp["id"])] == ["eve"]
    place = ("--project", "lab", "--project-domain", "corp", "--group", "team", "--group-domain", "corp")
    cli("role", "add", *place, "member")
    cli("role", "add", *place, "--inherited", "reader")
    named = cli("role", "assignment", "list", "--user", "eve", "--user-domain", "corp", "--effective", "--names")
    assert {(one["Role"], one["Project"]) for one in named} == {
        ("member", "lab@corp"),
        ("reader", "lab@corp"),
        ("reader", "inner@corp"),
    }
    cli("role", "remove", *place, "--inherited", "reader")
    cli("role", "add", "--system", "all", "--user", "eve", "--user-domain", "corp", "reader")
    assert cli("role", "assignment", "list", "--system", "all", "--names")[-1]["User"]
    cli("role", "create", "operator", "--description", "who operates")
    cli("implied", "role", "create", "operator", "--implied-role", "reader")
    assert "operator" in {one["Prior Role Name"] for one in cli("implied", "role", "list")}
    cli("implied", "role", "delete", "operator", "--implied-role", "reader")
    cli("role", "set", "operator", "--name", "operators")
    cli("role", "delete", "operators")
    assert "403" in cli("role", "delete", "member", fails=True)
    assert "still" not in cli("project", "delete", "inner", "--domain", "corp")
    assert "403" in cli("domain", "delete", "corp", fails=True)
    cli("user", "set", "eve", "--domain", "corp", "--disable")
    cli("user", "delete", "eve", "--domain", "corp")
    cli("group", "delete", "team", "--domain", "corp")
    cli("domain", "set", "corp", "--disable")
    cli("domain", "delete", "corp")
    assert [one["Name"] for one in cli("domain", "list")] == ["Default"]


_DOMAINS = ("--group-domain", "corp", "--user-domain", "corp")


def test_keys_and_the_catalog(cloud: Cloud) -> None:
    cli = cloud.openstack
    cli("user", "create", "ann", "--password", "first one", "--project", "red")
    cli("role", "add", "--user", "ann", "--project", "red", "member")
    as_ann = ("--os-username", "ann", "--os-password", "first one", "--os-project-name", "red")
    assert cli(*as_ann, "token", "issue", "-f", "json")["project_id"]
    key = cli(*as_ann, "application", "credential", "create", "ci", "--role", "reader", "--description", "c")
    assert {one["name"] for one in _roles(key["Roles"])} == {"reader"} and key["Secret"]
    rules = '[{"path": "/x", "method": "GET", "service": "compute"}]'
    refused = cli(*as_ann, "application", "credential", "create", "x", "--access-rules", rules, fails=True)
    assert "access rules are not known here" in refused
    assert [one["Name"] for one in cli(*as_ann, "application", "credential", "list")] == ["ci"]
    cli(*as_ann, "application", "credential", "delete", "ci")
    made = cli(*as_ann, "ec2", "credentials", "create")
    assert cli(*as_ann, "ec2", "credentials", "show", made["access"])["secret"] == made["secret"]
    assert len(cli(*as_ann, "ec2", "credentials", "list")) == 1
    cli(*as_ann, "ec2", "credentials", "delete", made["access"])
    cli(*as_ann, "user", "password", "set", "--original-password", "first one", "--password", "second one")
    assert "401" in cli(*as_ann, "token", "issue", fails=True)
    blob = cli("credential", "create", "--type", "cert", "ann", "PEM")
    assert [one["Type"] for one in cli("credential", "list", "--user", "ann")] == ["cert"]
    cli("credential", "delete", blob["id"])

    cli("region", "create", "two", "--parent-region", "RegionOne", "--description", "r")
    service = cli("service", "create", "object-store", "--name", "swift", "--description", "s")
    endpoint = cli("endpoint", "create", "swift", "public", "http://s/v1", "--region", "two")
    assert (endpoint["service_type"], endpoint["region"]) == ("object-store", "two")
    cli("endpoint", "set", endpoint["id"], "--url", "http://s/v2")
    assert [one["URL"] for one in cli("endpoint", "list", "--service", "swift")] == ["http://s/v2"]
    assert "swift" in {one["Name"] for one in cli("catalog", "list")}
    cli("endpoint", "delete", endpoint["id"])
    cli("service", "set", "swift", "--disable")
    cli("service", "delete", service["id"])
    cli("region", "delete", "two")
    assert "409" in cli("service", "delete", "nova", fails=True)
    token = cli("--os-cloud", "system", "token", "issue", "-f", "json")
    assert token["system"] == "all"
    issued = cli("token", "issue", "-f", "json")
    cli("token", "revoke", issued["id"])


def _roles(shown: object) -> list[dict[str, str]]:
    found = json.loads(shown) if isinstance(shown, str) else shown
    assert isinstance(found, list)
    return found
