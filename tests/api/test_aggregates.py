"""Aggregates and the zones that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from droveway.domain.liveness import State
from droveway.domain.model import SagaKind
from droveway.store.compute import instances
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts, services
from droveway.store.fleet.aggregates import METADATA_MAX
from droveway.store.schema import aggregate_hosts, migrations
from tests.api.world import NOVA, World, booted, in_world, make_image, make_server, reason

AGGREGATES = f"{NOVA}/os-aggregates"
ZONES = f"{NOVA}/os-availability-zone"
FIELDS = {"availability_zone", "created_at", "deleted", "deleted_at", "hosts", "id", "metadata", "name", "updated_at"}


class Operator:
    """An admin who asks for aggregates."""

    def __init__(self, world: World, token: str) -> None:
        self.world, self.token = world, token

    async def ask(self, method: str, path: str, body: Any = None, version: str = "2.81") -> Any:
        more = {} if body is None else {"json": body}
        return await self.world.ask(method, path, token=self.token, version=version, **more)

    async def create(self, name: str, zone: str | None = None) -> int:
        reply = await self.ask("POST", AGGREGATES, {"aggregate": {"name": name, "availability_zone": zone}})
        assert reply.status_code == 200, reply.text
        return int(reply.json()["aggregate"]["id"])

    async def act(self, number: int, what: str, value: Any) -> Any:
        return await self.ask("POST", f"{AGGREGATES}/{number}/action", {what: value})

    async def add(self, number: int, host: str) -> Any:
        return await self.act(number, "add_host", {"host": host})

    async def drop(self, number: int, host: str) -> Any:
        return await self.act(number, "remove_host", {"host": host})

    async def put(self, number: int, **changes: Any) -> Any:
        return await self.ask("PUT", f"{AGGREGATES}/{number}", {"aggregate": changes})

    async def label(self, number: int, **changes: Any) -> Any:
        return await self.act(number, "set_metadata", {"metadata": changes})

    async def zones(self) -> dict[str, str]:
        """Host -> zone; the same in the rows of hosts and of services, or it is an error."""

        def read(tx: Tx) -> dict[str, str]:
            of_hosts = {row["name"]: str(row["zone"]) for row in hosts.each(tx)}
            assert {row["host"]: row["zone"] for row in services.list_all(tx, None, hosts.COMPUTE)} == of_hosts
            return of_hosts

        return await self.world.store.read(read)

    async def claims(self) -> dict[str, int]:
        return dict(await self.world.store.read(hosts.claims_of_all))


async def operator(world: World) -> Operator:
    return Operator(world, await world.token())


@pytest.mark.parametrize("version", ["2.1", "2.40", "2.41", "2.80", "2.81", "2.96"])
async def test_an_aggregate_at_each_microversion(tmp_path: Path, version: str) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        fields = FIELDS | {"uuid"} if int(version[2:]) >= 41 else FIELDS
        body = {"aggregate": {"name": "fast", "availability_zone": "east"}}
        made = (await op.ask("POST", AGGREGATES, body, version)).json()["aggregate"]
        assert set(made) == fields - {"hosts", "metadata"}
        assert (made["availability_zone"], made["deleted"], made["updated_at"]) == ("east", False, None)
        (listed,) = (await op.ask("GET", AGGREGATES, version=version)).json()["aggregates"]
        assert set(listed) == fields
        assert (listed["metadata"], listed["hosts"]) == ({"availability_zone": "east"}, [])
        shown = (await op.ask("GET", f"{AGGREGATES}/{made['id']}", version=version)).json()["aggregate"]
        assert shown == listed
        changed = await op.ask("PUT", f"{AGGREGATES}/{made['id']}", {"aggregate": {"name": "quick"}}, version)
        assert set(changed.json()["aggregate"]) == fields
        gone = await op.ask("DELETE", f"{AGGREGATES}/{made['id']}", version=version)
        assert (gone.status_code, gone.content) == (200, b"")
        assert (await op.ask("GET", AGGREGATES, version=version)).json() == {"aggregates": []}
        assert (await op.ask("DELETE", f"{AGGREGATES}/{made['id']}", version=version)).status_code == 404


async def test_a_hosts_zone_follows_its_aggregates(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        east, plain = await op.create("east side", "east"), await op.create("plain")
        before = await op.claims()
        assert (await op.add(east, "h1")).json()["aggregate"]["hosts"] == ["h1"]
        assert await op.zones() == {"h1": "east", "h2": "nova"}
        after = await op.claims()
        assert (after["h1"] > before["h1"], after["h2"]) == (True, before["h2"])  # placers see it
        assert (await op.add(plain, "h1")).status_code == 200  # it names no zone
        assert (await op.put(east, availability_zone="west")).json()["aggregate"]["availability_zone"] == "west"
        assert await op.zones() == {"h1": "west", "h2": "nova"}
        assert (await op.label(plain, availability_zone="west")).status_code == 200  # the same zone twice is one zone
        assert (await op.drop(east, "h1")).json()["aggregate"]["hosts"] == []
        assert await op.zones() == {"h1": "west", "h2": "nova"}
        assert (await op.drop(plain, "h1")).status_code == 200
        assert await op.zones() == {"h1": "nova", "h2": "nova"}


async def test_metadata_is_merged_and_null_takes_a_key_away(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        number = await op.create("fast")
        await op.add(number, "h2")
        before = await op.claims()
        assert (await op.label(number, disk="ssd", cpu="new")).json()["aggregate"]["metadata"] == {
            "disk": "ssd",
            "cpu": "new",
        }
        reply = await op.label(number, cpu=None, ram="much", never=None)
        assert reply.json()["aggregate"]["metadata"] == {"disk": "ssd", "ram": "much"}
        facts = await world.store.read(hosts.facts, "h2")
        assert facts.aggregates == {"disk": ("ssd",), "ram": ("much",)}
        assert (await op.claims())["h2"] == before["h2"] + 2
        for start in range(0, METADATA_MAX - 2, 63):
            reply = await op.label(number, **{f"k{start + n}": "v" for n in range(63)})
            assert reply.status_code == 200
        too_many = await op.label(number, one="more")
        assert too_many.status_code == 400
        assert f"at most {METADATA_MAX}" in reason(too_many)


async def test_a_host_is_in_one_zone_only(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        east, west, plain = await op.create("e", "east"), await op.create("w", "west"), await op.create("p")
        await op.add(east, "h1")
        await op.add(plain, "h1")
        reply = await op.add(west, "h1")
        assert reply.status_code == 409
        assert reason(reply) == (
            f"Cannot add host to aggregate {west}. Reason: One or more hosts already in availability zone(s) ['east']."
        )
        reply = await op.label(plain, availability_zone="west")
        assert reply.status_code == 400  # as in Nova: a conflict is what add_host and remove_host answer
        assert reason(reply).startswith(f"Cannot update metadata of aggregate {plain}. Reason: One or more hosts alr")
        reply = await op.put(plain, availability_zone="west", name="other")
        assert reply.status_code == 400
        assert reason(reply).startswith(f"Cannot update aggregate {plain}. Reason: One or more hosts already in")
        shown = (await op.ask("GET", f"{AGGREGATES}/{plain}")).json()["aggregate"]
        assert (shown["name"], shown["metadata"], shown["hosts"]) == ("p", {}, ["h1"])  # nothing of it was kept
        assert (await op.ask("GET", f"{AGGREGATES}/{west}")).json()["aggregate"]["hosts"] == []
        assert (await op.zones())["h1"] == "east"


async def test_a_host_with_guests_stays_in_its_zone(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        east, plain, same = await op.create("e", "east"), await op.create("p"), await op.create("n", "nova")
        server_id = await make_server(world, op.token, await make_image(world, op.token))
        await booted(world, server_id, "h1")
        reply = await op.add(east, "h1")
        assert reply.status_code == 409
        assert "One or more hosts contain instances in this zone: move those of h1 away first." in reason(reply)
        assert (await op.add(plain, "h1")).status_code == 200  # which changes no zone
        assert (await op.add(same, "h1")).status_code == 200
        assert (await op.put(same, availability_zone="east")).status_code == 400
        assert (await op.label(plain, disk="ssd")).status_code == 200
        await world.store.run(instances.intend, server_id, SagaKind.LIVE_MIGRATION, {})

        def arrives(tx: Tx) -> None:
            tx.execute(update(migrations).values(holds_claim=True, destination="h2"))

        await world.store.run(arrives)
        assert (await op.add(east, "h2")).status_code == 409  # a guest is on its way there
        await world.store.run(instances.set_, server_id, host=None, deleted=True)
        assert (await op.put(same, availability_zone="east")).status_code == 200
        assert (await op.zones())["h1"] == "east"


async def test_bad_input_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        number = await op.create("fast", "east")
        bad: list[tuple[str, str, Any]] = [
            ("POST", "", {"aggregate": body})
            for body in (
                {},
                {"name": ""},
                {"name": "x" * 256},
                {"name": " x"},
                {"name": 7},
                {"name": "y", "zone": "z"},
                [],
                {"name": "y", "availability_zone": ""},
                {"name": "y", "availability_zone": "a:b"},
                {"name": "y", "availability_zone": "z" * 256},
                {"name": "y", "availability_zone": 3},
            )
        ]
        bad += [("POST", "", body) for body in ({}, [], {"aggregate": {"name": "y"}, "more": 1})]
        bad += [
            ("PUT", f"/{number}", {"aggregate": body})
            for body in (
                {},
                {"name": ""},
                {"availability_zone": None},
                {"availability_zone": "a:b"},
                {"hosts": ["h1"]},
            )
        ]
        bad += [
            ("POST", f"/{number}/action", body)
            for body in (
                {},
                [],
                {"explode": {}},
                {"add_host": {"host": "h1"}, "remove_host": {"host": "h1"}},
                {"add_host": "h1"},
                {"add_host": {}},
                {"add_host": {"host": "a b"}},
                {"add_host": {"host": "h1", "more": 1}},
                {"remove_host": {"host": 7}},
                {"set_metadata": {}},
                {"set_metadata": {"metadata": []}},
                {"set_metadata": {"metadata": {"k": 7}}},
                {"set_metadata": {"metadata": {"k" * 256: "v"}}},
                {"set_metadata": {"metadata": {"a/b": "v"}}},
                {"set_metadata": {"metadata": {"k": "v" * 256}}},
                {"set_metadata": {"metadata": {"availability_zone": "a:b"}}},
                {"set_metadata": {"metadata": {"availability_zone": ""}}},
                {"set_metadata": {"metadata": {"availability_zone": None}}},
            )
        ]
        for method, path, body in bad:
            reply = await op.ask(method, AGGREGATES + path, body)
            assert (reply.status_code, bool(reason(reply))) == (400, True), (method, path, body)
        for path in ("/99", "/fast", "/-1", "/1e3", "/99999999999999999999", "/%F0%9F%98%80"):
            for method, tail, body in (
                ("GET", "", None),
                ("PUT", "", {"aggregate": {"name": "y"}}),
                ("DELETE", "", None),
                ("POST", "/action", {"add_host": {"host": "h1"}}),
            ):
                reply = await op.ask(method, AGGREGATES + path + tail, body)
                assert (reply.status_code, "could not be found." in reason(reply)) == (404, True), (method, path)
        empty = await op.label(number, availability_zone=None)
        assert "does not support empty named availability zone" in reason(empty)
        assert (await op.ask("GET", f"{AGGREGATES}?colour=blue", version="2.75")).status_code == 200  # as in Nova
        assert (await op.ask("POST", f"{AGGREGATES}/{number}/images", {"cache": []}, "2.80")).status_code == 404
        uncached = await op.ask("POST", f"{AGGREGATES}/{number}/images", {"cache": []}, "2.81")
        assert (uncached.status_code, "there is no cache" in reason(uncached)) == (404, True)


async def test_what_state_refuses(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        number, other = await op.create("fast"), await op.create("slow")
        taken = await op.ask("POST", AGGREGATES, {"aggregate": {"name": "fast"}})
        assert (taken.status_code, reason(taken)) == (409, "Aggregate fast already exists.")
        assert (await op.put(other, name="fast")).status_code == 409
        assert (await op.put(number, name="fast")).status_code == 200  # its own
        unknown = await op.add(number, "h9")
        assert (unknown.status_code, reason(unknown)) == (404, "Compute host h9 could not be found.")
        await op.add(number, "h1")
        twice = await op.add(number, "h1")
        assert (twice.status_code, reason(twice)) == (409, f"Aggregate {number} already has host h1.")
        absent = await op.drop(number, "h2")
        assert (absent.status_code, reason(absent)) == (404, f"Cannot remove host h2 in aggregate {number}")
        full = await op.ask("DELETE", f"{AGGREGATES}/{number}")
        assert full.status_code == 400
        assert reason(full) == f"Cannot remove host from aggregate {number}. Reason: Host aggregate is not empty."
        alice = await world.token("alice", "red")
        assert (await world.ask("GET", AGGREGATES, token=alice)).status_code == 403
        assert (await world.ask("POST", AGGREGATES, token=alice, json={"aggregate": {"name": "x"}})).status_code == 403


async def test_a_host_that_is_forgotten_leaves_its_aggregates(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        number = await op.create("fast", "east")
        await op.add(number, "h1")
        await world.store.run(
            services.record_verdicts, [services.Verdict("h1", "nova-compute", State.HOST_GONE, "gone", 0)]
        )

        def forget(tx: Tx) -> list[Any]:
            (row,) = services.list_all(tx, "h1")
            services.remove(tx, row["uuid"])
            return list(tx.execute(select(aggregate_hosts)))

        assert await world.store.run(forget) == []
        assert (await op.ask("DELETE", f"{AGGREGATES}/{number}")).status_code == 200


async def test_zones_are_those_of_hosts(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        east = await op.create("e", "east")
        await op.create("nobody there", "west")
        await op.add(east, "h1")

        async def zones(path: str = "") -> list[dict[str, Any]]:
            return list((await op.ask("GET", ZONES + path)).json()["availabilityZoneInfo"])

        brief = {info["zoneName"]: (info["zoneState"]["available"], info["hosts"]) for info in await zones()}
        assert brief == {"east": (True, None), "nova": (True, None)}
        full = {info["zoneName"]: sorted(info["hosts"]) for info in await zones("/detail")}
        assert full == {"east": ["h1"], "nova": ["h2"]}

        def close(tx: Tx) -> None:
            (row,) = services.list_all(tx, "h1")
            services.set_(tx, row["uuid"], disabled=True)

        await world.store.run(close)
        assert [info["zoneState"]["available"] for info in await zones()] == [True, False]
        assert [info["zoneName"] for info in await zones()] == ["nova", "east"]


async def test_servers_are_listed_by_the_zone_of_their_hosts(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)
        await op.add(await op.create("e", "east"), "h1")
        image = await make_image(world, op.token)
        here, there, nowhere = [await make_server(world, op.token, image, name) for name in ("here", "there", "none")]
        wanting = await make_server(world, op.token, image, "wanting", availability_zone="east")
        await booted(world, here, "h1")
        await booted(world, there, "h2")

        async def listed(zone: str, token: str = "", version: str = "2.82") -> set[str]:
            path = f"{NOVA}/servers?availability_zone={zone}"
            reply = await world.ask("GET", path, token=token or op.token, version=version)
            assert reply.status_code == 200, reply.text
            return {one["id"] for one in reply.json()["servers"]}

        assert await listed("east") == {here, wanting}
        assert await listed("nova") == {there}
        assert await listed("mars") == set()
        assert nowhere not in await listed("")
        alice = await world.token("alice", "red")
        hers = await make_server(world, alice, await make_image(world, alice))
        assert await listed("mars", alice) == {hers}  # only administrators might ask before 2.83
        assert await listed("mars", alice, "2.83") == set()


async def test_internal_services_show_in_detail_only(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        op = await operator(world)

        def write(tx: Tx) -> None:
            services.register(tx, "c1", "nova-scheduler", "internal")

        await world.store.run(write)
        brief = (await op.ask("GET", ZONES)).json()["availabilityZoneInfo"]
        assert [info["zoneName"] for info in brief] == ["nova"]
        full = (await op.ask("GET", f"{ZONES}/detail")).json()["availabilityZoneInfo"]
        assert [info["zoneName"] for info in full] == ["internal", "nova"]
