"""An operator of the simulated cloud: lists services, asks why, forces down, disables, deletes; and a client that
listens to the stream of what changes. What they are told is held against the rows and against the judge."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec

from droveway.domain.liveness import UP, State
from droveway.domain.service_kinds import COMPUTE, row_of
from droveway.simulation.client import Client, Message, Reply, scope_of
from droveway.simulation.machines import ControlProcess
from droveway.simulation.world import HEARD_BY_ALL_S, World
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import declared, services
from droveway.store.fleet.services import CONTROL
from droveway.store.work import events

PAUSE_S = 2.0
LIST, WHY, METRICS = "list services", "ask why", "scrape"
FORCE, ABLE, FORGET, DECLARE = "force down", "disable", "delete a service", "declare gone"
DISABLED: dict[str, Any] = {"status": "disabled", "disabled_reason": "it is looked at"}
WEIGHTS = {LIST: 30, WHY: 40, METRICS: 5, FORCE: 10, ABLE: 10, FORGET: 5, DECLARE: 8}
OS_SERVICES, OWN_SERVICES = "/compute/v2.1/os-services", "/droveway/v1/services"
STREAM_AGAIN_S = 0.5
_PIECE = re.compile(r"id: (\d+)\nevent: service\ndata: (.*)\n\n")


class Operator:
    """One person; what is forced down or disabled is put right again, at the latest by `put_right`."""

    def __init__(self, world: World) -> None:
        self._world, self._client = world, Client(world)
        self._stopped, self._turn = False, asyncio.Lock()
        world.loop.create_task(self._work(), name="operator")

    async def _work(self) -> None:
        rng = self._world.rng
        while not self._stopped:
            await asyncio.sleep(rng.expovariate(1.0 / PAUSE_S))
            control = self._client.any_control()
            async with self._turn:
                if control is None or self._stopped:
                    continue
                await self._act(rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0], control)

    async def _act(self, act: str, control: ControlProcess) -> None:
        rng = self._world.rng
        if act == METRICS:
            reply = await self._client.ask(control, "GET", "/metrics")
            if reply.is_ok and "droveway_beats_total" not in reply.body:
                self._world.broken(f"/metrics tells no beats: {reply.body[:200]}")
        elif act == WHY:
            host = rng.choice(list(self._world.hosts.values()))
            reply = await self._why(control, host.name, rng.choice(host.services))
        else:
            reply, rows = await self._list(control, rng.random() < 0.5)
            agents = [row for row in rows if row["host"] in self._world.hosts and row["binary"] not in CONTROL]
            answered = self._world.database.look(lambda tx: {word.host: word.declared for word in declared.words(tx)})
            agents = [row for row in agents if row["host"] not in answered]  # what was declared lies over the rest
            if act == DECLARE:
                reply = await self._declare(control, [row["host"] for row in agents], answered)
            elif act != LIST and agents:
                # One at a time: where every host is forced down users get nothing done, and nothing can go wrong.
                changed = [row for row in agents if act != FORGET and (row["forced_down"] or row["disabled_reason"])]
                row = rng.choice(changed or agents)
                undo = FORCE if row["forced_down"] else ABLE
                reply = await self._set(undo if changed else act, control, row)
        self._world.counts[f"asked to {act}: {reply.word}"] += 1
        self._world.trace.note(f"operator {act} by {control.name}: {reply.word}")

    # -- reading ------------------------------------------------------------------------------------------------------
    async def _list(self, control: ControlProcess, own: bool) -> tuple[Reply, list[dict[str, Any]]]:
        reply = await self._client.ask(control, "GET", OWN_SERVICES if own else OS_SERVICES)
        rows = reply.body["services"] if reply.is_ok else []
        for row in rows:
            if row["forced_down"] and row["word" if own else "state"] != "down":
                self._world.broken(f"{row['binary']} on {row['host']} is forced down and listed as up")
        return reply, rows

    async def _why(self, control: ControlProcess, host: str, service: str) -> Reply:
        """The failure detector shows its own verdict; the other controls what is recorded. Either may change
        meanwhile."""
        known, began_s = list(_thought(control, host, service)), self._world.loop.time()
        before = self._world.database.look(lambda tx: _recorded(tx, host, service))

        def look() -> None:
            thought = _thought(control, host, service)
            known.extend(thought or before + self._world.database.look(lambda tx: _recorded(tx, host, service)))

        where, binary = row_of(host, service)
        reply = await self._client.ask(control, "GET", f"{OWN_SERVICES}/{where}/why?binary={binary}", seen=look)
        if not reply.is_ok:
            return reply
        known += self._world.words.recorded_since(host, service, began_s)
        (answer,) = reply.body["services"]
        verdict = answer["verdict"]
        if not verdict["reason"] or not answer["evidence"]:
            self._world.broken(f"why of {service} on {host} tells nothing: {answer}")
        is_forced = verdict["state"] == "forced down"
        if is_forced and verdict["word"] != "down":
            self._world.broken(f"why says of {service} on {host}, which is forced down, {verdict}")
        if not is_forced and (verdict["state"], verdict["word"]) not in {
            (one, word) for one in known for word in _words(one)
        }:
            self._world.broken(
                f"why by {control.name} says of {service} on {host} {verdict}, where {' or '.join(known)} is right"
            )
        return reply

    # -- saying -------------------------------------------------------------------------------------------------------
    async def _set(self, act: str, control: ControlProcess, row: dict[str, Any]) -> Reply:
        target = f"{OS_SERVICES}/{row['id']}"
        if act == FORGET:
            host = self._world.hosts[row["host"]]
            return await self._client.ask(
                control, "GET" if host.is_on else "DELETE", OS_SERVICES if host.is_on else target
            )
        change: dict[str, Any] = {"forced_down": not row["forced_down"]}
        if act == ABLE and row["binary"] == COMPUTE:
            change = {"status": "enabled"} if row["disabled_reason"] else DISABLED
        reply = await self._client.ask(control, "PUT", target, change)
        if reply.is_ok:
            answered = reply.body["service"]
            wrong = {name: value for name, value in change.items() if answered.get(name) != value}
            if wrong or (answered["forced_down"] and answered["state"] != "down"):
                self._world.broken(f"{change} of {row['host']} was answered {answered}")
        return reply

    async def _declare(self, control: ControlProcess, hosts: list[str], answered: dict[str, str]) -> Reply:
        """One host at a time; who is up is not taken at that word. It may well live, and be in a link's shadow."""
        gone = [host for host, word in answered.items() if word == declared.GONE]
        host = gone[0] if gone else self._world.rng.choice(hosts or list(self._world.hosts))
        what, body = ("readmit", None) if gone else ("declare-gone", {"because": "it is not heard"})
        return await self._client.ask(control, "POST", f"/droveway/v1/hosts/{host}/{what}", body)

    async def put_right(self) -> None:
        """No host is forced down, disabled or declared gone any more."""
        self._stopped = True
        async with self._turn:
            pass  # what was under way is over
        for host in self._world.hosts:
            await self.let_in(host)
        for _ in range(10):
            control = self._client.any_control()
            if control is not None:
                reply, rows = await self._list(control, own=False)
                wrong = [row for row in rows if row["forced_down"] or row["status"] == "disabled"]
                for row in wrong:
                    await self._client.ask(
                        control, "PUT", f"{OS_SERVICES}/{row['id']}", {"forced_down": False, "status": "enabled"}
                    )
                if reply.is_ok and not wrong:
                    return
            await asyncio.sleep(PAUSE_S)
        self._world.broken("an operator could not enable the services in peace")

    async def declare_gone(self, host: str) -> bool:
        """One that is down and will not come back by itself."""
        return await self._say(host, "declare-gone", {"because": "it burns"}, declared.GONE)

    async def let_in(self, host: str) -> bool:
        """One that is back. Where it was not declared gone there is nothing to do."""
        if not self._world.database.look(lambda tx: _declared(tx, host)):
            return True
        is_in = await self._say(host, "readmit", None, "")
        await asyncio.sleep(HEARD_BY_ALL_S)  # other controls read it now and then
        return is_in

    async def _say(self, host: str, what: str, body: Any, then: str) -> bool:
        """Whether it is so, a while later."""
        for _ in range(30):
            control = self._client.any_control()
            if control is not None and self._world.database.look(lambda tx: _declared(tx, host)) != declared.READMITTED:
                reply = await self._client.ask(control, "POST", f"/droveway/v1/hosts/{host}/{what}", body)
                self._world.trace.note(f"operator {what} {host}: {reply.word} {reply.body if not reply.is_ok else ''}")
            if self._world.database.look(lambda tx: _declared(tx, host)) == then:
                return True
            await asyncio.sleep(PAUSE_S)
        return False


