"""The agent's side of metadata: starts the process that serves it, or takes over the one that is there, and tells it
what has changed. What that process has is known from its answer to one question, and from what it was told since."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import ipaddress
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

import droveway
from droveway.agents.metadata import messages
from droveway.agents.metadata.messages import (
    FRAME_MAX_BYTES,
    HEADER_BYTES,
    Addresses,
    Documents,
    Done,
    End,
    Leave,
    Listen,
    Look,
    Message,
    ReadPasswords,
    Reply,
    State,
    Written,
)
from droveway.domain import guest_data
from droveway.domain.faults import Fault
from droveway.domain.guest_data import GuestData, GuestFacts
from droveway.domain.network_plan import HostNetworks, link_local
from droveway.ports.network import Network, NetworkRefused

ANSWER_S, STARTS_S = 5.0, 30.0
WITHDRAW_S = 1.0  # so long a plan waits for addresses to be taken back, before the process that tells them is ended
NOTHING = State("", {}, {}, {})
BEGIN = "import sys; sys.path.append({!r}); from droveway.agents.metadata.process import main; main()"
SOCKET, PID, EMPTY = "metadata.sock", "metadata.pid", "empty"


class NotServed(Fault):
    """Metadata is not served as it should be: the sentence says why."""


class MetadataServer:
    """`directory`: emptied by a reboot of the host. `lost`: called when the process that served has ended."""

    def __init__(self, directory: Path, host: str, network: Network) -> None:
        self._directory, self._host, self._network = directory, host, network
        self.lost: Callable[[], None] = lambda: None
        self._socket: socket.socket | None = None
        self._serving, self._pidfd = 0, -1  # the process
        self._state = NOTHING  # what it has
        self._is_settled = True  # whether addresses may be told: no plan is being made
        self._line, self._connecting = asyncio.Lock(), asyncio.Lock()
        self._rendered: dict[str, tuple[GuestFacts, str]] = {}  # of which the process has documents: their digest

    async def bring(self, plan: HostNetworks, guests: Mapping[str, GuestData]) -> None:
        """Serve that, and nothing else. Raises NotServed."""
        try:
            places = await self._network.metadata_networks()
            if not places and self._socket is None and not (self._directory / SOCKET).exists():
                return
            async with self._connecting:
                await self._connect()
            for network_id in [one for one, place in self._state.networks.items() if places.get(one) != place]:
                await self._ask(Leave(network_id))
                del self._state.networks[network_id]
            await self._send(plan, guests)
            for network_id in places.keys() - self._state.networks.keys():
                await self._listen(network_id, places[network_id])
            if not places:
                await self.end()
        except TimeoutError:
            self._kill()
            raise NotServed("metadata is not served: its process does not answer, and is started anew") from None
        except (OSError, NetworkRefused, msgspec.DecodeError) as error:
            self._disconnect()
            raise NotServed(f"metadata is not served: {error}") from None

    async def withdraw(self, plan: HostNetworks) -> None:
        """Before `plan` is made: an address that will be another guest's, or nobody's, is told to nobody from now on,
        and no other is until `settle`. A process that does not answer to that is ended: then nothing is told."""
        self._is_settled = False
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._connecting.acquire()
            try:
                if self._socket is None and not await self._adopt():
                    return
            finally:
                self._connecting.release()
            wanted, now = _addresses(plan), self._state.addresses
            kept = {
                network_id: {one: whose for one, whose in its.items() if wanted.get(network_id, {}).get(one) == whose}
                for network_id, its in now.items()
            }
            if kept != now:
                async with asyncio.timeout(WITHDRAW_S):
                    await self._set_addresses(kept)
        except (OSError, NotServed, msgspec.DecodeError):
            self._kill()

    def settle(self) -> None:
        """The plan is made: its addresses are those of its guests."""
        self._is_settled = True

    async def _set_addresses(self, addresses: dict[str, dict[str, str]]) -> None:
        await self._ask(Addresses(addresses))
        self._state = msgspec.structs.replace(self._state, addresses=addresses)

    async def _send(self, plan: HostNetworks, guests: Mapping[str, GuestData]) -> None:
        """Documents first: who finds its address finds them."""
        addresses = _addresses(plan)
        facts = guest_data.at_host(guests, plan)
        for instance_id, its in facts.items():
            known = self._rendered.get(instance_id)
            if known is not None and known[0] == its and self._state.guests.get(instance_id) == known[1]:
                continue
            documents = guest_data.served(its)
            digest = hashlib.blake2b(repr(sorted(documents.items())).encode(), digest_size=16).hexdigest()
            if self._state.guests.get(instance_id) != digest:
                await self._ask(Documents(instance_id, digest, documents))
            self._state.guests[instance_id] = digest
            self._rendered[instance_id] = its, digest
        if not self._is_settled:
            return
        if addresses != self._state.addresses:
            await self._set_addresses(addresses)
        for instance_id in self._state.guests.keys() - facts.keys():
            await self._ask(Documents(instance_id, "", None))
            del self._state.guests[instance_id]
            self._rendered.pop(instance_id, None)

    async def passwords(self) -> dict[str, str]:
        """By instance, what guests have set and are not told back yet; nothing where none are served."""
        if self._socket is None:
            return {}
        try:
            reply = await self._ask(ReadPasswords())
        except (OSError, NotServed, msgspec.DecodeError):
            return {}  # it is seen when they are brought the next time
        return reply.passwords if isinstance(reply, Written) else {}

    async def _listen(self, network_id: str, place: str) -> None:
        sockets = await self._network.metadata_sockets(network_id)
        try:
            await self._ask(Listen(network_id, place), [one.fileno() for one in sockets])
        finally:
            for one in sockets:
                one.close()
        self._state.networks[network_id] = place

    async def end(self) -> None:
        """The process too: there is nobody left to be served."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            connection = self._socket if self._socket is not None else await asyncio.to_thread(self._open)
            with connection:
                await asyncio.to_thread(_asked, connection, End(), [])
        self._disconnect()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_bury, self._pid())
        for name in (SOCKET, PID):
            (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Of this side alone: what is served is served on."""
        self._disconnect()

    # -- the process --------------------------------------------------------------------------------------------------
    async def _connect(self) -> None:
        if self._socket is not None:
            return
        self._rendered.clear()
        if await self._adopt():
            return
        await asyncio.to_thread(self._start)
        self._socket = await asyncio.to_thread(self._open)
        self._socket.settimeout(STARTS_S)
        self._state = await self._look()
        self._socket.settimeout(ANSWER_S)
        self._watch()

    async def _adopt(self) -> bool:
        """Whether there is a process. One of another release is ended."""
        with contextlib.suppress(ConnectionError, FileNotFoundError):
            self._socket = await asyncio.to_thread(self._open)
            self._state = await self._look()
            if self._state.version == _version():
                self._watch()
                return True
            self._kill()
        return False

    async def _look(self) -> State:
        reply = await self._ask(Look())
        if not isinstance(reply, State):
            raise NotServed("metadata is not served: the metadata process does not say what it has")
        return reply

    def _start(self) -> None:
        """Under a name by which it is found again."""
        (self._directory / EMPTY).mkdir(mode=0o755, parents=True, exist_ok=True)
        (self._directory / SOCKET).unlink(missing_ok=True)
        source = str(Path(next(iter(droveway.__path__))).parent)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listening, self._near() as near:
            before = os.umask(0o177)
            try:
                listening.bind(f"{near}/{SOCKET}")
            finally:
                os.umask(before)
            listening.listen(2)
            # What follows the code is for people who look at the processes, and for the process itself.
            arguments = ["droveway.main", "metadata", "--host", self._host]
            arguments += [str(listening.fileno()), str(self._directory / EMPTY), _version()]
            listening.set_inheritable(True)
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-c", BEGIN.format(source), *arguments],
                {"LANG": "C.UTF-8"},  # nothing of ours: it outlives this process
                file_actions=[(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1)],
                setsid=True,
            )
            (self._directory / PID).write_text(str(pid))

    def _open(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            opened.settimeout(ANSWER_S)
            with self._near() as near:
                opened.connect(f"{near}/{SOCKET}")
        except OSError:
            opened.close()
            raise
        return opened

    @contextlib.contextmanager
    def _near(self) -> Iterator[str]:
        """A short name of the directory: that of a socket may not be long."""
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def _watch(self) -> None:
        """The kernel says when it ends."""
        with contextlib.suppress(OSError):
            self._serving = self._pid()
            self._pidfd = os.pidfd_open(self._serving)
            asyncio.get_running_loop().add_reader(self._pidfd, self._has_ended)

    def _has_ended(self) -> None:
        self._disconnect()
        with contextlib.suppress(OSError):  # it was started by another agent
            os.waitpid(self._serving, os.WNOHANG)
        self.lost()

    def _disconnect(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if self._socket is not None:
            self._socket.close()
        self._socket, self._state = None, NOTHING

    def _kill(self) -> None:
        with contextlib.suppress(OSError):
            pid = self._pid()
            os.kill(pid, signal.SIGKILL)
            _bury(pid)
        self._disconnect()

    def _pid(self) -> int:
        """Of the process that serves. One that another process has by now is not its. Raises OSError."""
        try:
            pid = int((self._directory / PID).read_text())
        except ValueError:
            raise ProcessLookupError("it has no number") from None
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if os.fsencode(self._directory / EMPTY) not in command.split(b"\0"):
            raise ProcessLookupError("another process has its number")
        return pid

    async def _ask(self, message: Message, descriptors: list[int] | None = None) -> Reply:
        async with self._line:
            if self._socket is None:
                raise ConnectionResetError("the metadata process was ended")
            reply = await asyncio.to_thread(_asked, self._socket, message, descriptors or [])
        if isinstance(reply, Done) and reply.reason:
            raise NotServed(f"metadata is not served: {reply.reason}")
        return reply


def _addresses(plan: HostNetworks) -> dict[str, dict[str, str]]:
    """Network -> address -> instance: only addresses that are a port's own, and none that it may send from beside."""
    found: dict[str, dict[str, str]] = {}
    for port in plan.ports:
        if not port.data_digest:
            continue
        its = found.setdefault(port.network_id, {})
        its.update({ip.address: port.instance_id for ip in port.fixed_ips if ":" not in ip.address})
        if port.mac:
            its[str(ipaddress.ip_address(link_local(port.mac)))] = port.instance_id
    return found


def _asked(connection: socket.socket, message: Message, descriptors: list[int]) -> Reply:
    """Blocks, for ANSWER_S at most a part. Raises OSError, DecodeError."""
    sent = messages.frame(message)
    rest = socket.send_fds(connection, [sent], descriptors) if descriptors else 0
    connection.sendall(sent[rest:])
    received = bytearray()
    while len(received) < HEADER_BYTES or len(received) < HEADER_BYTES + _size(received):
        part = connection.recv(65_536)
        if not part:
            raise ConnectionResetError("the metadata process has ended")
        received += part
    return messages.reply_of(bytes(received[HEADER_BYTES:]))


def _bury(pid: int) -> None:
    """When it has ended; what does not end is ended."""
    watched = os.pidfd_open(pid)
    try:
        if not select.select([watched], [], [], ANSWER_S)[0]:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            select.select([watched], [], [], ANSWER_S)
    finally:
        os.close(watched)
    with contextlib.suppress(ChildProcessError):  # it was started by another agent
        os.waitpid(pid, os.WNOHANG)


def _size(received: bytearray) -> int:
    size = int.from_bytes(received[:HEADER_BYTES], "big")
    if size > FRAME_MAX_BYTES:
        raise ConnectionAbortedError("the metadata process answers with too much")
    return size


@functools.cache
def _version() -> str:
    """Of what serves: another one is replaced."""
    found = hashlib.blake2b(digest_size=8)
    package = Path(__file__).parent
    for path in (*sorted(package.glob("*.py")), package.parents[1] / "domain" / "metadata_paths.py"):
        found.update(path.read_bytes())
    return found.hexdigest()
