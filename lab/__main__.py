"""The lab's command line: `python -m lab`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab import listen, registry
from lab.hosts import HERE, Lab, LabFailed
from lab.network import NetworkFailed

DEFAULT = Path(os.environ.get("DROVEWAY_DIR") or HERE.parent / ".droveway")


def main() -> None:
    arguments = _parser().parse_args()
    try:
        listen()
        arguments.do(Lab(arguments.dir, cache=DEFAULT / "cache"), arguments)
    except (LabFailed, NetworkFailed, registry.NotEnded) as failure:
        sys.exit(f"lab: {failure}")
    except KeyboardInterrupt:
        sys.exit("lab: interrupted; `up` goes on from here, `down` takes away what there is")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev lab", description="several KVM hosts on one machine")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, what: str, *host: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=what, description=what)
        made.add_argument("--dir", type=Path, default=DEFAULT / "lab", help="the lab's state directory (%(default)s)")
        for argument in host:
            made.add_argument(argument)
        made.set_defaults(do=globals()[f"_{name}"])
        return made

    verb("up", "start the hosts that are not running").add_argument("--hosts", type=int, default=2)
    verb("down", "end everything of the lab; its directory stays")
    verb("status", "what there is")
    verb("enter", "run a command inside a host", "host").add_argument("command", nargs=argparse.REMAINDER)
    verb("kill", "power failure of a host", "host").add_argument(
        "--silent", action="store_true", help="cut its link first: peers do not even see connections end"
    )
    verb("start", "switch a host on again", "host")
    verb("libvirtd", "its libvirtd: stop keeps it down, kill lets it come back", "host").add_argument(
        "action", choices=("stop", "start", "kill")
    )
    verb("sweep", "remove what is left of labs whose directory is gone or in which nothing runs")
    return parser


def _up(lab: Lab, arguments: argparse.Namespace) -> None:
    lab.up(arguments.hosts)
    _status(lab, arguments)


def _down(lab: Lab, arguments: argparse.Namespace) -> None:
    lab.down()


def _status(lab: Lab, arguments: argparse.Namespace) -> None:
    if not lab.hosts:
        print(f"no lab in {lab.directory}")
    for host in lab.hosts:
        init = host.init
        state = "off" if init is None else "libvirtd answers" if host.answers() else "libvirtd does not answer"
        print(f"{host.name}  {host.address}  {host.netns}  pid {init.pid if init else '-'}  {state}")


def _enter(lab: Lab, arguments: argparse.Namespace) -> None:
    host = lab.host(arguments.host)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    line = host.command(*(command or ["/bin/sh"]))
    os.execv(line[0], line)


def _kill(lab: Lab, arguments: argparse.Namespace) -> None:
    lab.power_off(arguments.host, silent=arguments.silent)


def _start(lab: Lab, arguments: argparse.Namespace) -> None:
    lab.power_on(arguments.host)


def _libvirtd(lab: Lab, arguments: argparse.Namespace) -> None:
    act = {"stop": lab.stop_libvirtd, "start": lab.start_libvirtd, "kill": lab.kill_libvirtd}[arguments.action]
    act(arguments.host)


def _sweep(lab: Lab, arguments: argparse.Namespace) -> None:
    for reason in registry.sweep():
        print(reason)


if __name__ == "__main__":
    main()
