"""Which cloud to speak to and as whom, from the places where openstacksdk looks: clouds.yaml with secure.yaml and
clouds-public.yaml, or the variables `OS_*`.

A cloud is named by --os-cloud or OS_CLOUD. Where none is named, variables that tell of one are a cloud of their own;
then the only one of the file counts, or the one called droveway. Unlike openstacksdk a file that cannot be understood
is not passed over, and one that OS_CLIENT_CONFIG_FILE names must be there: the next one would be another cloud.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import yaml

from droveway.cli.columns import one_line

OWN = "droveway"  # what the cloud is called in the clouds.yaml that control writes
_SUFFIXES = (".yaml", ".yml", ".json")
# Variables that choose among clouds, and those of other programs.
_SELECT = {"OS_CLOUD", "OS_REGION_NAME", "OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE", "OS_CLOUD_NAME"}
_OTHERS = ("OS_TEST", "OS_STD", "OS_LOG")
_AUTH = (
    "auth_url",
    "username",
    "user_id",
    "password",
    "token",
    "project_id",
    "project_name",
    "domain_id",
    "domain_name",
    "user_domain_id",
    "user_domain_name",
    "project_domain_id",
    "project_domain_name",
    "default_domain_id",
    "default_domain_name",
    "system_scope",
)
# Of what stands in `auth` and beside it, openstacksdk takes the latter for these.
_OUTER_TAKES_PRECEDENCE = {
    name for name in _AUTH if name == "token" or name.startswith(("project", "domain", "user_domain"))
}
_ALIASES = {
    "tenant_id": "project_id",
    "tenant_name": "project_name",
    "user_name": "username",
    "auth_token": "token",
    "default_domain": "default_domain_id",
}
_BY_PASSWORD = (None, "password", "v3password")
_BY_TOKEN = ("token", "v3token")
Tree = dict[str, Any]


class Cloud(NamedTuple):
    """`auth` holds what it takes to log in; `source` is where it stands, for sentences."""

    name: str
    source: str
    auth: dict[str, str]
    cacert: str = ""  # a file; empty: the system's
    verify: bool = True

    def log_in(self) -> Tree:
        """The body of POST /v3/auth/tokens."""
        auth = self.auth
        if "token" in auth and "password" not in auth:
            identity: Tree = {"methods": ["token"], "token": {"id": auth["token"]}}
        else:
            user = _in_domain(auth, "user", "username") | {"password": auth["password"]}
            identity = {"methods": ["password"], "password": {"user": user}}
        body: Tree = {"identity": identity}
        if "project_id" in auth or "project_name" in auth:
            body["scope"] = {"project": _in_domain(auth, "project", "project_name")}
        elif "domain_id" in auth or "domain_name" in auth:
            key = "id" if "domain_id" in auth else "name"
            body["scope"] = {"domain": {key: auth[f"domain_{key}"]}}
        elif "system_scope" in auth:
            body["scope"] = {"system": {auth["system_scope"]: True}}
        return {"auth": body}


def _in_domain(auth: Mapping[str, str], kind: str, name: str) -> Tree:
    """A user or a project: by its id, or by its name and domain."""
    if f"{kind}_id" in auth:
        return {"id": auth[f"{kind}_id"]}
    for domain in (f"{kind}_domain", "domain", "default_domain"):
        for key in ("id", "name"):
            if f"{domain}_{key}" in auth:
                return {"name": auth[name], "domain": {key: auth[f"{domain}_{key}"]}}
    return {"name": auth[name], "domain": {"name": "Default"}}


# -- which one --------------------------------------------------------------------------------------------------------
def chosen() -> Cloud:
    """Raises ClickException with a sentence that names the file and the way out."""
    context = click.get_current_context(silent=True)
    asked = context.find_root().params.get("os_cloud") if context is not None else None
    path, tree = _file("clouds", "OS_CLIENT_CONFIG_FILE")
    _, secret = _file("secure", "OS_CLIENT_SECURE_FILE")
    clouds = _merged(tree, secret).get("clouds") or {}
    if not isinstance(clouds, dict):
        raise click.ClickException(f"{path}: clouds must be a table of clouds by name")
    variables = _variables()
    own_name = os.environ.get("OS_CLOUD_NAME", "envvars")
    name = asked or os.environ.get("OS_CLOUD")
    if variables and (name == own_name or not name):
        return _cloud(own_name, f"the environment ({', '.join(sorted(variables))})", variables)
    if not name:
        name = next(iter(clouds)) if len(clouds) == 1 else OWN
    if path is None and not clouds:
        raise click.ClickException(
            f"there is no clouds.yaml here, in ~/.config/openstack or in /etc/openstack, "
            f"and no OS_AUTH_URL: {how_to_start()}"
        )
    if name not in clouds:
        known = ", ".join(map(str, clouds)) or "none"
        raise click.ClickException(f"{path} has no cloud named {name}, only {known}; --os-cloud or OS_CLOUD names one")
    if not isinstance(clouds[name], dict):
        raise click.ClickException(f"{path}: cloud {name} must be a table")
    return _cloud(name, f"{path}: cloud {name}", _with_region(_with_profile(clouds[name], str(path))))


def how_to_start() -> str:
    """What to do when there is no cloud: in a clone, its own verb."""
    clone = os.environ.get("DROVEWAY_DEV")
    if clone:
        return f"'{clone} up' starts one"
    return (
        "'droveway all' with a configuration file starts one, and writes a clouds.yaml where api.clouds_yaml says; "
        "OS_CLIENT_CONFIG_FILE names it"
    )


def _variables() -> Tree:
    """`OS_USERNAME` and the like, as the keys that they stand for; none when they only choose among clouds."""
    found = {name for name in os.environ if name.startswith("OS_") and not name.startswith(_OTHERS)}
    return {name: os.environ[name] for name in found} if found - _SELECT else {}


def _cloud(name: str, source: str, tree: Tree) -> Cloud:
    known = _normal(
        {key.removeprefix("OS_").lower() if key.startswith("OS_") else key: value for key, value in tree.items()}
    )
    within = {} if known.get("auth") is None else known["auth"]
    if not isinstance(within, dict):
        raise click.ClickException(f"{source}: auth must be a table")
    auth: dict[str, str] = {}
    for given in (within, known):
        for key, value in given.items():
            meant = _ALIASES.get(key, key)
            if meant not in _AUTH or value in (None, "") or isinstance(value, dict | list):
                continue
            if meant not in auth or meant in _OUTER_TAKES_PRECEDENCE:
                auth[meant] = str(value)
    kind = known.get("auth_type", known.get("auth_plugin"))
    _check_credentials(source, kind, auth)
    if kind in _BY_TOKEN:
        auth.pop("password", None)
    elif kind is not None:
        auth.pop("token", None)
    verify = _is_true(known.get("verify", True)) and not _is_true(known.get("insecure", False))
    return Cloud(name, source, auth, str(known.get("cacert") or ""), verify)


def _check_credentials(source: str, kind: Any, auth: Mapping[str, str]) -> None:
    if kind not in (*_BY_PASSWORD, *_BY_TOKEN):
        raise click.ClickException(f"{source} has auth_type {kind}; droveway logs in by password or by token")
    needed: list[tuple[str, ...]] = [("auth_url",)]
    if kind in _BY_TOKEN or (kind is None and "token" in auth and "password" not in auth):
        needed.append(("token",))
    else:
        needed += [("username", "user_id"), ("password",)]
    missing = [" or ".join(names) for names in needed if not any(auth.get(name) for name in names)]
    if missing:
        raise click.ClickException(f"{source} has no {', '.join(missing)}; droveway logs in by password or by token")
    if not auth["auth_url"].startswith(("http://", "https://")):
        raise click.ClickException(f"{source}: auth_url = {auth['auth_url']} must begin with http:// or https://")


def _is_true(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "on", "1")


# -- files ------------------------------------------------------------------------------------------------------------
def _directories() -> Iterator[Path]:
    home = Path.home() / ".config"
    yield Path()
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home) / "openstack"
    yield home / "openstack"
    for site in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(site) / "openstack"
    yield Path("/etc/openstack")


def _file(stem: str, variable: str = "") -> tuple[Path | None, Tree]:
    """The first file of that name, and what it says; the one that the variable names comes before all."""
    named = os.environ.get(variable) if variable else None
    if named:
        if not Path(named).exists():
            raise click.ClickException(
                f"{Path(named).absolute()} does not exist, and {variable} names it; {how_to_start()}"
            )
        return Path(named), _read(Path(named))
    for directory in _directories():
        for suffix in _SUFFIXES:
            path = directory / f"{stem}{suffix}"
            if path.is_file() and os.access(path, os.R_OK):
                return path, _read(path)
    return None, {}


def _read(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} cannot be read: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise click.ClickException(f"{path} is not YAML: {one_line(' '.join(str(error).split()))}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise click.ClickException(f"{path} must be a table with the key clouds")
    return tree


def _merged(under: Tree, over: Tree) -> Tree:
    """Tables are merged, everything else is replaced."""
    both = dict(under)
    for key, value in over.items():
        old = both.get(key)
        both[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return both


def _normal(tree: Tree) -> Tree:
    """`user-domain-name` is `user_domain_name`."""
    return {
        str(key).replace("-", "_"): _normal(value) if isinstance(value, dict) else value for key, value in tree.items()
    }


def _with_profile(cloud: Tree, source: str) -> Tree:
    """On top of the profile that it names in clouds-public.yaml."""
    profile = cloud.get("profile", cloud.get("cloud"))
    if profile is None:
        return cloud
    path, tree = _file("clouds-public")
    public = tree.get("public-clouds") or {}
    if not isinstance(public, dict) or not isinstance(public.get(profile), dict):
        where = f"{path} has no such" if path is not None else "there is no clouds-public.yaml with such a"
        raise click.ClickException(f"{source} names the profile {profile}, and {where} profile")
    return _merged(public[profile], cloud)


def _with_region(cloud: Tree) -> Tree:
    """With what it says of the region that OS_REGION_NAME names, or of its first one."""
    regions = [each for each in cloud.get("regions") or () if isinstance(each, dict)]
    asked = os.environ.get("OS_REGION_NAME")
    for region in regions:
        if asked in (None, region.get("name")):
            return _merged(cloud, region.get("values") or {})
    return cloud
