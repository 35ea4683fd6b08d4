"""All tests, in parts side by side: `python -m lab.parts [--quick]`, behind `./dev test`.

Most of the time of a whole run is waiting: for guests that boot, for brokers that come back, for leases that run out.
So what waits stands beside what computes, each part in a process of its own with its output in a file of its own; what
measures how promptly something happens comes last, alone. A part that fails hides no other. A test that failed beside
others is played once more when all is over, alone: the run is good if it holds then, and names it, for it is a race, or
asks too much of a busy machine. Exit code 0 when all are good; 1 otherwise, and 130 after Ctrl-C, which ends all of
them.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lab import failed_tests, marked_tests

CLONE = Path(__file__).resolve().parent.parent
LOGS = Path(os.environ.get("DROVEWAY_DIR", str(CLONE / ".droveway"))) / "tests"
BIN = Path(sys.executable).parent
CORES = os.cpu_count() or 1
PART_S = 30 * 60.0  # what a command of a part may take; each test has a bound of its own, in pyproject.toml
ENDS_S = 90.0  # what a part has to take its hosts and servers down after Ctrl-C
SEEDS, SEEDS_QUICK = 200, 150  # beside them every seed that was ever bad: some 50
ELSEWHERE = {"test_tidy.py", "test_config.py"}  # they stand beside the tests of the whole program and are of units
PYTEST = (
    *(sys.executable, "-m", "pytest"),
    *("-p", "lab.failed_tests", "-p", "lab.marked_tests", "--durations=10", "--durations-min=5"),
)
BESIDE_PARTS = "not lab and not servers and not alone"  # of other parts
QUICK = f"{BESIDE_PARTS} and not slow"
TESTS_FAILED = 1  # pytest's exit code: it ran to its end
AGAIN_MAX = 12  # tests that are played once more; when more fail, something is plainly wrong


@dataclass
class Part:
    name: str
    commands: tuple[tuple[str, ...], ...]  # one after the other, up to the first that fails
    niceness: int = 0  # what computes gives way to what waits, which is timed
    code: int | None = None
    held_alone: bool = False  # what failed in it did not fail again
    took_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"

    @property
    def failed(self) -> Path:
        """Where its failed tests are kept."""
        return LOGS / f"{self.name}.failed"


def _lint() -> Part:
    commands = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",))
    return Part("lint", tuple((str(BIN / name), *rest) for name, *rest in commands), niceness=15)


def _simulation(seeds: int) -> Part:
    command = (sys.executable, "-m", "droveway.simulation", "--seeds", str(seeds), "--jobs", str(CORES))
    return Part("simulation", (command,), niceness=15)


def _programs() -> list[str]:
    """The tests that start whole programs: they mostly wait."""
    return sorted(f"tests/{path.name}" for path in (CLONE / "tests").glob("test_*.py") if path.name not in ELSEWHERE)


def _tests(name: str, marked: str, *arguments: str, workers: int = 0, niceness: int = 0) -> Part:
    several = ("-n", str(workers), "--dist", "worksteal" if name == "units" else "loadfile") if workers else ()
    excluded = marked or BESIDE_PARTS
    return Part(name, ((*PYTEST, "-m", excluded, *several, *arguments),), niceness)


def lanes(*, quick: bool, full: bool) -> tuple[list[list[Part]], list[Part]]:
    """What runs side by side, each list in its order; and what comes afterwards, alone."""
    beside = [f"--ignore={path}" for path in _programs()]
    if quick:
        units = _tests(
            "units", QUICK, "tests", "--ignore=tests/simulation", "--ignore=tests/lab", *beside, workers=CORES + 2
        )
        return [[_lint(), _simulation(SEEDS_QUICK)], [units]], []
    more = ("--full",) if full else ()
    return [
        [_tests("lab", "lab and not alone", *marked_tests.files("lab"), *more, workers=2)],
        [_tests("servers", "servers and not lab and not alone", *marked_tests.files("servers"), *more, workers=2)],
        [_tests("programs", "", *_programs(), *more, workers=2), _simulation(SEEDS)],
        [_lint(), _tests("units", "", "tests", *beside, *more, workers=CORES, niceness=15)],
    ], [_tests("alone", "alone", *marked_tests.files("alone"))]


class Run:
    def __init__(self, side_by_side: list[list[Part]], afterwards: list[Part]) -> None:
        self.side_by_side, self.afterwards = side_by_side, afterwards
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._is_ending = False
        self._held: list[str] = []  # tests that failed beside others and held alone

    @property
    def parts(self) -> list[Part]:
        return [part for lane in self.side_by_side for part in lane] + self.afterwards

    def all(self) -> int:
        LOGS.mkdir(parents=True, exist_ok=True)
        began_s = time.monotonic()
        threads = [threading.Thread(target=self._lane, args=(lane,), daemon=True) for lane in self.side_by_side]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self._lane(self.afterwards)
            self._play_again()
        except KeyboardInterrupt:
            self._end()
            for thread in threads:
                thread.join(ENDS_S)
        return self._summary(time.monotonic() - began_s)

    def _lane(self, parts: list[Part]) -> None:
        for part in parts:
            if not self._is_ending:
                self._play(part)
                self._show(part)

    def _play_again(self) -> None:
        """What failed beside others, one test after the other."""
        failed = {
            part.name: failed_tests.failed(part.failed) if part.code == TESTS_FAILED else None
            for lane in self.side_by_side
            for part in lane
        }
        names = [name for of_part in failed.values() for name in of_part or ()]
        if self._is_ending or not 0 < len(names) <= AGAIN_MAX:
            return
        again = Part("again", ((*PYTEST, "--full", *names),))
        self._play(again)
        self._show(again)
        still = failed_tests.failed(again.failed) if again.code else []
        if still is None:  # it did not come to its end
            still = names
        self._held = [name for name in names if name not in still]
        for part in self.parts:
            of_part = failed.get(part.name)
            part.held_alone = bool(of_part) and not set(of_part or ()) & set(still)
        self.afterwards = [*self.afterwards, again]

    def _play(self, part: Part) -> None:
        began_s = time.monotonic()
        _say(f"{part.name}: begins; its output goes to {part.log}")
        part.failed.unlink(missing_ok=True)
        with part.log.open("wb") as out:
            for command in part.commands:
                out.write(f"$ {shlex.join(command)}\n".encode())
                out.flush()
                part.code = self._command(part, command, out.fileno())
                if part.code != 0:
                    break
        part.took_s = time.monotonic() - began_s

    def _command(self, part: Part, command: tuple[str, ...], out: int) -> int:
        """Its exit code. It leads a process group of its own, so that Ctrl-C is told to each part once."""
        with self._lock:
            if self._is_ending:
                return 130
            running = subprocess.Popen(
                ("nice", "-n", str(part.niceness), *command),
                cwd=CLONE,
                env={**os.environ, "DROVEWAY_FAILED_TESTS": str(part.failed)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            self._running[running.pid] = running
        overdue = threading.Timer(PART_S, self._end_overdue, (part, running.pid))
        overdue.daemon = True
        overdue.start()
        _, status, used = os.wait4(running.pid, 0)
        overdue.cancel()
        running.returncode = os.waitstatus_to_exitcode(status)
        with self._lock:
            del self._running[running.pid]
        part.cpu_s += used.ru_utime + used.ru_stime
        return running.returncode

    def _end_overdue(self, part: Part, pid: int) -> None:
        _say(f"{part.name}: not done after {PART_S:.0f} s: told to end")
        self._signal(signal.SIGINT, pid)
        time.sleep(ENDS_S)
        self._signal(signal.SIGKILL, pid)

    def _end(self) -> None:
        _say("interrupted: all parts are told to end")
        with self._lock:
            self._is_ending = True
        self._signal(signal.SIGINT)
        until_s = time.monotonic() + ENDS_S
        while self._running and time.monotonic() < until_s:
            time.sleep(0.1)
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals, only: int | None = None) -> None:
        with self._lock:
            for pid in self._running if only is None else self._running.keys() & {only}:
                os.killpg(pid, number)  # not waited for yet, so nobody else has its pid

    def _show(self, part: Part) -> None:
        lines = part.log.read_text(errors="replace").splitlines()
        shown = lines if part.code else [line for line in lines if line.strip()][-1:]
        for line in shown:
            print(f"{part.name}| {line}")
        _say(f"{part.name}: {_word(part)} after {part.took_s:.0f} s")

    def _summary(self, took_s: float) -> int:
        bad = [part for part in self.parts if part.code != 0 and not part.held_alone]
        print(f"\n{'part':<12} {'':<10} {'wall s':>7} {'CPU s':>7}")
        for part in self.parts:
            print(f"{part.name:<12} {_word(part):<10} {part.took_s:>7.0f} {part.cpu_s:>7.0f}")
        cpu_s = sum(part.cpu_s for part in self.parts)
        print(f"{'all':<12} {'bad' if bad else 'good':<10} {took_s:>7.0f} {cpu_s:>7.0f}")
        for name in self._held:
            print(f"failed beside others, held alone: {name}")
        for part in bad:
            print(f"{part.name} is {_word(part)}: {part.log}")
        sys.stdout.flush()
        return 130 if self._is_ending else 1 if bad else 0


def _word(part: Part) -> str:
    if part.held_alone:
        return "held alone"
    return "not run" if part.code is None else "good" if part.code == 0 else f"bad ({part.code})"


def _say(reason: str) -> None:
    print(f"dev: {reason}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev test", description="All tests, in parts side by side.")
    parser.add_argument(
        "--quick", action="store_true", help="what needs neither hosts nor servers nor the whole program"
    )
    parser.add_argument("--full", action="store_true", help="every case of every matrix, not a sample of them")
    parser.add_argument("--only", help="these parts alone, by their names, with commas between them")
    arguments = parser.parse_args()
    side_by_side, afterwards = lanes(quick=arguments.quick, full=arguments.full)
    if arguments.only:
        wanted = set(arguments.only.split(","))
        known = {part.name for lane in (*side_by_side, afterwards) for part in lane}
        if unknown := sorted(wanted - known):
            parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        side_by_side = [[part for part in lane if part.name in wanted] for lane in side_by_side]
        afterwards = [part for part in afterwards if part.name in wanted]
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever starts this may have made it deaf to Ctrl-C
        signal.signal(number, signal.default_int_handler)
    return Run(side_by_side, afterwards).all()


if __name__ == "__main__":
    sys.exit(main())
