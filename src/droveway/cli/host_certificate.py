"""What `droveway agent join` and `agent renew` do about the certificate of this host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from droveway.cli.commands import print_json

RELOAD = ["virt-admin", "-c", "libvirtd:///system", "server-update-tls", "libvirtd"]
NO_CERTIFICATE = (
    "this API hands out no certificates (api.agents_listen), so other hosts cannot reach this one's libvirt by "
    "qemu+tls: give libvirt certificates of your own, or set that key and let this host join anew"
)


class Certificate:
    """Of a host that joins. The key is made here and stays here; nothing is written before the API has answered."""

    def __init__(self, directory: str, host: str, libvirt_pki: str) -> None:
        from droveway.pki import x509
        from droveway.pki.host_files import Settings, foreign_pki

        if libvirt_pki:
            if not Path(libvirt_pki).is_absolute():
                raise click.ClickException(f"--libvirt-pki {libvirt_pki} must be an absolute path")
            foreign = foreign_pki(Path(libvirt_pki))
            if foreign is not None:  # before the token is used up
                raise click.ClickException(
                    f"{foreign} is there already and not of this program: move it away, or leave out --libvirt-pki"
                )
        self._settings = Settings(host, directory, "", libvirt_pki)
        self._key = x509.make_key()
        self._clock = ""
        self._is_installed = False

    def request(self) -> str:
        from droveway.pki import x509

        return x509.request(self._key, self._settings.host)

    def install(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Keys for the [[host]] of the agent's file; the files that they name are written. Where the broker is reached
        by TLS, its table names the certificate too."""
        from droveway.domain.certificates import clock_offset_reason
        from droveway.pki import host_files

        found = reply.get("certificate")
        if not isinstance(found, dict):
            return {}
        settings = self._settings
        os.umask(0o077)
        try:
            host_files.install(settings, self._key, found)
            host_files.lay_out(settings)
            self._clock = clock_offset_reason(host_files.wall_us(), int(found["now_us"]))
        except (host_files.NotRenewed, OSError, LookupError, TypeError, ValueError) as error:
            raise click.ClickException(
                f"the certificate of this host cannot be kept: {error}; the token is used up, make another one"
            ) from None
        self._is_installed = True
        broker = reply["settings"].get(reply["settings"].get("bus"))
        if isinstance(broker, dict) and _is_tls(broker):
            broker |= {f"tls_{what}": f"{settings.tls_path}/current/{what}.pem" for what in ("cert", "key")}
            if _are_ours(reply.get("files", {}), found["authorities"]):  # it changes when the CA does
                broker["tls_ca"] = f"{settings.tls_path}/ca.pem"
        row: dict[str, Any] = {"tls_path": settings.tls_path, "renew_url": str(found["renew_url"])}
        if settings.libvirt_pki:
            row |= {"libvirt_pki": settings.libvirt_pki, "renewed_command": RELOAD}
        return row

    def print_next_steps(self, row: dict[str, Any]) -> None:
        """What is left to do."""
        is_libvirt = row.get("hypervisor") == "libvirt"
        if not self._is_installed:
            if is_libvirt and str(row["peer_uri"]).startswith("qemu+tls:"):
                click.echo(f"warning: {NO_CERTIFICATE}")
            return
        if self._clock:
            click.echo(f"warning: {self._clock}")
        click.echo(f"certificate of this host in {self._settings.tls_path}/current, renewed by its agent")
        if is_libvirt:
            self._print_libvirt_steps(str(row["peer_uri"]))

    def _print_libvirt_steps(self, peer_uri: str) -> None:
        from droveway.domain.peer_uri import WrongUri
        from droveway.domain.peer_uri import peer_uri as read
        from droveway.pki import x509

        home, pki = Path(self._settings.tls_path), self._settings.libvirt_pki
        try:
            there = read(peer_uri)
        except WrongUri as wrong:
            click.echo(f"warning: {wrong}")
            return
        if there.transport != "tls":
            return
        names = x509.facts((home / "current" / "cert.pem").read_text()).names
        if there.address not in names:
            click.echo(
                f"warning: its certificate names {', '.join(names) or 'nothing'} and not {there.address}, so the "
                f"libvirt of other hosts refuses {peer_uri}: join anew with a token for it, made by 'droveway "
                f"agent token create --host {self._settings.host} --address {there.address}'"
            )
        if pki:
            click.echo(
                f"laid out for libvirt in {pki}; in libvirtd.conf set listen_tls = 1, and restart libvirtd "
                "with --listen (socket activation: systemctl enable --now libvirtd-tls.socket)"
            )
        else:
            click.echo(
                'libvirt does not know it yet: join with --libvirt-pki /etc/pki, or set libvirt_pki = "/etc/pki" '
                "in the file and run 'droveway agent renew'"
            )


def _is_tls(broker: dict[str, Any]) -> bool:
    return bool(broker.get("tls_ca")) or any(
        str(one).startswith(("tls://", "amqps://")) for one in broker.get("servers", ())
    )


def _are_ours(files: dict[str, str], authorities: str) -> bool:
    """Whether the broker's authority is the private CA itself."""
    from droveway.pki import x509

    try:
        of_broker = x509.fingerprints(files.get("broker-ca.pem", ""))
    except x509.WrongPem:
        return False
    return set(of_broker) <= set(x509.fingerprints(authorities))


def renew_those_of(path: Path, host: str, *, now: bool, as_json: bool = False) -> None:
    """Raises ClickException when one could not be renewed."""
    from droveway.config.file import load
    from droveway.pki import host_files

    config = load(path, "agent")
    os.umask(0o077)
    chosen = [config.host_named(host)] if host else [one for one in config.host if one.tls_path]
    if not any(one.tls_path for one in chosen):
        raise click.ClickException(
            f"{path} names no certificate (tls_path, renew_url): it joined without one; let it join anew"
        )
    failed, shown = [], []
    for one in chosen:
        settings = host_files.Settings(one.name, one.tls_path, one.renew_url, one.libvirt_pki, one.renewed_command)
        found = host_files.look(settings, renews_now=now)
        shown.append({"host": one.name, "reason": found.reason, "trouble": found.trouble})
        if found.reason and not as_json:
            click.echo(found.reason)
        if found.trouble:
            failed.append(found.trouble)
    if as_json:
        print_json(shown)
    if failed:
        raise click.ClickException("; ".join(failed))
