"""Which document a path of the metadata service means: OpenStack's form under /openstack, EC2's under /VERSION. Pure,
and of the standard library alone: the process that guests talk to is small.

A guest's documents are a flat table, text by path under `openstack/latest/` and `latest/`. Every dated version that
clients ask for shows the same documents, each from the version that first had it. Sources: OpenStack's user guide
(Metadata), nova/api/metadata/base.py and handler.py, AWS's instance metadata categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

OPENSTACK_VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
)
EC2_VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
)
LATEST = "latest"
SINCE = {  # which version of OpenStack's form first had what
    "meta_data.json": "2012-08-10",
    "user_data": "2012-08-10",
    "password": "2013-04-04",
    "vendor_data.json": "2013-10-17",
    "network_data.json": "2015-10-15",
    "vendor_data2.json": "2016-10-06",
}
PATH_MAX = 512  # characters


def lookup(documents: Mapping[str, bytes], path: str) -> bytes | None:
    """What stands there: a document, or the list of what is below. None: nothing."""
    if len(path) > PATH_MAX:
        return None
    parts = [part for part in path.split("?", 1)[0].split("/") if part]
    if not parts:
        return _lines((*EC2_VERSIONS, LATEST))
    if parts[0] == "openstack":
        return _openstack(documents, parts[1:])
    if parts[0] != LATEST and parts[0] not in EC2_VERSIONS:
        return None
    return _below(documents, [LATEST, *parts[1:]])


def is_password(path: str) -> bool:
    """Where a guest leaves the password that it has made."""
    parts = [part for part in path.split("?", 1)[0].split("/") if part]
    if len(parts) != 3 or (parts[0], parts[2]) != ("openstack", "password"):
        return False
    return parts[1] == LATEST or (parts[1] in OPENSTACK_VERSIONS and parts[1] >= SINCE["password"])


def _openstack(documents: Mapping[str, bytes], parts: list[str]) -> bytes | None:
    if not parts:
        return _lines((*OPENSTACK_VERSIONS, LATEST))
    version, *rest = parts
    if version != LATEST and version not in OPENSTACK_VERSIONS:
        return None
    known = {name for name, since in SINCE.items() if version == LATEST or version >= since}
    prefix = f"openstack/{LATEST}/"
    if not rest:
        return _lines(sorted(name for name in known if prefix + name in documents))
    return documents.get(prefix + rest[0]) if len(rest) == 1 and rest[0] in known else None


def _below(documents: Mapping[str, bytes], parts: list[str]) -> bytes | None:
    """The document of that path, or what is below it, a directory with a slash. What is both has a list of its own:
    public keys are listed by number and name, and found by number."""
    path = "/".join(parts)
    found = documents.get(path)
    if found is not None:
        return found
    names: dict[str, None] = {}
    for one in documents:
        if one.startswith(f"{path}/"):
            name, slash, _ = one[len(path) + 1 :].partition("/")
            names[name + slash] = None
    return _lines(sorted(name for name in names if f"{name}/" not in names)) if names else None


def _lines(names: Iterable[str]) -> bytes:
    return "\n".join(names).encode()
