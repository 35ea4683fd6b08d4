"""What compute takes is what Nova's published schemas take, at each microversion where something changes; and what it
answers to a change is as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from droveway.api.http.microversions import MAXIMUM
from tests.api import nova_schemas
from tests.api.test_nova_schemas import KEY, furnished
from tests.api.test_server_networks import networked
from tests.api.world import NOVA, booted

SERVER = "/servers/{server_id}"
NULLS = {"description": None, "user_data": None, "adminPass": None, "availability_zone": None}
# Each: method, path, body. $image and the like are filled in; a server is made anew for each body that makes one.
BODIES: list[tuple[str, str, Any]] = [
    *(
        ("PUT", SERVER, {"server": server})
        for server in (
            {"name": "x"},
            {"name": " x"},
            {"name": ""},
            {"name": None},
            {"name": 5},
            {"description": "d"},
            {"description": None},
            {"description": 5},
            {"hostname": "h"},
            {"hostname": "h1"},
            {"hostname": "a.b"},
            {"hostname": "a_b"},
            {"hostname": None},
            {"accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1"},
            {"accessIPv4": "::1"},
            {"OS-DCF:diskConfig": "AUTO"},
            {"OS-DCF:diskConfig": "auto"},
            {"colour": "blue"},
            {},
        )
    ),
    ("PUT", SERVER, {}),
    *(
        (method, SERVER + "/metadata", body)
        for method in ("POST", "PUT")
        for body in (
            {"metadata": {"a": "b"}},
            {"metadata": {}},
            {"metadata": {"": "b"}},
            {"metadata": {"a": None}},
            {"metadata": {"a": 1}},
            {"metadata": {"a" * 256: ""}},
            {"metadata": {"a": "b" * 256}},
            {"metadata": None},
            {"meta": {}},
        )
    ),
    *(("PUT", SERVER + "/metadata/a", body) for body in ({"meta": {"a": "b"}}, {"meta": {}}, {"meta": {"a": None}})),
    *(
        ("PUT", SERVER + "/tags", body)
        for body in ({"tags": ["a"]}, {"tags": []}, {"tags": [""]}, {"tags": ["a,b"]}, {"tags": ["t" * 61]}, {})
    ),
    *(
        ("POST", SERVER + "/action", body)
        for body in (
            {"lock": None},
            {"lock": {}},
            {"lock": {"locked_reason": "r"}},
            {"lock": {"locked_reason": ""}},
            {"lock": {"locked_reason": None}},
            {"lock": {"why": "r"}},
            {"unlock": None},
            {"os-stop": None},
            {"os-stop": {}},
            {"reboot": {"type": "HARD"}},
            {"reboot": {"type": "soft"}},
            {"reboot": {"type": "odd"}},
            {"reboot": {}},
            {"reboot": None},
        )
    ),
    *(
        ("POST", "/servers", {"server": {"name": "n", "imageRef": "$image", "flavorRef": "tiny", **server}})
        for server in (
            {},
            {"networks": "none"},
            {"networks": "auto"},
            {"networks": "some"},
            {"networks": []},
            {"networks": "none", "description": "d"},
            {"networks": "none", "tags": ["t"]},
            {"networks": "none", "hostname": "h1"},
            {"networks": "none", "hostname": "a.b"},
            {"networks": "none", "host": "h1"},
            {"networks": "none", "metadata": {"a": 1}},
            {"networks": "none", "min_count": 0},
            {"networks": "none", "max_count": "2"},
            {"networks": "none", "user_data": "not base64!"},
            {"networks": "none", "accessIPv4": "192.0.2.1"},
            {"networks": "none", "key_name": "k"},
            {"networks": "none", "OS-DCF:diskConfig": "MANUAL"},
            {"networks": "none", "config_drive": "yes"},
            {"networks": "none", "config_drive": "maybe"},
            {"networks": "none", "return_reservation_id": "true"},
            {"networks": "none", "security_groups": [{"name": "default"}]},
            {"networks": "none", "colour": "blue"},
        )
    ),
    *(
        ("POST", "/os-keypairs", {"keypair": keypair})
        for keypair in (
            {"name": "n", "public_key": KEY},
            {"name": "n"},
            {"name": "n", "public_key": KEY, "type": "ssh"},
            {"name": "n", "public_key": KEY, "user_id": "$user"},
            {"name": "a@b.c", "public_key": KEY},
            {"name": ""},
            {},
        )
    ),
    *(
        ("POST", "/os-server-groups", {"server_group": group})
        for group in (
            {"name": "n", "policies": ["affinity"]},
            {"name": "n", "policies": ["soft-affinity"]},
            {"name": "n", "policy": "affinity"},
            {"name": "n", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}},
            {"name": "n"},
        )
    ),
    *(
        ("POST", "/flavors", {"flavor": {"name": "n", "ram": 1, "vcpus": 1, "disk": 0, **flavor}})
        for flavor in ({}, {"id": "f"}, {"id": None}, {"swap": 1}, {"swap": ""}, {"description": "d"}, {"colour": 1})
    ),
    *(
        ("PUT", "/os-quota-sets/{target}", {"quota_set": quota})
        for quota in (
            {"cores": 500},
            {"cores": "500"},
            {"cores": -2},
            {"fixed_ips": 1},
            {"injected_files": 1},
            {"force": True},
        )
    ),
    *(
        ("POST", "/os-aggregates", {"aggregate": aggregate})
        for aggregate in ({"name": "n1"}, {"name": "n2", "availability_zone": None}, {"name": ""}, {})
    ),
]
# Where the schema and what Nova's own code refuses behind it differ, or a wish cannot be heeded here.
MAY_BE_REFUSED = (
    '"networks": "auto"',  # its project has networks of more than one kind
    '"networks": []',
    '"max_count": "2"',
)
UNDO = {"POST /os-keypairs": "/os-keypairs/n", "POST /flavors": "/flavors/f"}


async def test_what_nova_takes_is_taken_and_what_it_refuses_is_refused(tmp_path: Path) -> None:
    async with networked(tmp_path) as world:
        admin = await world.token()
        values = await furnished(world, admin)
        shown = (await world.ask("GET", f"{NOVA}/servers/{values['server_id']}", token=admin)).json()
        user_id = shown["server"]["user_id"]
        await booted(world, values["server_id"])
        found: list[str] = []
        for method, path, body in BODIES:
            text = json.dumps(body)
            sent = json.loads(text.replace("$image", values["id"]).replace("$user", user_id))
            where = path
            for name, value in values.items():
                where = where.replace(f"{{{name}}}", value)
            if path.endswith("/action"):
                call = f"{method} {path} {next(iter(body))}"
            else:
                call = f"{method} {path.replace('/metadata/a', '/metadata/{key}')}"
            for version in sorted(nova_schemas.edges(call, MAXIMUM, ("request", "range"))):
                if not nova_schemas.has(call, version):
                    continue
                reply = await world.ask(method, NOVA + where, token=admin, version=f"2.{version}", json=sent)
                if reply.status_code < 300 and call in UNDO:
                    await world.ask("DELETE", NOVA + UNDO[call], token=admin)
                said = _judged(call, version, sent, text, reply)
                if said:
                    found.append(f"2.{version} {call} {text}: {said}")
        assert not found, "\n".join(found)


def _judged(call: str, version: int, sent: Any, text: str, reply: Any) -> str | None:
    wrong = nova_schemas.wrong(call, "request", version, sent)
    if wrong is not None:
        return None if reply.status_code == 400 else f"{reply.status_code}, and Nova refuses it: {wrong}"
    if reply.status_code == 400:
        return None if any(part in text for part in MAY_BE_REFUSED) else f"Nova takes it: {reply.text[:200]}"
    if reply.status_code >= 300:
        return None
    return nova_schemas.wrong(call, "response", version, reply.json() if reply.content else None)
