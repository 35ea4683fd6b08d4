"""Could it move, where to, and what would it take: the dry run of live migrations. Nothing is claimed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec

from droveway.control.scheduling import before_move, requests
from droveway.control.scheduling.before_move import MoveFacts
from droveway.control.scheduling.move_trials import AskedMove, MoveTrials, Tried
from droveway.control.scheduling.placer import Placer
from droveway.domain import move_checks
from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.migration_ladder import CopyTarget, target_of
from droveway.domain.model import GuestState
from droveway.domain.move_checks import Check, CheckAnswer
from droveway.domain.move_plan import (
    MoveMatrix,
    MovePlan,
    MoveVerdict,
    TriedHost,
    TriedPair,
    TriedServer,
    blockers,
    verdict,
)
from droveway.domain.move_prediction import ASSUMED, Mode, Prediction, Way, learn, of_mode, predict
from droveway.domain.placement import PlacementRequest
from droveway.ports.control import MoveRequest
from droveway.scheduler.decisions import first_rules_of
from droveway.scheduler.plan import each_rule
from droveway.store.compute import instances, predictions
from droveway.store.engine import lookup
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow

MEASURE_S = 1
HOSTS_ASKED_MAX = 16  # of one server: the best ones
MATRIX_SERVERS_MAX, MATRIX_HOSTS_MAX = 100, 32
OF_A_MOVE = ("hypervisor", "version")  # rules that every move has


class _Server(msgspec.Struct, frozen=True):
    """A server that has a host, as its rows tell."""

    shown: TriedServer
    facts: MoveFacts
    ask: PlacementRequest
    target: CopyTarget

    @property
    def could_leave(self) -> bool:
        return move_checks.first_failed(self.facts.checks) is None


class MovePlanner:
    def __init__(self, store: Store, placer: Placer, trials: MoveTrials, images_path: str, target: CopyTarget) -> None:
        self._store, self._placer, self._trials, self._images_path = store, placer, trials, images_path
        self._target = target

    async def plan(self, given: MoveRequest) -> MovePlan:
        """Raises NotFound, BadRequest, Conflict."""
        server, probe, way = await self._store.read(self._read, given)
        await self._placer.refresh()
        names, more = self._candidates(server, given.host)
        rules = {name: self._rules(server, name) for name in names}
        destinations = tuple(name for name in names if move_checks.first_failed(rules[name]) is None)
        tried = Tried()
        if server.could_leave:
            move = _asked(server, destinations)
            probes = {name: f"{probe}-{number}" for number, name in enumerate(destinations)}
            tried = await self._trials.ask([move], probes, MEASURE_S if given.measure else 0)
        found = tuple(_tried_host(server, name, rules[name], tried, given, way) for name in names)
        departure = tried.departures.get(server.shown.id)
        return MovePlan(
            server.shown,
            _of_source(server, tried),
            None if departure is None else departure.load,
            way,
            Mode(server.target.policy),
            found,
            more,
        )

    def _read(self, tx: Tx, given: MoveRequest) -> tuple[_Server, str, Way]:
        instance = lookup.server(tx, given.server)
        if given.host is not None:
            hosts.get(tx, given.host)
        if instance["host"] is None:
            raise BadRequest(
                f"Server {instance['name']} has no host that it could leave: it is {instance['vm_state']}."
            )
        return (
            _server(tx, instance, self._images_path, self._target),
            f"plan-{tx.names.uuid()}",
            learn(predictions.outcomes(tx), ASSUMED),
        )

    def _candidates(self, server: _Server, asked: str | None) -> tuple[list[str], int]:
        """The host that was asked for; or those that keep the rules, the best first, and behind them those that do not,
        as far as there is room."""
        if asked is not None:
            return [asked], 0
        plan = self._placer.plan(server.ask, 0)
        fitting = [choice.name for choice in plan.ranked]
        others = [name for fell in plan.fallen for name, _ in fell.nearest if name != server.shown.host]
        names = list(dict.fromkeys([*fitting, *others]))[:HOSTS_ASKED_MAX]
        return names, max(0, plan.fitting - len([name for name in names if name in fitting]))

    def _rules(self, server: _Server, name: str) -> tuple[CheckAnswer, ...]:
        other = move_checks.of_other_host(server.shown.host, name)
        facts = self._placer.facts(name)
        if not other.passed:
            return (other,)
        if facts is None:
            raise NotFound(
                f"There is no host {name[:64]} that runs guests; 'droveway host list' shows those there are."
            )
        rules = each_rule(facts, server.ask, self._placer.settings, OF_A_MOVE)
        return (other, *(CheckAnswer(rule, not reason, reason) for rule, reason in rules if rule != "never"))

    # -- all of them --------------------------------------------------------------------------------------------------
    async def matrix(self, host: str | None) -> MoveMatrix:
        """Of the servers on that host, or of all; bounded. Raises NotFound."""
        servers, more, probe = await self._store.read(self._read_all, host)
        await self._placer.refresh()
        first: dict[str, dict[str, tuple[str, str]]] = {}
        for server in servers:
            first[server.shown.id] = first_rules_of(self._placer.plan(server.ask, 0), self._placer.names())
            await asyncio.sleep(0)  # the columns are looked at once a server
        names = sorted(self._placer.names().values())
        listed = names[:MATRIX_HOSTS_MAX]
        moves = [
            _asked(server, tuple(name for name in listed if not first[server.shown.id].get(name, ("", ""))[0]))
            for server in servers
            if server.could_leave
        ]
        wanted = sorted({name for move in moves for name in move.destinations})
        probes = {name: f"{probe}-{number}" for number, name in enumerate(wanted)}
        tried = await self._trials.ask(moves, probes, 0) if moves else Tried()
        pairs = [
            _pair(server, name, first[server.shown.id].get(name), tried)
            for server in servers
            for name in listed
            if name != server.shown.host
        ]
        return MoveMatrix(
            tuple(server.shown for server in servers), tuple(listed), tuple(pairs), more, len(names) - len(listed)
        )

    def _read_all(self, tx: Tx, host: str | None) -> tuple[list[_Server], int, str]:
        if host is not None:
            hosts.get(tx, host)
        rows, count = instances.placed(tx, host, MATRIX_SERVERS_MAX)
        servers = [_server(tx, row, self._images_path, self._target) for row in rows]
        return servers, count - len(rows), f"plan-{tx.names.uuid()}"


def _server(tx: Tx, instance: InstanceRow, images_path: str, default: CopyTarget) -> _Server:
    facts = before_move.read(tx, instance, images_path)
    shown = TriedServer(instance["id"], instance["name"], facts.source.name)
    target, specs = default, instance["flavor"].get("extra_specs") or {}
    with contextlib.suppress(ValueError):  # a wish that is none refuses the migration itself
        target = target_of(default, specs, instance["metadata"])
    return _Server(shown, facts, requests.to_move(tx, instance, facts.source, None), target)


def _asked(server: _Server, destinations: tuple[str, ...]) -> AskedMove:
    return AskedMove(server.facts.spec, server.shown.host, server.facts.source.cpu_xml, destinations)


# -- what they have said ----------------------------------------------------------------------------------------------
def _of_source(server: _Server, tried: Tried) -> tuple[CheckAnswer, ...]:
    departure = tried.departures.get(server.shown.id)
    if departure is not None:
        return (*server.facts.checks, *departure.checks)
    why = tried.silent.get(server.shown.host, "it was not asked: the server cannot be moved as it is")
    asked = (Check(one.name) for one in move_checks.of_guest(GuestState.RUNNING, "", ()))
    return (*server.facts.checks, *(CheckAnswer(name.value, None, why) for name in asked))


def _tried_host(
    server: _Server, name: str, rules: Sequence[CheckAnswer], tried: Tried, given: MoveRequest, way: Way
) -> TriedHost:
    there, shares_store, copy_bytes = _of_destination(server, name, rules, tried, given)
    checks, departure = (*rules, *there), tried.departures.get(server.shown.id)
    found: tuple[Prediction, ...] = ()
    if departure is not None and departure.load is not None:
        found = predict(departure.load, copy_bytes, way, server.target.downtime_ms / 1000)
    everything = (*_of_source(server, tried), *checks)
    predicted = of_mode(found, Mode(server.target.policy)) if found else None
    return TriedHost(
        name, verdict(everything, predicted), blockers(everything), checks, shares_store, copy_bytes, found
    )


def _of_destination(
    server: _Server, name: str, rules: Sequence[CheckAnswer], tried: Tried, given: MoveRequest
) -> tuple[tuple[CheckAnswer, ...], bool | None, int]:
    """What the two hosts say of one pair; nothing where a rule keeps it from being asked."""
    if not server.could_leave or move_checks.first_failed(rules) is not None:
        return (), None, 0
    answer, departure = tried.arrivals.get(name), tried.departures.get(server.shown.id)
    if answer is None:
        why = tried.silent.get(name, "it did not answer")
        return tuple(CheckAnswer(one.value, None, why) for one in (Check.NOT_THERE, Check.MACHINE, Check.CPU)), None, 0
    of_guest = next((one.checks for one in answer.guests if one.instance_id == server.shown.id), ())
    if departure is None or answer.store_trouble or server.shown.host not in tried.sees:
        why = answer.store_trouble or tried.silent.get(server.shown.host, "the source did not answer")
        return (*of_guest, CheckAnswer(Check.STORE.value, None, why)), None, 0
    shares, needs_store = name in tried.sees[server.shown.host], server.facts.spec.needs_store
    store = move_checks.of_store(
        server.shown.host, name, given.block_migration, is_shared=shares, needs_store=needs_store
    )
    if shares or not needs_store:
        return (*of_guest, store), shares, 0
    free = answer.free_bytes if given.disk_over_commit else answer.least_bytes
    needed = departure.disk_bytes if given.disk_over_commit else departure.full_bytes
    enough = move_checks.of_room(server.shown.id, free, needed)
    return (*of_guest, store, enough), shares, departure.disk_bytes


def _pair(server: _Server, name: str, rule: tuple[str, str] | None, tried: Tried) -> TriedPair:
    of_server = move_checks.first_failed(server.facts.checks)
    if of_server is not None:
        return TriedPair(server.shown.id, name, MoveVerdict.BLOCKED, of_server.name, of_server.reason)
    if rule is not None and rule[0]:
        return TriedPair(server.shown.id, name, MoveVerdict.BLOCKED, *rule)
    if rule is None:
        return TriedPair(server.shown.id, name, MoveVerdict.UNKNOWN, "", f"{name} was not there a moment ago")
    there, _, _ = _of_destination(server, name, (), tried, MoveRequest(server.shown.id))
    checks = (*_of_source(server, tried), *there)
    stands = move_checks.first_failed(checks) or next((one for one in checks if one.passed is None), None)
    blocker, reason = ("", "") if stands is None else (stands.name, stands.reason)
    return TriedPair(server.shown.id, name, verdict(checks, None), blocker, reason)
