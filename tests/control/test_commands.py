"""What is believed of a host's answer."""

from __future__ import annotations

import asyncio

import pytest

from droveway.control.engine.commands import send
from droveway.domain.faults import StepFailed, Unreachable
from droveway.domain.model import CopyProgress, Guest, GuestState
from droveway.ports.bus import Answer, Command, Inspect


class Says:
    """A control's bus on whose other end one answer is given."""

    trouble = ""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def serve(self, on_notice: object) -> None: ...

    async def command(self, host: str, command: Command, timeout_s: float, service: str = "nova-compute") -> Answer:
        return self._answer

    async def close(self) -> None: ...


def ask(answer: Answer) -> Answer:
    return asyncio.run(send(Says(answer), "h1", Command("g1", 1, Inspect()), 1.0))


def test_words_are_cut_and_cleaned() -> None:
    guest = Guest("g1", GuestState.RUNNING, copy_error="no\0room")
    answer = ask(Answer("ok", "a\0b" + "c" * 10_000, guest=guest, boot_id="b1"))
    assert "\0" not in answer.sentence and len(answer.sentence) == 4096
    assert answer.guest is not None and answer.guest.copy_error == "no room"
    with pytest.raises(StepFailed, match="h1: no room"):
        ask(Answer("refused", "no\0room"))


@pytest.mark.parametrize("boot_id", ["b" * 65, "b\0", "b\n"])
def test_what_is_no_boot_is_no_answer(boot_id: str) -> None:
    with pytest.raises(Unreachable, match="the id of its boot"):
        ask(Answer("ok", boot_id=boot_id))


@pytest.mark.parametrize("number", [-1, 1 << 63, 1 << 80])
def test_progress_that_cannot_be_is_no_answer(number: int) -> None:
    guest = Guest("g1", GuestState.RUNNING, progress=CopyProgress(memory_total_bytes=number))
    with pytest.raises(Unreachable, match="progress"):
        ask(Answer("ok", guest=guest))
