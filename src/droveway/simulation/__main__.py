"""`python -m droveway.simulation`: play seeds, print what happened, exit non-zero when one is bad."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections import Counter

from droveway.drivers.clock import SystemChance, SystemClock
from droveway.simulation.many import outcomes, silence
from droveway.simulation.once_bad import once_bad
from droveway.simulation.seed import Outcome, run_seed

CLONE = os.environ.get("DROVEWAY_DEV")  # how a clone calls its script
COMMAND = f"{CLONE} sim" if CLONE else "python -m droveway.simulation"
SHOWN_LINES = 40
SHOWN_SEEDS = 5
RANDOM_FIRST_MIN, RANDOM_FIRST_MAX = 1_000_000, 1_000_000_000


def main() -> int:
    arguments = _arguments()
    silence()
    numbers = _numbers(arguments)
    if arguments.trace:
        return _replay(numbers)
    clock = SystemClock()
    began_s = clock.monotonic_s()
    totals: Counter[str] = Counter()
    digest = hashlib.sha256()
    bad: list[Outcome] = []
    commands = kills = 0
    simulated_s = cpu_s = 0.0
    fewest = (1 << 30, 1 << 30)
    for outcome in outcomes(numbers, arguments.jobs):
        digest.update(outcome.digest.encode())
        totals.update(outcome.counts)
        totals[f"severity {outcome.severity}"] += 1
        commands, kills = commands + outcome.commands, kills + outcome.kills
        fewest = min(fewest[0], outcome.commands), min(fewest[1], outcome.kills)
        simulated_s += outcome.simulated_s
        cpu_s += outcome.cpu_s
        if outcome.wrong:
            bad.append(outcome)
            if len(bad) <= SHOWN_SEEDS:
                _show_bad(outcome)
    took_s = clock.monotonic_s() - began_s
    for what, count in sorted(totals.items()):
        _say(f"  {count:>9,}  {what}")
    _say(
        f"{len(numbers)} seeds, {len(bad)} bad; {commands:,} commands to hosts (at least {fewest[0]} a seed), "
        f"{kills:,} kills (at least {fewest[1]} a seed), {simulated_s / 3600:.1f} simulated hours "
        f"in {took_s:.1f} s with {arguments.jobs} jobs"
    )
    _say(f"{commands / cpu_s:,.0f} commands to hosts a CPU second ({cpu_s / len(numbers):.2f} CPU s a seed)")
    if bad:
        _say("bad seeds: " + " ".join(str(outcome.seed) for outcome in bad))
    _say(f"digest {digest.hexdigest()[:32]}")
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default: 200)")
    parser.add_argument("--first", type=int, help="the first seed (default: 1, and then every seed that was once bad)")
    parser.add_argument("--random", action="store_true", help="a random first seed; it is printed")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="how many processes")
    parser.add_argument("--trace", action="store_true", help="print everything that happens in these seeds")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    if arguments.random and arguments.first is not None:
        parser.error("--random chooses the first seed: leave --first out")
    return arguments


def _numbers(arguments: argparse.Namespace) -> list[int]:
    first = arguments.first
    if arguments.random:
        first = int(SystemChance().uniform(RANDOM_FIRST_MIN, RANDOM_FIRST_MAX))
        _say(f"first seed {first}: {COMMAND} --first {first} --seeds {arguments.seeds}")
    fixed = list(range(first or 1, (first or 1) + arguments.seeds))
    return fixed if first is not None else fixed + once_bad()


def _replay(numbers: list[int]) -> int:
    is_bad = False
    for seed in numbers:
        outcome = run_seed(seed, keep_trace=True)
        for line in outcome.trace or ():
            _say(line)
        for reason in outcome.wrong:
            _say(f"seed {seed}: {reason}")
        _say(f"seed {seed} ({outcome.severity}): {'bad' if outcome.wrong else 'good'}, digest {outcome.digest[:32]}")
        is_bad = is_bad or bool(outcome.wrong)
    return 1 if is_bad else 0


def _show_bad(outcome: Outcome) -> None:
    """Why, the last lines before it, and the command that plays it again."""
    again = run_seed(outcome.seed, keep_trace=True)
    for reason in outcome.wrong[:SHOWN_LINES]:
        _say(f"seed {outcome.seed} ({outcome.severity}): {reason}")
    for line in (again.trace or [])[-SHOWN_LINES:]:
        _say(f"    {line}")
    _say(f"  play it again: {COMMAND} --first {outcome.seed} --seeds 1 --trace")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
