"""The document of the API is valid, whole and true: it says what the handlers read, because it is made of that.

More than 400 lines because the document is compared with what each kind of body refuses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from droveway.api import app, support
from droveway.api.compute import flavors, server_actions, server_body, server_create
from droveway.api.http import kinds
from droveway.api.http.bodies import Body, Kind, RequestBody, body_of, members, read, schema
from droveway.api.http.microversions import MAXIMUM, SERIES, VersionSeries
from droveway.api.http.render import FOREVER
from droveway.api.http.request import Request
from droveway.api.identity import tokens
from droveway.api.openapi import body_schema, document
from droveway.api.routes import ROUTES
from droveway.api.wiring import HEARD_MAX
from droveway.domain.faults import BadRequest, Fault
from droveway.domain.resources import LastReport
from tests.api.world import NOVA, in_world, reason

OWN = "/droveway/v1"
API = Path(app.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"


def plain() -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(document(ROUTES)))


# -- the document -----------------------------------------------------------------------------------------------------
async def test_the_document_is_valid_and_served_to_anybody(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        reply = await world.http.get(f"{OWN}/openapi.json")
        assert (reply.status_code, reply.json()) == (200, plain())
        OpenAPIV31SpecValidator(reply.json()).validate()


def test_every_call_is_in_it_and_nothing_else() -> None:
    said = {
        (path, method.upper()) for path, item in plain()["paths"].items() for method in item if method != "parameters"
    }
    assert said == {(route.path, route.method) for route in ROUTES}
    for schema_ in _schemas(plain()):
        Draft202012Validator.check_schema(schema_)


def _schemas(document_: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        content["schema"]
        for item in document_["paths"].values()
        for one in item.values()
        if isinstance(one, dict)
        for content in one.get("requestBody", {}).get("content", {}).values()
    ]


def test_every_handler_that_reads_a_body_declares_it() -> None:
    """Bodies are read where they are declared; a patch of an image and its data are read by hand, and marked."""
    by_hand = {path.name for path in API.rglob("*.py") if "request.json(" in path.read_text()}
    assert by_hand == {"bodies.py", "actions.py", "images.py"}
    with_body = {route.method for route in ROUTES if body_of(route.handler) is not None}
    assert with_body == {"POST", "PUT", "PATCH"}
    silent = {
        f"{route.method} {route.path}"
        for route in ROUTES
        if route.method in ("POST", "PATCH")
        and body_of(route.handler) is None
        and not support.is_refusal(route.handler)
    }
    assert silent == {
        "POST /image/v2/images/{id}/actions/deactivate",
        "POST /image/v2/images/{id}/actions/reactivate",
        f"POST {OWN}/sagas/{{saga_id}}/retry",
        f"POST {OWN}/sagas/{{saga_id}}/cancel",
        f"POST {OWN}/hosts/{{host}}/readmit",
        f"POST {OWN}/authorities/{{authority}}/use",
        f"POST {OWN}/certificates/{{serial}}/revoke",
        f"POST {OWN}/hosts/{{host}}/revoke-certificates",
    }


def test_the_page_of_what_is_supported_is_current() -> None:
    wanted = support.page()
    assert (DOCS / "api-support.md").read_text() == wanted, "run: python -m droveway.api.support > docs/api-support.md"
    for route in ROUTES:
        assert f"| `{route.method} {route.path}` |" in wanted
    assert "`description` (2.19 on)" in wanted and "**`networks`** (required 2.37 on)" in wanted
    assert "`force` (2.30 to 2.67)" in wanted and "`reboot` (member): **`type`**" in wanted
    assert wanted.count("*refused*") == sum(support.is_refusal(route.handler) for route in ROUTES) > 20


# -- the declarations and what they read ------------------------------------------------------------------------------
def _forms() -> list[type[Body]]:
    found: dict[type[Body], None] = {}

    def add(form: Any) -> None:
        if isinstance(form, Kind):
            form = form.form
        if form is None or form in found:
            return
        found[form] = None
        for member in members(form):
            for kind in member.kinds:
                add(kind)

    for route in ROUTES:
        body = body_of(route.handler)
        if body is not None:
            for one in (body, *body.actions.values()):
                add(one.form)
    return list(found)


@pytest.mark.parametrize("form", _forms(), ids=lambda form: form.__name__)
def test_a_member_is_there_at_its_microversions_and_at_no_other(form: type[Body]) -> None:
    for member in members(form):
        for minor in (1, *range(2, MAXIMUM, 7), *(at for kind in member.kinds for at in _edges(kind)), MAXIMUM):
            there = any(kind.first <= minor <= kind.last for kind in member.kinds)
            try:
                read(form, {member.name: object()}, "it", minor)
                said = ""
            except Fault as fault:
                said = fault.reason
            is_refused = "additional properties are not allowed" in said
            assert is_refused == (not there and not form.is_open), (member.name, minor, said)


def _edges(kind: Kind) -> list[int]:
    ends = (kind.first - 1, kind.first, *((kind.last, kind.last + 1) if kind.last != FOREVER else ()))
    return [minor for minor in ends if minor >= 1]


IMAGE = "01234567-89ab-cdef-0123-456789abcdef"
SERVER = {"name": "a", "imageRef": IMAGE, "flavorRef": "1", "networks": "none"}
LOGIN = {"methods": ["password"], "password": {"user": {"id": "u", "password": "p"}}}
FLAVOR = {"name": "f", "vcpus": 1, "ram": "64", "disk": 0}
MOVE = {"host": None, "block_migration": "auto"}


def _server(**more: Any) -> dict[str, Any]:
    return {"server": SERVER | more}


@pytest.mark.parametrize(
    ("handler", "good", "bad"),
    [
        (
            server_create.create,
            [
                _server(),
                _server(networks=[]),
                _server(min_count="2", max_count=3, tags=["a"], metadata={"k": "v"}),
                _server(key_name=None, user_data="", host=None, hostname="web.example", config_drive=False),
                _server(key_name="k", user_data="aGk=", config_drive="true"),
                {"server": SERVER, "os:scheduler_hints": {"group": IMAGE}},
            ],
            [
                {},
                {"server": []},
                {"server": {}},
                {"server": {"name": "a", "imageRef": IMAGE, "flavorRef": "1"}},
                _server(name=""),
                _server(flavorRef=None),
                _server(networks=["x"]),
                _server(min_count=0),
                _server(tags=["a,b"]),
                _server(tags=[""]),
                _server(metadata={"k": 1}),
                _server(metadata={"": "v"}),
                _server(key_name="k" * 256),
                _server(user_data="aGk=" * 20_000),
                _server(config_drive="perhaps"),
                _server(colour="red"),
                _server(description=7),
                _server(personality=[]),
                _server(**{"OS-DCF:diskConfig": "SOME"}),
                _server(hostname=5),
                _server(return_reservation_id="perhaps"),
                {"server": SERVER, "hints": {}},
            ],
        ),
        (
            flavors.create,
            [
                {"flavor": FLAVOR},
                {"flavor": FLAVOR | {"id": 7, "rxtx_factor": "1.5", "description": None}},
                {"flavor": FLAVOR | {"os-flavor-access:is_public": "no"}},
            ],
            [
                {"flavor": {"name": "f"}},
                {"flavor": FLAVOR | {"vcpus": 0}},
                {"flavor": FLAVOR | {"ram": "many"}},
                {"flavor": FLAVOR | {"id": ""}},
                {"flavor": FLAVOR | {"rxtx_factor": 0}},
                FLAVOR,
                {"flavor": FLAVOR, "x": 1},
            ],
        ),
        (
            server_actions.action,
            [
                {"os-start": None},
                {"reboot": {"type": "HARD"}},
                {"os-getConsoleOutput": {}},
                {"os-migrateLive": MOVE},
                {"os-getConsoleOutput": {"length": -1}},
            ],
            [
                {},
                {"os-start": None, "os-stop": None},
                {"reboot": {}},
                {"reboot": {"type": "WARM"}},
                {"reboot": None},
                {"os-getConsoleOutput": {"length": -2}},
                {"os-migrateLive": {"host": None}},
                {"dance": None},
                {"os-migrateLive": MOVE | {"force": True}},
            ],
        ),
        (
            tokens.issue,
            [
                {"auth": {"identity": LOGIN}},
                {"auth": {"identity": LOGIN, "scope": "unscoped"}, "more": 1},
                {"auth": {"identity": LOGIN, "scope": {"project": {"id": "p"}}}},
            ],
            [
                {},
                {"auth": {}},
                {"auth": {"identity": {}}},
                {"auth": {"identity": {"methods": "password"}}},
                {"auth": {"identity": LOGIN | {"password": {}}}},
                {"auth": {"identity": LOGIN, "scope": {"project": []}}},
                {"auth": {"identity": LOGIN, "scope": 7}},
            ],
        ),
    ],
)
def test_what_is_read_and_what_is_advertised_are_the_same(handler: Any, good: list[Any], bad: list[Any]) -> None:
    """At the newest microversion: members that are gone by then, and what is read only together, are left out."""
    body = body_of(handler)
    assert body is not None
    validator = Draft202012Validator(_now(msgspec.json.decode(msgspec.json.encode(body_schema(body, "2.")))))
    for given in good:
        _read(body, given)
        assert validator.is_valid(given), list(validator.iter_errors(given))
    for given in bad:
        assert not validator.is_valid(given), given
        with pytest.raises(Fault):
            _read(body, given)


def _read(body: RequestBody, given: Any) -> None:
    if body.actions:
        if len(given) != 1 or next(iter(given)) not in body.actions:
            raise BadRequest("that is no action")
        (name,) = given
        RequestBody(body.actions[name].form, name).read(given, MAXIMUM)
    else:
        body.read(given, MAXIMUM)


def _now(value: Any) -> Any:
    """The schema as it holds at the newest microversion, by its notes."""
    if isinstance(value, list):
        return [_now(each) for each in value if not _is_over(each)]
    if not isinstance(value, dict):
        return value
    found = {name: _now(each) for name, each in value.items() if not _is_over(each)}
    if isinstance(value.get("properties"), dict):
        needed = [name for name, each in value["properties"].items() if not _is_over(each) and _is_needed(each)]
        found["required"] = sorted({*value.get("required", ()), *needed})
    return found


def _is_over(value: Any) -> bool:
    return isinstance(value, dict) and "max-ver" in value.get("x-openstack", {})


def _is_needed(value: dict[str, Any]) -> bool:
    return any(
        one.get("x-openstack", {}).get("required") and not _is_over(one) for one in (value, *value.get("anyOf", ()))
    )


def test_a_refusal_names_the_member_and_what_it_must_be() -> None:
    for form, given, minor, says in (
        (
            server_body.NewServer,
            {"server": SERVER | {"tags": []}},
            51,
            "Invalid input for server: additional properties are not allowed ('tags').",
        ),
        (server_body.NewServer, {"server": {**SERVER, "networks": "none"}}, 36, "'none' is known from microversion"),
        (
            server_body.NewServer,
            {"server": {"name": "a"}},
            37,
            "Invalid input for server: 'networks' is a required property.",
        ),
        (server_body.NewServer, [], 1, "Invalid input for the body: it must be an object."),
        (
            server_actions.MigrateLive,
            {"host": "h", "block_migration": False},
            24,
            "Invalid input for the body: 'disk_over_commit' is a required property.",
        ),
        (
            server_actions.MigrateLive,
            {"host": "h", "block_migration": "auto"},
            1,
            "Invalid input for block_migration: 'auto' is not a boolean.",
        ),
    ):
        with pytest.raises(BadRequest) as caught:
            read(form, given, "", minor)
        assert says in caught.value.reason


def test_the_kinds_bound_themselves_to_microversions() -> None:
    one = kinds.whole(1, 9)
    assert (one.read("n", "7"), one.since(3).first, one.until(4).last, one.needed().is_needed) == (7, 3, 4, True)
    assert schema(kinds.or_null(one))["anyOf"][0] == {"type": "null"} and kinds.or_null(one).read("n", None) is None
    with pytest.raises(BadRequest, match=r"Invalid input for n: it must be a or b\."):
        kinds.either("a", "b").read("n", "c")


# -- one rule for queries, and whose it is ----------------------------------------------------------------------------
async def test_unknown_keys_of_a_query_are_refused_by_compute_alone(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        latest = {"OpenStack-API-Version": "compute 2.96, volume 3.71, placement 1.39"}
        for path in (
            f"{OWN}/sagas",
            f"{OWN}/services",
            "/volume/v3/volumes",
            "/identity/v3/projects",
            f"{OWN}/placements",
            "/image/v2/info/usage",
        ):
            reply = await world.ask("GET", f"{path}?colour=red", token=token, headers=latest)
            assert reply.status_code == 200, path
        for path in ("/flavors", "/servers", "/os-server-groups", "/os-keypairs"):
            for minor, status in ((74, 200), (75, 400)):
                reply = await world.ask("GET", f"{NOVA}{path}?colour=red", token=token, version=f"2.{minor}")
                assert reply.status_code == status, path
            assert "'colour' was unexpected" in reason(reply)
    assert {name: one.strict_since for name, one in SERIES.items()} == {
        "compute": 75,
        "placement": FOREVER,
        "volume": FOREVER,
    }
    for series, refuses in (
        (VersionSeries("other", 1, 0, 99), False),
        (VersionSeries("other", 1, 0, 99, strict_since=80), True),
    ):
        headers = [(b"openstack-api-version", b"other 1.80")]
        request = Request({"method": "GET", "path": "/", "headers": headers}, _nothing_comes, "req-1")
        series.agree(request)
        assert (request.version, request.refuses_unknown) == (80, refuses)


async def _nothing_comes() -> Any:
    raise AssertionError("no body is read")


async def test_every_reply_of_block_storage_says_its_microversion(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        token = await world.token()
        for path, version, status, echoed in (
            ("/volumes", "3.71", 200, "3.71"),
            ("/messages", "3.2", 404, "3.2"),
            ("/messages", "3.3", 200, "3.3"),
            ("/volumes", "3.72", 406, "3.0"),
            ("/volumes", "x", 400, "3.0"),
        ):
            headers = {"OpenStack-API-Version": f"volume {version}"}
            reply = await world.ask("GET", f"/volume/v3{path}", token=token, headers=headers)
            assert (reply.status_code, reply.headers["openstack-api-version"]) == (status, f"volume {echoed}"), path


def test_what_is_written_once_is_written_nowhere_else() -> None:
    """Paging, ownership and the parsing of versions: each has one place."""
    text = {path.name: path.read_text() for path in API.rglob("*.py")}
    for pattern, place in (
        (r"\('marker', str|\"marker\", str", "paging.py"),
        (r"marker \[", "paging.py"),
        (r"of another project", "request.py"),
        (r"None if .*is_admin else .*project_id", "request.py"),
        (r"is not supported by the API", "microversions.py"),
        (r"was unexpected", "request.py"),
        (r"named by the action", "actions.py"),
    ):
        found = {name for name, content in text.items() if re.search(pattern, content)}
        assert found <= {place, "queries.py"} and place in found, (pattern, found)


def test_the_document_notes_the_microversions_of_members() -> None:
    server = schema(server_body.NewServer, "2.")["properties"]["server"]["properties"]
    assert server["description"]["x-openstack"] == {"min-ver": "2.19"}
    assert server["personality"]["x-openstack"] == {"max-ver": "2.56"}
    before, since = server["networks"]["anyOf"]
    assert (before["x-openstack"], since["x-openstack"]) == (
        {"max-ver": "2.36"},
        {"min-ver": "2.37", "required": True},
    )


async def test_what_hosts_have_reported_is_asked_for_in_parts(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        asked: list[tuple[str, ...]] = []

        async def last_reports(*names: str) -> dict[str, LastReport]:
            asked.append(names)
            return {name: LastReport(1, 1) for name in names}

        names = [f"c{number}" for number in range(HEARD_MAX + 3)]
        assert await world.api.last_reports(names) == {}  # no control: no reason to refuse a list
        world.control.last_reports = last_reports
        assert list(await world.api.last_reports(names)) == names
        assert [len(part) for part in asked] == [HEARD_MAX, 3]
        assert list(await world.api.last_reports()) == ["h1", "h2"]
