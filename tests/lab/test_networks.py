"""The network agents of two real hosts, as processes, without any control: each makes true what it kept.

Guests are network namespaces, plugged into the hosts as a hypervisor's taps are.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from droveway.agents.kept_plan import FileKeptPlan
from droveway.agents.metadata.kept import FileKeptGuests
from droveway.domain.guest_data import GuestData
from droveway.domain.network_plan import METADATA, HostNetworks
from droveway.domain.service_kinds import NETWORK
from lab import network
from lab.hosts import Host, Lab, obstacle
from lab.processes import everyone, wait_for
from tests.drivers import metadata_worlds as m
from tests.drivers import network_worlds as w

REASON = obstacle()
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(REASON is not None, reason=f"no lab hosts here: {REASON}"),
    w.NEEDS_REAL_NETWORKS,
]
STARTS_S = 60.0
GROUP = w.identity(1)


class Scene:
    """`agents`: the process of each host's."""

    def __init__(self, lab: Lab, home: Path) -> None:
        self.lab, self.home = lab, home
        self.guests: list[w.Guest] = []
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        config = [f'role = "agent"\nstate_path = "{home}/state"\nlog_level = "warning"\n']
        for host in lab.hosts:
            config.append(
                f'[[host]]\nname = "{host.name}"\nservices = ["{NETWORK}"]\nnetwork = "bridge"\n'
                f'tunnel_address = "{host.address}"\nhost_state_path = "{home}/{host.name}"\n'
                f'boot_id_path = "{host.boot_id_path}"\n'
            )
        (home / "state").mkdir()
        self.config = home / "agent.toml"
        self.config.write_text("".join(config))

    def keep(self, host: Host, plan: HostNetworks, guest: GuestData) -> None:
        FileKeptPlan(self.home / host.name / NETWORK / "networks.json").write(plan)
        FileKeptGuests(self.home / host.name / NETWORK / "guests").write(guest)

    def start(self, host: Host) -> None:
        command = (sys.executable, "-m", "droveway.main", "agent", "--config", str(self.config))
        with (self.home / f"{host.name}.log").open("ab") as log:
            self.agents[host.name] = subprocess.Popen(
                host.command(*command, "--host", host.name, "--service", NETWORK), stdout=log, stderr=log
            )

    def kill(self, host: Host) -> None:
        """The agent itself: what was started is nsenter, which waits for it."""
        entered = self.agents.pop(host.name)
        for one in everyone():
            if one.parent() == entered.pid:
                one.send(signal.SIGKILL)
        entered.wait(10)

    def kill_serving(self, host: Host) -> None:
        """What serves metadata there."""
        number = host.outside(f"/run/droveway-network/{host.name}/metadata.pid").read_text()
        assert host.run("kill", "-9", number).returncode == 0

    def told(self, guest: w.Guest) -> str:
        """Whose documents it is shown; empty while nobody answers."""
        try:
            return m.name_of(guest)
        except OSError:
            return ""

    def guest(self, host: Host, number: int) -> w.Guest:
        port = m.of(number)
        made = w.Guest(Named(host.netns), port)  # type: ignore[arg-type]
        self.guests.append(made)
        made.plug()
        network.build(made.name, f"route add {METADATA}/32 via 10.0.0.2")
        return made

    def has_networks(self, host: Host) -> bool:
        return "dwd00000001000" in w.kernel.links(host.netns)

    def end(self) -> None:
        for agent in self.agents.values():
            agent.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.wait(10)
            agent.kill()
            agent.wait()
        for guest in self.guests:
            w.network.delete(guest.name)
        self.lab.down()


class Named(msgspec.Struct):
    """A host by the name of its namespace, as guests want it."""

    name: str


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    tmp_path.chmod(0o755)
    lab = Lab(tmp_path / "lab")
    made = None
    try:
        lab.up(2, wait=False)
        made = Scene(lab, tmp_path)
        yield made
    finally:
        if made is not None:
            made.end()
            print("".join(one.read_text() for one in tmp_path.glob("h*.log")))
        else:
            lab.down()


def test_hosts_make_what_they_kept_and_packets_outlive_the_agent(scene: Scene) -> None:
    first, second = scene.lab.hosts
    for host, other, number in ((first, second, 11), (second, first, 12)):
        peer = w.port(23 - number, groups=(GROUP,))
        net = w.planned_network(
            tunnel_addresses=(other.address,),
            remote_ports=(w.remote(peer, other.address),),
            dhcp_mac="fa:16:3e:ff:ff:01",
        )
        own = m.of(number)
        groups = (w.group(1, *w.PING),)
        scene.keep(host, HostNetworks(7, host.address, (other.address,), (net,), (own,), groups), m.told(number))
        scene.start(host)
    for host in (first, second):
        assert wait_for(lambda: scene.has_networks(host), STARTS_S)  # noqa: B023
    one, two = scene.guest(first, 11), scene.guest(second, 12)
    assert one.pings("10.0.0.12", 3) and two.pings("fd00::11", 3) and one.pings("10.0.0.2")
    assert not one.pings(second.address, wait_s=0.4)
    assert wait_for(lambda: scene.told(one) == "g11", STARTS_S) and wait_for(lambda: scene.told(two) == "g12", STARTS_S)

    with one.pinging("10.0.0.12") as counted:
        scene.kill(first)
        assert scene.told(one) == "g11"
        scene.start(first)  # and begins anew, and compares
        assert wait_for(lambda: bool(w.kernel.links(first.netns)), 1)
        assert wait_for(lambda: scene.agents[first.name].poll() is None, 1)
        w.time.sleep(3)
    assert counted["sent"] > 300 and counted["lost"] == 0
    assert scene.told(one) == "g11"
    scene.kill_serving(first)
    assert wait_for(lambda: scene.told(one) == "g11", STARTS_S)

    scene.lab.power_off(second.name)
    scene.agents.pop(second.name).wait(10)
    back = scene.lab.power_on(second.name, wait=False)
    scene.start(back)
    assert wait_for(lambda: scene.has_networks(back), STARTS_S)
    again = scene.guest(back, 12)
    assert again.pings("10.0.0.11", 5)
    assert wait_for(lambda: scene.told(again) == "g12", STARTS_S)
