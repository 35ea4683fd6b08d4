"""The bus between controls and APIs over a broker: nudges to all, questions to one control.

PREFIX.nudge                  to all: topics, each once
PREFIX.question.CONTROL       to the control of that name
PREFIX.reply.ID.SECRET        to the end that asked; the secret is the question's own
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from droveway.domain.faults import BadRequest, Busy, Unreachable
from droveway.drivers.bus.broker_link import BrokerLink
from droveway.drivers.bus.broker_messages import word
from droveway.drivers.bus.decoding import decoder
from droveway.ports.clock import Names
from droveway.ports.peer_bus import Question, Reply

log = structlog.get_logger("droveway.bus")
ASKED_MAX = 1024  # without an answer yet
ANSWERING_MAX = 256
TOPICS_MAX = 4096  # of one message; those beyond are dropped, as hints may be
TOPIC_MAX = 128  # characters


class _Nudge(msgspec.Struct, frozen=True):
    sender: str
    topics: tuple[str, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_nudge = decoder(_Nudge)
_decode_question = decoder(Question)
_decode_reply = decoder(Reply)


class BrokerPeerBus:
    """Shares its link with the other ends of its process."""

    def __init__(self, link: BrokerLink, names: Names) -> None:
        self._link, self._id, self._prefix = link, names.uuid(), link.settings.prefix
        self._sids: list[int] = []
        self._names = names
        self._asked: dict[bytes, tuple[str, asyncio.Future[Reply]]] = {}
        self._topics: dict[str, None] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._on_nudge: Callable[[str], None] = lambda _: None
        self._on_question: Callable[[Question], Awaitable[Reply]] | None = None
        self.dropped = 0  # topics that were not passed on, and questions beyond the bound
        self.garbage = 0

    async def serve(
        self,
        name: str,
        on_nudge: Callable[[str], None],
        on_question: Callable[[Question], Awaitable[Reply]] | None = None,
    ) -> None:
        """Returns at once, broker or none: the link connects by itself."""
        self._on_nudge, self._on_question = on_nudge, on_question
        p, subscribe = self._prefix, self._link.subscribe
        self._sids = [subscribe(f"{p}.nudge", self._on_topics), subscribe(f"{p}.reply.{self._id}.*", self._on_reply)]
        if on_question is not None:
            self._sids.append(subscribe(f"{p}.question.{word(name)}", self._on_asked))
        self._link.use(self)

    async def close(self) -> None:
        for task in list(self._answering):
            task.cancel()
        for sid in self._sids:
            self._link.unsubscribe(sid)
        self._link.release(self)
        self.on_lost("this process is ending")
        await self._link.closed()

    def on_connected(self) -> None:
        """Nothing to say: what was not heard in between is in the store."""

    def on_lost(self, reason: str) -> None:
        for control, answer in list(self._asked.values()):
            if not answer.done():
                answer.set_exception(Unreachable(f"control {control} was not reached: {reason}"))

    # -- questions ----------------------------------------------------------------------------------------------------
    async def ask(self, control: str, question: Question, timeout_s: float) -> Reply:
        if len(self._asked) >= ASKED_MAX:
            raise Unreachable(f"{ASKED_MAX} questions to controls wait for their answers, which is the bound")
        back = f"{self._prefix}.reply.{self._id}.{self._names.secret()}"
        key = back.encode()
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[key] = (control, answer)
        try:
            payload = self._packed(question)
            if not self._link.publish(f"{self._prefix}.question.{word(control)}", payload, back):
                raise Unreachable(
                    f"control {control} was not asked: {self._link.trouble or 'the queue to the broker is full'}"
                )
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            why = self._link.trouble or self._link.complaint
            raise Unreachable(
                f"control {control} did not answer within {timeout_s:g} s{': ' + why if why else ''}"
            ) from None
        finally:
            del self._asked[key]

    def _packed(self, question: Question) -> bytes:
        """Raises BadRequest: what is asked comes from the API's client."""
        try:
            payload = _encode(question)
        except (OverflowError, ValueError) as error:
            raise BadRequest(f"Control cannot be asked that: {error}.") from None
        if len(payload) > self._link.max_payload_bytes:
            raise BadRequest(
                f"Control cannot be asked that: it is {len(payload)} bytes, and the broker carries "
                f"{self._link.max_payload_bytes}."
            )
        return payload

    def _on_reply(self, subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        control, answer = self._asked.get(subject, ("", None))
        if answer is None or answer.done():
            return
        if payload is None:
            answer.set_exception(Unreachable(f"no control named {control} is connected"))
            return
        try:
            answer.set_result(_decode_reply(payload))
        except msgspec.DecodeError:
            self.garbage += 1

    def _on_asked(self, _subject: bytes, reply: bytes, payload: bytes | None) -> None:
        try:
            question = _decode_question(payload or b"")
        except msgspec.DecodeError:
            self.garbage += 1
            return
        if not reply.startswith(f"{self._prefix}.reply.".encode()):  # control answers there alone
            self.garbage += 1
            return
        if len(self._answering) >= ANSWERING_MAX:
            self.dropped += 1
            full = Reply(fault=Busy.__name__, reason=f"control answers {ANSWERING_MAX} questions already; ask again")
            self._link.publish(reply.decode(errors="replace"), _encode(full))
            return
        task = asyncio.get_running_loop().create_task(self._answer(question, reply.decode(errors="replace")))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, question: Question, reply: str) -> None:
        assert self._on_question is not None, "questions arrive where they are answered"
        payload = _encode(await self._on_question(question))
        if len(payload) > self._link.max_payload_bytes:
            reason = (
                f"the answer about {question.about} is {len(payload)} bytes, and the broker carries "
                f"{self._link.max_payload_bytes}; ask for less, or raise its max_payload"
            )
            payload = _encode(Reply(fault=Busy.__name__, reason=reason))
        self._link.publish(reply, payload)

    # -- nudges -------------------------------------------------------------------------------------------------------
    def nudge(self, topic: str) -> None:
        if not self._topics:
            asyncio.get_running_loop().call_soon(self._send_topics)
        if len(self._topics) < TOPICS_MAX and len(topic) <= TOPIC_MAX:
            self._topics[topic] = None
        elif topic not in self._topics:
            self.dropped += 1

    def _send_topics(self) -> None:
        topics, self._topics = tuple(self._topics), {}
        if not self._link.publish(f"{self._prefix}.nudge", _encode(_Nudge(self._id, topics))):
            self.dropped += len(topics)

    def _on_topics(self, _subject: bytes, _reply: bytes, payload: bytes | None) -> None:
        try:
            nudge = _decode_nudge(payload or b"")
        except msgspec.DecodeError:
            self.garbage += 1
            return
        if nudge.sender != self._id:
            for topic in nudge.topics:
                self._on_nudge(topic)
