"""Real guests that write to their memory faster than it is copied, and what an operator can do about it."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest

from droveway.domain.migration_ladder import POLICY_KEY
from lab.hosts import obstacle
from tests.lab.witness import COMPUTE, Witness

REASON = obstacle()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
]
ENDS_S, SLOW_ENDS_S = 60.0, 240.0
LINK_MIB_S = 8
# Random bytes cost the guest CPU, so that slowing it down slows its writing down; they lie in its memory, as /tmp does.
WRITES = "#!/bin/sh\nwhile :; do dd if=/dev/urandom of=/tmp/blob bs=1M count=24 conv=notrunc 2>/dev/null; done &\n"
WRITES_KIB = 16 * 1024  # so many have been written when it is sure to write on


class Writer:
    """A guest of that policy, over a link that is slower than it writes."""

    def __init__(self, witness: Witness, policy: str) -> None:
        self.witness, self.compute = witness, witness.compute
        data = base64.b64encode(WRITES.encode()).decode()
        self.id = witness.booted(f"writer-{policy}", config_drive=True, user_data=data, metadata={POLICY_KEY: policy})
        self.host = self.compute.host_of(self.id)
        witness.wait(lambda: "CONFIGURED" in witness.console(self.id), ENDS_S, "its user data")
        time.sleep(2)  # it has written all of it once by then
        witness.virsh(self.host, "migrate-setspeed", self.id, str(LINK_MIB_S))

    def migrate(self) -> dict[str, Any]:
        """Until its memory is being copied."""
        self.compute.migrate(self.id)
        self.witness.wait(lambda: (self.own()["iteration"] or 0) > 0, ENDS_S, "its copy")
        return self.own()

    def own(self) -> dict[str, Any]:
        return dict(self.compute.must("GET", f"/droveway/v1/migrations/{self.id}")["migration"])

    def ended(self, within_s: float = ENDS_S) -> dict[str, Any]:
        self.compute.wait_migrated(self.id, within_s)
        return self.own()

    def noted(self) -> str:
        return "\n".join(event["text"] for event in self.own()["events"])

    @property
    def path(self) -> str:
        return f"{COMPUTE}/servers/{self.id}/migrations/{self.own()['id']}"

    def is_where(self, host: str) -> None:
        """It runs there and nowhere else, and its memory is whole."""
        self.compute.wait(self.id, "ACTIVE")
        assert self.compute.host_of(self.id) == host
        self.witness.ticks_on(self.id)
        assert self.witness.places("--state-running")[self.id] == [host]


@pytest.mark.parametrize(
    ("policy", "status", "noted"),
    [
        ("post-copy", "completed", "post-copy: "),
        pytest.param("pause", "completed", "pause: ", marks=pytest.mark.full),
        pytest.param("never-slow", "error", "", marks=pytest.mark.full),
        pytest.param("auto-converge", "", "", marks=pytest.mark.full),
    ],
)
def test_a_guest_that_writes_too_fast_ends_by_its_policy(
    witness: Witness, policy: str, status: str, noted: str
) -> None:
    writer = Writer(witness, policy)
    began = writer.migrate()
    assert began["policy"] == policy and began["memory_total_bytes"] > 100 << 20
    ended = writer.ended(SLOW_ENDS_S)
    assert ended["status"] == status or (not status and ended["status"] in {"completed", "error"}), ended["error"]
    assert noted in writer.noted()
    if ended["status"] == "error":
        assert "was given up" in ended["error"] and policy in ended["error"]
    writer.is_where(ended["destination"] if ended["status"] == "completed" else writer.host)


def test_one_that_never_ends_is_aborted_and_then_forced_to_complete(witness: Witness) -> None:
    writer = Writer(witness, "auto-converge")
    writer.migrate()
    for _ in range(2):
        assert writer.compute.call("DELETE", writer.path)[0] in (202, 404)  # it may have ended
    assert writer.ended()["status"] == "cancelled"
    writer.is_where(writer.host)
    writer.migrate()
    path = f"{writer.path}/action"
    assert [writer.compute.call("POST", path, {"force_complete": None})[0] for _ in range(2)] == [202, 202]
    ended = writer.ended()
    assert ended["status"] == "completed" and ended["forced"], ended["error"]
    assert "pause: it was forced to complete" in writer.noted()
    writer.is_where(ended["destination"])


# -- in post-copy -----------------------------------------------------------------------------------------------------
def split(writer: Writer) -> dict[str, Any]:
    """In post-copy, over a link that takes its time: so that there is something to cut."""
    writer.witness.virsh(writer.host, "migrate-setspeed", writer.id, "1", "--postcopy")
    writer.migrate()
    writer.witness.wait(lambda: writer.own()["post_copy"] == "active", ENDS_S, "post-copy")
    return writer.own()


@pytest.mark.full
def test_a_post_copy_that_is_cut_is_resumed_and_its_guest_goes_on(witness: Witness) -> None:
    writer = Writer(witness, "post-copy")
    seen = split(writer)
    late, answer = writer.compute.call("DELETE", writer.path)
    assert late == 400 and "runs on its destination already" in str(answer)
    source = witness.cloud.lab.host(writer.host)
    other = witness.cloud.lab.host(seen["destination"]).address
    cut = source.run("ss", "-K", "dst", other, "dport", "ge", "49152")  # the ports of libvirt's copies
    assert cut.returncode == 0, cut.stderr
    witness.wait(lambda: "post-copy was cut" in writer.noted(), ENDS_S, "the cut")
    witness.virsh(writer.host, "migrate-setspeed", writer.id, "100", "--postcopy")
    ended = writer.ended(SLOW_ENDS_S)
    assert ended["status"] == "completed", ended["error"]
    writer.is_where(ended["destination"])


@pytest.mark.full
def test_a_guest_whose_source_dies_in_post_copy_is_lost_and_is_started_again(witness: Witness) -> None:
    writer = Writer(witness, "post-copy")
    split(writer)
    source = witness.cloud.lab.host(writer.host)
    (pid,) = source.run("pgrep", "-f", f"qemu-system.*{writer.id}").stdout.split()
    assert source.run("kill", "-9", pid).returncode == 0
    ended = writer.ended(SLOW_ENDS_S)
    assert ended["status"] == "error" and "lost in post-copy" in ended["error"]
    assert "lost in post-copy" in witness.fault(writer.id)
    assert writer.id not in witness.places("--state-running")
    assert writer.compute.act(writer.id, {"reboot": {"type": "HARD"}})[0] == 202
    witness.wait(lambda: writer.compute.server(writer.id)["status"] == "ACTIVE", ENDS_S, "its start")
    witness.comes_up(writer.id, 2)
    assert writer.compute.host_of(writer.id) == ended["destination"]
