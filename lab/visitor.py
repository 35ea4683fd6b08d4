"""Somebody outside of the cloud who pings a server's floating IP and stays logged in to it."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from lab import network
from lab.cloud import Cloud
from lab.login import command
from lab.processes import wait_for

PING_EVERY_S = 0.02
LOOKS_S, ENDS_S = 20.0, 5.0
ANSWER = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+) ", re.MULTILINE)
COUNTS = "n=0; while :; do n=$((n + 1)); echo $n; usleep 200000; done"


class CutOff(Exception):
    """The visitor lost the server; the message says how."""


class Seen(NamedTuple):
    """Since the look before: the longest time without an answer, and how many pings had none at all."""

    gap_ms: float
    lost: int


class Visitor:
    """From the moment it is made until `leave`."""

    def __init__(self, cloud: Cloud, address: str) -> None:
        self._pings, self._words = cloud.home / "visitor.pings", cloud.home / "visitor.session"
        self._looked = 0
        enter = ["nsenter", f"--net={network.path(cloud.lab.outside)}", "--"]
        self._ping = _started([*enter, "ping", "-D", "-n", "-i", str(PING_EVERY_S), address], self._pings)
        self._session = _started(command(cloud, address, COUNTS), self._words)

    def look(self) -> Seen:
        """Once the server has answered both afresh. Raises CutOff when it does not, or the session has ended."""
        pings, word = len(self._answers()), self.said()
        in_time = wait_for(lambda: len(self._answers()) > pings + 1 and self.said() > word + 1, LOOKS_S)
        if self._session.poll() is not None:
            raise CutOff(f"the ssh session has ended with {self._session.returncode} after word {self.said()}")
        if not in_time:
            raise CutOff(f"no answer for {LOOKS_S:.0f} s: {len(self._answers())} pings, session at word {self.said()}")
        answers = self._answers()
        since, self._looked = answers[max(0, self._looked - 1) :], len(answers)
        gaps = [after - before for (before, _), (after, _) in itertools.pairwise(since)]
        return Seen(max(gaps) * 1000, since[-1][1] - since[0][1] + 1 - len(since))

    def said(self) -> int:
        """The number that the session counts; raises CutOff when one is missing."""
        numbers = [int(line) for line in self._words.read_text().split("\n")[:-1]]
        if numbers != list(range(1, len(numbers) + 1)):
            raise CutOff(f"the ssh session lost a word: {numbers[-20:]}")
        return len(numbers)

    def pinged(self) -> int:
        return len(self._answers())

    def _answers(self) -> list[tuple[float, int]]:
        """When each came, and its number."""
        return [(float(when), int(number)) for when, number in ANSWER.findall(self._pings.read_text())]

    def leave(self) -> None:
        for one in (self._ping, self._session):
            one.terminate()
            try:
                one.wait(ENDS_S)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait(ENDS_S)


def _started(line: list[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as out:
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.DEVNULL, cwd="/")
