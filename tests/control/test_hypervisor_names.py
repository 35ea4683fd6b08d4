"""What becomes of hosts whose hypervisors share a name, and of a machine that was given another one."""

from __future__ import annotations

from msgspec.structs import replace
from structlog.testing import capture_logs

from tests.control.hall import COMPUTE, DetectorHarness, play
from tests.control.test_reports import HAS, report, said


def test_two_hosts_with_one_hypervisor_are_said_once() -> None:
    async def story(hall: DetectorHarness) -> None:
        with capture_logs() as logs:
            for generation in (10, 11, 12):
                for host in ("h1", "h2"):
                    resources = replace(HAS, hypervisor_hostname="alike", vcpus=generation)
                    await report(hall, said(generation, resources, host=host))
        told = [one["because"] for one in logs if one["event"] == "two hosts report one hypervisor"]
        assert len(told) == 1 and "calls itself alike, and so does that of h1" in told[0]
        for host, other in (("h1", "h2"), ("h2", "h1")):
            evidence = (await hall.why(host, COMPUTE))["evidence"]
            assert any(f"so does that of {other}" in one["reason"] for one in evidence)
        await report(hall, said(13, replace(HAS, hypervisor_hostname="another")))
        evidence = (await hall.why("h2", COMPUTE))["evidence"]
        assert not any("calls itself" in one["reason"] for one in evidence)

    play(story, "h1", "h2")


def test_a_renamed_machine_is_named_under_its_old_name() -> None:
    async def story(hall: DetectorHarness) -> None:
        machine = replace(HAS, host_uuid="11111111-2222-4333-8444-555555555555")
        await report(hall, said(10, machine))
        hall.silence("h1", gone=True)
        await hall.step(30)
        await report(hall, said(10, machine, host="h2"))
        await hall.step(5)
        told = await hall.why("h1", COMPUTE)
        assert told["verdict"]["word"] == "down"
        assert "now reports as h2" in next(one["reason"] for one in told["evidence"] if one["about"] == "machine")
        assert "droveway host show h1" in told["advice"][0]
        assert not any(one["about"] == "machine" for one in (await hall.why("h2", COMPUTE))["evidence"])

    play(story, "h1", "h2")
