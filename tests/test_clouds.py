"""Which cloud the command line speaks to: what openstacksdk finds in the same files and variables, droveway finds."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from openstack.config import loader

from droveway.cli import clouds

Put = Callable[[str, str], Path]
AUTH = """auth: {auth_url: "http://one:1/identity/v3", username: ada, password: pw, project_name: red,
           user_domain_name: Default, project_domain_name: Default}"""


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """An empty home and an empty directory to stand in; puts a file beneath `tmp_path`."""
    for name in [name for name in os.environ if name.startswith(("OS_", "XDG_", "DROVEWAY_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "here")

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


def as_openstacksdk(put: Put) -> dict[str, Any]:
    """What openstacksdk makes of the same, with its list of places read again: it made it when it was loaded."""
    home = Path(os.environ["HOME"]) / ".config" / "openstack"
    places = [Path.cwd(), home, Path(os.environ["XDG_CONFIG_DIRS"]) / "openstack", Path("/etc/openstack")]
    files = {
        stem: [str(place / f"{stem}{end}") for place in places for end in (".yaml", ".yml", ".json")]
        for stem in ("clouds", "secure", "clouds-public")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it is to drop one day
        config = loader.OpenStackConfig(
            config_files=files["clouds"],
            secure_files=files["secure"],
            vendor_files=files["clouds-public"],
            envvar_prefix=None,
        )
        return dict(config.get_one().config["auth"])


FOUR = """
clouds:
    mine:
        auth:
            auth_url: http://one:1/identity
            username: "ada"
            password: 'a: b'      # with a comment
            project_id: 0123abc
            user-domain-id: default
        region_name: RegionOne
"""
OUTSIDE = """
clouds:
  mine:
    username: eve
    tenant_name: green
    domain_name: D
    auth: {auth_url: "http://one:1", username: ada, password: 7}