def _declared(tx: Tx, host: str) -> str:
    return next((word.declared for word in declared.words(tx) if word.host == host), "")


def _thought(control: ControlProcess, host: str, name: str) -> list[State]:
    """What that control judges of the service at this moment; nothing when it does not judge or has nothing to say."""
    seen = control.control.observer.observation(host)
    service = None if seen is None else seen.services.get(name)
    return [service.state] if service is not None and service.reason and control.control.detector.is_active else []


def _recorded(tx: Tx, host: str, name: str) -> list[State]:
    return [State(row["state"]) for row in services.list_all(tx, *row_of(host, name))]


def _words(state: State) -> tuple[str, ...]:
    """Of one that is expected what it was before stands: a new one is down until it is heard, or up for a time."""
    return ("up", "down") if state is State.EXPECTED else ("up" if state in UP else "down",)


# -- the stream -------------------------------------------------------------------------------------------------------
class Listener:
    """Hears the stream of services at one control after another: nothing twice, nothing out of order, nothing lost."""

    def __init__(self, world: World) -> None:
        self._world, self._client = world, Client(world)
        self._cursor = world.database.look(events.last_id)
        self._received: list[int] = []
        self._from = self._cursor
        world.loop.create_task(self._listen(), name="listener")

    async def _listen(self) -> None:
        while True:
            control = self._client.any_control()
            if control is not None:
                ended = control.spawn(self._stream(control))
                await asyncio.wait({ended})
            await asyncio.sleep(STREAM_AGAIN_S)

    async def _stream(self, control: ControlProcess) -> None:
        has_asked = False
        status = 0

        async def receive() -> Message:
            nonlocal has_asked
            if has_asked:
                await self._world.loop.create_future()  # it never leaves by itself
            has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and status == 200 and control.is_alive:
                self._take(message.get("body", b"").decode())

        scope = scope_of("GET", f"{OWN_SERVICES}/events", last_event_id=str(self._cursor))
        await control.app(scope, receive, send)

    def _take(self, piece: str) -> None:
        for number, data in _PIECE.findall(piece):
            answer = msgspec.json.decode(data)
            if int(number) <= self._cursor or not answer["host"]:
                self._world.broken(f"the stream told {number} after {self._cursor}: {data}")
            self._cursor = int(number)
            self._received.append(self._cursor)

    def missed(self) -> list[str]:
        """What was recorded and not told, once nothing changes any more."""
        recorded, _ = self._world.database.look(lambda tx: events.after(tx, events.SERVICE, self._from, 1 << 30))
        lost = {row["id"] for row in recorded} ^ set(self._received)
        return [f"the stream and the history differ by the events {sorted(lost)[:10]}"] if lost else []
