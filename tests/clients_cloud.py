"""The whole program with two imagined hosts, networks and a backend of volumes: what clients are tried against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from openstack.config import loader
from openstack.connection import Connection

from lab.processes import wait_for
from tests.openstack_process import OpenstackProcess
from tests.test_starts import SOON_S, Program, upload

PASSWORD = "correct horse"


class Cloud(Program):
    """With networks; `openstack` is the command, in a process that stays. `has_volumes`: the first host has a backend,
    whose volumes are files."""

    has_volumes = False

    def configure(self, more: str = "", api: str = "") -> None:
        super().configure('[network]\ndriver = "simulated"\n' + more, api)
        told = self.config.read_text()
        for number, name in enumerate(("s1", "s2"), 1):
            has_backend = self.has_volumes and number == 1
            services = ["nova-compute", "neutron-linuxbridge-agent", *(["cinder-volume@files"] if has_backend else [])]
            words = ", ".join(f'"{one}"' for one in services)
            here = f'name = "{name}"\n'
            of_host = f'services = [{words}]\nnetwork = "simulated"\nphysical_networks = ["physnet1:eth1"]\n'
            told = told.replace(here, f'{here}{of_host}tunnel_address = "192.0.2.{number}"\n')
            if has_backend:
                (self.home / "volumes").mkdir(exist_ok=True)
                backend = f'[[host.backend]]\nname = "files"\ndriver = "dir"\npath = "{self.home}/volumes"\n'
                told = told.replace('[[host]]\nname = "s2"', f'{backend}[[host]]\nname = "s2"')
        self.config.write_text(told)

    def open(self) -> None:
        self.start()
        compute = self.is_up()
        upload(self, compute)
        compute.close()
        self._shell = OpenstackProcess(self.home / "clouds.yaml")
        self.openstack = self._shell.run
        assert wait_for(lambda: len(self.openstack("network", "agent", "list")) == 2, SOON_S), self.said.read_text()
        if self.has_volumes:
            assert wait_for(self._has_pool, SOON_S), self.said.read_text()

    def _has_pool(self) -> bool:
        found: list[dict[str, Any]] = self.openstack("volume", "service", "list")
        return any(one["State"] == "up" and one["Binary"] == "cinder-volume" for one in found)

    def make_outside(self) -> str:
        """The one way out; its name."""
        flat = ("--external", "--provider-network-type", "flat", "--provider-physical-network", "physnet1")
        self.openstack("network", "create", "outside", *flat)
        subnet = ("--network", "outside", "--subnet-range", "198.51.100.0/24", "--no-dhcp")
        self.openstack("subnet", "create", "so", *subnet)
        return "outside"

    def make_people(self) -> Path:
        """As the tests of openstacksdk expect them, those of an OpenStack that developers start: the file of clouds."""
        with self.connection() as c:
            roles = {name: c.identity.find_role(name) for name in ("admin", "member")}
            for name in ("demo", "alt_demo"):
                project = c.identity.create_project(name=name, domain_id="default")
                user = c.identity.create_user(name=name, password=PASSWORD, domain_id="default")
                c.identity.assign_project_role_to_user(project, user, roles["member"])
            c.identity.put(f"/system/users/{c.identity.find_user('admin').id}/roles/{roles['admin'].id}")
        here = yaml.safe_load((self.home / "clouds.yaml").read_text())["clouds"]["droveway"]

        def of(project: str, **auth: str) -> dict[str, Any]:
            on = {"project_name": project} if project else {"system_scope": "all"}
            kept = {key: value for key, value in here["auth"].items() if not key.startswith("project")}
            domain = {"project_domain_name": "Default"} if project else {}
            return {**here, "auth": {**kept, **on, **domain, **auth}}

        clouds = {
            "devstack-admin": of("admin"),
            "devstack-system-admin": of(""),
            "devstack": of("demo", username="demo", password=PASSWORD),
            "devstack-alt": of("alt_demo", username="alt_demo", password=PASSWORD),
        }
        path = self.home / "devstack.yaml"
        path.write_text(yaml.safe_dump({"clouds": clouds}))
        return path

    @property
    def password(self) -> str:
        return str(yaml.safe_load((self.home / "clouds.yaml").read_text())["clouds"]["droveway"]["auth"]["password"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._shell.close()
        assert self.running is not None
        self.running.terminate()
        self.running.wait(SOON_S)

    def connection(self) -> Connection:
        files = loader.OpenStackConfig(config_files=[str(self.home / "clouds.yaml")], load_envvars=False)
        return Connection(config=files.get_one("droveway"))
