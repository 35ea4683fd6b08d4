"""`./dev ssh SERVER [COMMAND...]`: logs in to a server through its floating IP, which it gets first when it has none.

Outside of the cloud is a network namespace of this machine: ssh runs in there.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from lab import listen, network
from lab.client import ApiFailed, Client
from lab.cloud import Cloud, home_of_this, short
from lab.quickstart import KEY, NETWORK, key_path

SERVERS = "/compute/v2.1/servers"
BUILT_S, ANSWERS_S, TRY_S, POLL_S = 120.0, 60.0, 2.0, 0.2
SSH_PORT = 22
BANNER = b"SSH-"
# The guest lives in memory and makes its host key at each boot: there is none to remember.
OPTIONS = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "IdentitiesOnly=yes")
USAGE = "usage: ./dev ssh SERVER [COMMAND...], where SERVER is a name or an id, as in: ./dev ssh g1 uptime"


class LoginFailed(Exception):
    """Nobody can log in there; the message says why and what to do."""


def _say(text: str) -> None:
    print(f"dev: {text}", file=sys.stderr, flush=True)


class Login:
    def __init__(self, cloud: Cloud, say: Callable[[str], None] = _say) -> None:
        self._cloud, self._say = cloud, say
        if not cloud.is_up:
            raise LoginFailed(f"no cloud runs in {short(cloud.home)}: start it with ./dev up")
        if cloud.is_simulated:
            raise LoginFailed("the hosts of this cloud are simulated: no guest runs there that one could log in to")
        if not key_path(cloud.home).exists():
            raise LoginFailed(
                f"{short(key_path(cloud.home))} is not there: ./dev up makes another key, for new servers"
            )
        self._client = Client(cloud.port)
        self._client.log_in(cloud.clouds_yaml)

    # -- the way in ---------------------------------------------------------------------------------------------------
    def server(self, called: str) -> dict[str, Any]:
        """That runs, and has our key. Waits for one that is still being built."""
        server = self._find(called)
        if server["status"] == "BUILD":
            self._say(f"{called} is still being built: waiting for it")
            deadline = time.monotonic() + BUILT_S
            while server["status"] == "BUILD":
                if time.monotonic() > deadline:
                    raise LoginFailed(f"{called} is still being built after {BUILT_S:.0f} s: ./dev droveway saga list")
                time.sleep(POLL_S)
                server = self._client.must("GET", f"{SERVERS}/{server['id']}")["server"]
        if server["status"] != "ACTIVE":
            hint = "start" if server["status"] == "SHUTOFF" else "show"
            raise LoginFailed(f"{called} is {server['status']}, not ACTIVE: ./dev openstack server {hint} {called}")
        if server["key_name"] != KEY:
            made = f"with the key {server['key_name']}" if server["key_name"] else "without a key"
            raise LoginFailed(
                f"{called} was made {made}: nobody can log in with that of .droveway; make a server with "
                f"--key-name {KEY}"
            )
        return server

    def _find(self, called: str) -> dict[str, Any]:
        found = self._client.must("GET", f"{SERVERS}/detail?name={quote(f'^{_escaped(called)}$')}")["servers"]
        found = [one for one in found if one["name"] == called]
        if len(found) > 1:
            ids = ", ".join(one["id"] for one in found)
            raise LoginFailed(f"{len(found)} servers are called {called}: give an id of {ids}")
        if found:
            return dict(found[0])
        try:
            return dict(self._client.must("GET", f"{SERVERS}/{quote(called, safe='')}")["server"])
        except ApiFailed:
            raise LoginFailed(
                f"there is no server {called}: ./dev openstack server list shows which there are"
            ) from None

    def address(self, server: dict[str, Any]) -> str:
        """Its floating IP."""
        ports = self._client.must("GET", f"{NETWORK}/ports?device_id={server['id']}")["ports"]
        inside = [port["id"] for port in ports if any(":" not in one["ip_address"] for one in port["fixed_ips"])]
        if not inside:
            raise LoginFailed(
                f"{server['name']} has no IPv4 address: ./dev openstack server add network {server['name']} private"
            )
        there = self._client.must("GET", f"{NETWORK}/floatingips?project_id={self._client.project_id}")["floatingips"]
        for one in there:
            if one["port_id"] in inside:
                return str(one["floating_ip_address"])
        return self._given_one(server, inside[0], there)

    def _given_one(self, server: dict[str, Any], port: str, there: list[dict[str, Any]]) -> str:
        """One that leads nowhere yet, or a new one."""
        free = next((one for one in there if one["port_id"] is None), None)
        if free is not None:
            made = self._client.must("PUT", f"{NETWORK}/floatingips/{free['id']}", {"floatingip": {"port_id": port}})
        else:
            networks = self._client.must("GET", f"{NETWORK}/networks?router:external=true")["networks"]
            if not networks:
                raise LoginFailed("there is no external network to take a floating IP from: ./dev up makes one")
            new = {"floating_network_id": networks[0]["id"], "port_id": port}
            made = self._client.must("POST", f"{NETWORK}/floatingips", {"floatingip": new})
        address = str(made["floatingip"]["floating_ip_address"])
        self._say(f"{server['name']} has got the floating IP {address}")
        return address

    def wait_for_sshd(self, name: str, address: str) -> None:
        deadline, is_said = time.monotonic() + ANSWERS_S, False
        began = time.monotonic()
        while not self._answers(address):
            if time.monotonic() > deadline:
                raise LoginFailed(
                    f"nothing answers on port {SSH_PORT} of {address} after {ANSWERS_S:.0f} s: see ./dev openstack "
                    f"console log show {name}, and whether its security groups let ssh in"
                )
            if not is_said and time.monotonic() > began + 1:
                self._say(f"waiting for {name} to answer at {address}")
                is_said = True
            time.sleep(POLL_S)

    def _answers(self, address: str) -> bool:
        """Whether an SSH server says what it is."""
        with network.inside(self._cloud.lab.outside):
            probe = socket.socket()
        with probe:
            probe.settimeout(TRY_S)
            try:
                probe.connect((address, SSH_PORT))
                return probe.recv(len(BANNER)) == BANNER
            except OSError:
                return False


def command(cloud: Cloud, address: str, *words: str) -> list[str]:
    """What logs in there and runs `words`, or a shell."""
    options = [word for option in OPTIONS for word in ("-o", option)]
    enter = ["nsenter", f"--net={network.path(cloud.lab.outside)}", "--"]
    return [*enter, "ssh", *options, "-i", str(key_path(cloud.home)), f"root@{address}", *words]


def _escaped(name: str) -> str:
    return "".join(one if one.isalnum() else f"\\{one}" for one in name)


def log_in(home: Path, called: str, *words: str) -> NoReturn:
    if shutil.which("ssh") is None:
        raise LoginFailed("ssh is not installed: apt install openssh-client")
    cloud = Cloud(home)
    login = Login(cloud)
    server = login.server(called)
    address = login.address(server)
    login.wait_for_sshd(called, address)
    line = command(cloud, address, *words)
    os.execvp(line[0], line)


def main() -> None:
    words = sys.argv[1:]
    if not words or not words[0] or words[0].startswith("-"):
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    try:
        listen()
        log_in(home_of_this(), *words)
    except (ApiFailed, LoginFailed, network.NetworkFailed) as failure:
        sys.exit(f"dev: {failure}")
    except KeyboardInterrupt:
        sys.exit("dev: interrupted")


if __name__ == "__main__":
    main()