"""
PROFILED = f"clouds: {{mine: {{profile: big, auth: {{username: ada, password: pw, project_name: red}}}}}}\n# {AUTH[:4]}"
PUBLIC = 'public-clouds: {big: {auth: {auth_url: "http://big:1/v3", username: nobody, user_domain_id: d}}}'


@pytest.mark.parametrize(
    ("files", "variables"),
    [
        ({"here/clouds.yaml": FOUR}, {}),
        ({"here/clouds.yml": FOUR}, {"OS_CLOUD": "mine"}),
        ({"home/.config/openstack/clouds.yaml": FOUR}, {}),
        ({"site/openstack/clouds.yaml": FOUR}, {}),
        ({"here/clouds.yaml": f"clouds: {{near: {{{AUTH}}}}}", "home/.config/openstack/clouds.yaml": FOUR}, {}),
        (
            {
                "here/clouds.json": json.dumps(
                    {"clouds": {"j": {"auth": {"auth_url": "http://j", "username": "u", "password": "p"}}}}
                )
            },
            {},
        ),
        ({"here/clouds.yaml": OUTSIDE}, {}),
        (
            {
                "here/clouds.yaml": FOUR,
                "home/.config/openstack/secure.yaml": "clouds: {mine: {auth: {password: secret}}}",
            },
            {},
        ),
        ({"here/clouds.yaml": PROFILED, "here/clouds-public.yaml": PUBLIC}, {}),
        (
            {"here/clouds.yaml": FOUR},
            {
                "OS_AUTH_URL": "http://env:1/v3",
                "OS_USERNAME": "eve",
                "OS_PASSWORD": "pw",
                "OS_PROJECT_NAME": "blue",
                "OS_USER_DOMAIN_NAME": "Default",
                "OS_PROJECT_DOMAIN_ID": "default",
            },
        ),
        ({"here/clouds.yaml": FOUR}, {"OS_CLOUD": "mine", "OS_USERNAME": "eve"}),
        ({"here/clouds.yaml": FOUR}, {"OS_REGION_NAME": "RegionOne"}),
        (
            {"home/other.yaml": f"clouds: {{x: {{{AUTH}}}}}", "here/clouds.yaml": FOUR},
            {"OS_CLIENT_CONFIG_FILE": "{}/home/other.yaml"},
        ),
    ],
)
def test_what_openstacksdk_finds_is_found(
    put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], variables: dict[str, str]
) -> None:
    for name, text in files.items():
        put(name, text)
    for name, text in variables.items():
        monkeypatch.setenv(name, text.format(tmp_path))
    found = clouds.chosen()
    theirs = as_openstacksdk(put)
    assert found.auth["auth_url"] == theirs["auth_url"]
    body = found.log_in()["auth"]
    user, project = body["identity"]["password"]["user"], body.get("scope", {}).get("project", {})
    assert (user["name"], user["password"]) == (theirs["username"], theirs["password"])
    for key in ("id", "name"):
        assert theirs.get(f"user_domain_{key}") in (None, user["domain"].get(key))
        assert theirs.get(f"project_{key}") == project.get(key)
        assert theirs.get(f"project_domain_{key}") in (None, project.get("domain", {}).get(key))


def test_a_cloud_is_named_on_the_command_line_before_the_environment(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put("here/clouds.yaml", f"clouds: {{one: {{{AUTH}}}, two: {{{AUTH.replace('ada', 'eve')}}}}}")
    monkeypatch.setenv("OS_CLOUD", "one")
    found = []

    @click.group()
    @click.option("--os-cloud")
    def root(os_cloud: str | None) -> None: ...

    @root.command()
    def sub() -> None:
        found.append(clouds.chosen().auth["username"])

    for arguments in ([], ["--os-cloud", "two"]):
        assert CliRunner().invoke(root, [*arguments, "sub"]).exit_code == 0
    assert found == ["ada", "eve"]


def test_the_one_called_droveway_is_the_default_among_several(put: Put) -> None:
    put("here/clouds.yaml", f"clouds: {{one: {{{AUTH.replace('ada', 'eve')}}}, droveway: {{{AUTH}}}}}")
    assert clouds.chosen().auth["username"] == "ada"


@pytest.mark.parametrize(
    ("auth", "user", "scope"),
    [
        ("user_id: u, password: p, project_id: q", {"id": "u", "password": "p"}, {"project": {"id": "q"}}),
        (
            "username: n, password: p, domain_id: d",
            {"name": "n", "password": "p", "domain": {"id": "d"}},
            {"domain": {"id": "d"}},
        ),
        (
            "username: n, password: p, default_domain: d, project_name: q",
            {"name": "n", "password": "p", "domain": {"id": "d"}},
            {"project": {"name": "q", "domain": {"id": "d"}}},
        ),
        (
            "username: n, password: p, system_scope: all",
            {"name": "n", "password": "p", "domain": {"name": "Default"}},
            {"system": {"all": True}},
        ),
        ("username: n, password: p", {"name": "n", "password": "p", "domain": {"name": "Default"}}, None),
    ],
)
def test_scopes_and_ids(put: Put, auth: str, user: dict[str, Any], scope: dict[str, Any] | None) -> None:
    put("here/clouds.yaml", f'clouds: {{c: {{auth: {{auth_url: "http://x", {auth}}}}}}}')
    body = clouds.chosen().log_in()["auth"]
    assert body["identity"]["password"]["user"] == user
    assert body.get("scope") == scope


def test_a_token_does_for_a_password(put: Put) -> None:
    put("here/clouds.yaml", 'clouds: {c: {auth_type: v3token, auth: {auth_url: "https://x", token: t, project_id: q}}}')
    assert clouds.chosen().log_in()["auth"] == {
        "identity": {"methods": ["token"], "token": {"id": "t"}},
        "scope": {"project": {"id": "q"}},
    }


def test_regions_certificates_and_verification(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = '[{name: A, values: {auth: {auth_url: "http://a"}}}, {name: B, values: {auth: {auth_url: "http://b"}}}]'
    put("here/clouds.yaml", f"clouds: {{c: {{{AUTH}, regions: {regions}, cacert: /ca.pem, verify: false}}}}")
    found = clouds.chosen()
    assert (found.auth["auth_url"], found.cacert, found.verify) == ("http://a", "/ca.pem", False)
    monkeypatch.setenv("OS_REGION_NAME", "B")
    assert clouds.chosen().auth["auth_url"] == "http://b"


@pytest.mark.parametrize(
    ("files", "variables", "words"),
    [
        ({}, {}, "there is no clouds.yaml here, .* and no OS_AUTH_URL: 'droveway all'"),
        ({}, {"DROVEWAY_DEV": "./dev"}, "'./dev up' starts one"),
        ({}, {"OS_CLIENT_CONFIG_FILE": "/nowhere.yaml"}, "/nowhere.yaml does not exist, and OS_CLIENT_CONFIG_FILE"),
        ({}, {"OS_USERNAME": "ada"}, r"the environment \(OS_USERNAME\) has no auth_url, password"),
        ({"here/clouds.yaml": "a: [\n"}, {}, "clouds.yaml is not YAML: .*line"),
        ({"here/clouds.yaml": "[]"}, {}, "must be a table with the key clouds"),
        ({"here/clouds.yaml": "clouds: []"}, {}, "no cloud|no clouds.yaml|must be a table"),
        ({"here/clouds.yaml": "clouds: {a: 7}"}, {}, "cloud a must be a table"),
        ({"here/clouds.yaml": "clouds: {a: {auth: {}}}"}, {"OS_CLOUD": "b"}, "no cloud named b, only a; --os-cloud"),
    ],
)
def test_what_leads_nowhere_is_one_reason(
    put: Put, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], variables: dict[str, str], words: str
) -> None:
    for name, text in files.items():
        put(name, text)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(click.ClickException, match=words) as caught:
        clouds.chosen()
    assert "\n" not in caught.value.message


def test_nothing_installed_speaks_of_a_clone() -> None:
    for path in (Path(__file__).parent.parent / "src").rglob("*.py"):
        assert "./dev" not in path.read_text(), f"{path}: an installed package has no ./dev; see DROVEWAY_DEV"
