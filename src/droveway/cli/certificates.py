"""`droveway ca …`: the private CA; and `droveway host certificates`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from droveway.cli.columns import one_line, when, write
from droveway.cli.commands import AS_JSON, Command, Group, print_json
from droveway.cli.session import Session, address

HOSTS = "/droveway/v1/hosts"
CERTIFICATES, AUTHORITIES, REVOKED = ("/droveway/v1/certificates", "/droveway/v1/authorities", "/droveway/v1/revoked")
COLUMNS = ("Host", "State", "Ends_At", "Renewed_From", "CA", "Serial", "Names")
DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.group(cls=Group, example="droveway ca show")
def ca() -> None:
    """The private CA: who signs the certificates of hosts, and what was revoked."""


@ca.command("init", example="droveway ca init /etc/droveway/ca")
@click.argument("directory", type=DIRECTORY)
@AS_JSON
def ca_init(directory: Path, as_json: bool) -> None:
    """Make the first CA in DIRECTORY by hand, before any API runs. (The first API to start makes one itself.)"""
    made = _made(directory, must_be_first=True)
    if as_json:
        print_json({"fingerprint": made.fingerprint, "directory": str(directory)})
        return
    click.echo(
        f"{directory} holds the CA {made.fingerprint[:16]}: copy it to every machine whose API has "
        "api.agents_listen, and name it there as ca.directory"
    )


@ca.command("show", example="droveway ca show --json")
@AS_JSON
def ca_show(as_json: bool) -> None:
    """The CAs of this cloud, and how far hosts have followed."""
    found = Session().get(AUTHORITIES)
    if as_json:
        print_json(found)
        return
    if not found["authorities"]:
        click.echo("there is no CA yet: set api.agents_listen in the file of an API, and start it")
        return
    write(
        ("CA", "State", "Ends_At", "Key", "Signed", "Trusted_By"),
        [
            (
                one["fingerprint"][:16],
                one["state"],
                when(one["not_after_us"]),
                "here" if one["key_is_here"] else "elsewhere",
                str(one["signed"]),
                f"{one['trusted_by']}/{one['hosts']} hosts",
            )
            for one in found["authorities"]
        ],
    )
    click.echo(
        f"hosts renew at {found['agents_url']}"
        if found["agents_url"]
        else "this API has no agents' listener: hosts renew at another one"
    )


@ca.command("rotate", example="droveway ca rotate --directory /var/lib/droveway/ca")
@click.option("--directory", type=DIRECTORY, required=True, help="ca.directory of the API that is asked.")
@AS_JSON
def ca_rotate(directory: Path, as_json: bool) -> None:
    """Make another CA, which hosts trust from now on beside the one that signs. The first of three steps."""
    if not directory.is_dir():
        raise click.ClickException(f"{directory} is no directory; name that of the CA (ca.directory)")
    session = Session()
    made = _made(directory, must_be_first=False)
    session.post(AUTHORITIES, {"authority": {"certificate": made.pem}})
    if as_json:
        print_json({"fingerprint": made.fingerprint, "directory": str(directory)})
        return
    name = made.fingerprint[:16]
    click.echo(f"the CA {name} is made and trusted; it does not sign yet. What is left to do:")
    click.echo(f"  copy {directory} to every other API's machine")
    click.echo(
        f"  within the hour agents learn of it; when 'droveway ca show' counts all hosts: droveway ca use {name}"
    )
    click.echo("  when no host has a certificate of the old one: droveway ca retire FINGERPRINT")


def _made(directory: Path, *, must_be_first: bool) -> Any:
    from droveway.pki.authority_files import make_files, read_files
    from droveway.pki.host_files import wall_us

    if must_be_first and read_files(directory):
        raise click.ClickException(f"{directory} holds a CA already; keys that are in use are never made anew")
    return make_files(directory, wall_us())


@ca.command("use", example="droveway ca use 3f5a")
@click.argument("fingerprint")
@AS_JSON
def ca_use(fingerprint: str, as_json: bool) -> None:
    """Let the CA FINGERPRINT sign; its beginning will do. Hosts renew within the hour."""
    made = Session().post(address(AUTHORITIES, fingerprint, "use"))["authority"]
    if as_json:
        print_json(made)
        return
    click.echo(f"the CA {made['fingerprint'][:16]} signs; the one before is still trusted")


@ca.command("retire", example="droveway ca retire 3f5a")
@click.argument("fingerprint")
@click.option("--force", is_flag=True, help="Although certificates of it are in use, which are not accepted then.")
@AS_JSON
def ca_retire(fingerprint: str, force: bool, as_json: bool) -> None:
    """Trust the CA FINGERPRINT no longer."""
    made = Session().post(address(AUTHORITIES, fingerprint, "retire"), {"force": force})["authority"]
    if as_json:
        print_json(made)
        return
    click.echo(f"the CA {made['fingerprint'][:16]} is trusted no longer; its key may be deleted on every API's machine")


@ca.command("issue", example="droveway ca issue nats-1 --address nats-1.example --directory /etc/nats/tls")
@click.argument("name")
@click.option("--address", "addresses", multiple=True, required=True, help="A name or an IP address; may be repeated.")
@click.option("--directory", type=DIRECTORY, required=True, help="Where key.pem, cert.pem, ca.pem, revoked.pem go.")
@AS_JSON
def ca_issue(name: str, addresses: tuple[str, ...], directory: Path, as_json: bool) -> None:
    """A certificate for a service that is no host, such as a broker. Run it again to renew it."""
    from droveway.pki import x509
    from droveway.pki.host_files import write_files

    key = x509.make_key()
    wanted = {"name": name, "addresses": list(addresses), "csr": x509.request(key, name)}
    reply = Session().post(CERTIFICATES, {"certificate": wanted})["certificate"]
    try:
        write_files(
            directory,
            {
                "key.pem": key,
                "cert.pem": reply["certificate"],
                "ca.pem": reply["authorities"],
                "revoked.pem": reply["revoked"],
            },
        )
    except OSError as error:
        raise click.ClickException(f"{error.filename} cannot be written: {error.strerror}") from None
    if as_json:
        print_json({key: reply[key] for key in ("serial", "certificate", "not_after_us")})
        return
    click.echo(
        f"{directory} holds the certificate {reply['serial']} of service {name}, good until "
        f"{when(reply['not_after_us'])}; renew it by the same command"
    )


@ca.command("revoke", example="droveway ca revoke --host h7")
@click.argument("serial", required=False, default="")
@click.option("--host", default="", help="All certificates of that host, in the place of one SERIAL.")
@AS_JSON
def ca_revoke(serial: str, host: str, as_json: bool) -> None:
    """Revoke the certificate SERIAL, or those of a host, whose key may be known to others."""
    if bool(serial) is bool(host):
        raise click.UsageError("name the SERIAL of one certificate, or a host (--host NAME); not both")
    session = Session()
    if host:
        ended = session.post(address(HOSTS, host, "revoke-certificates"))["certificates"]
    else:
        ended = [session.post(address(CERTIFICATES, serial, "revoke"))["certificate"]]
    if as_json:
        print_json(ended if host else ended[0])
        return
    for one in ended:
        click.echo(
            f"the certificate {one['serial']} of {one['kind']} {one['name']} is revoked; APIs refuse it now, libvirt "
            "of other hosts within the hour, a broker when it has read 'droveway ca crl'"
        )
    if host:
        click.echo(
            f"at the broker it is still host {host}: declare it gone (droveway host declare-gone {host} --because WHY) "
            f"and end its token there (droveway nats-revoke {host} --directory DIRECTORY) or delete its user (RabbitMQ)"
        )


@ca.command("crl", example="droveway ca crl --out /etc/rabbitmq/revoked.pem")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file; without it, it is printed.")
@AS_JSON
def ca_crl(out: Path | None, as_json: bool) -> None:
    """What was revoked, as PEM."""
    text = Session().get(REVOKED)["revoked"]
    if as_json:
        print_json({"revoked": text})
    if out is None and as_json:
        return
    if out is None:
        click.echo(text, nl=False)
        return
    from droveway.pki.host_files import write_files

    try:
        write_files(out.parent, {out.name: text}, 0o644)
    except OSError as error:
        raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None


_ALL = click.option("--all", "everything", is_flag=True, help="Those that were replaced, revoked or have ended, too.")
_OF_HOST = click.option("--host", default="", help="Of that host alone.")


@click.command("certificates", cls=Command, example="droveway host certificates --all")
@_ALL
@_OF_HOST
@AS_JSON
def host_certificates(everything: bool, host: str, as_json: bool) -> None:
    """The certificates of hosts, and of services that were given one."""
    _list(everything, host, as_json)


@ca.command("list", example="droveway ca list --host h7 --all")
@_ALL
@_OF_HOST
@AS_JSON
def ca_list(everything: bool, host: str, as_json: bool) -> None:
    """What the CAs have signed, for hosts and services: the newest of each."""
    _list(everything, host, as_json)


def _list(everything: bool, host: str, as_json: bool) -> None:
    found: list[dict[str, Any]] = Session().get(CERTIFICATES)["certificates"]
    if host:
        found = [one for one in found if (one["kind"], one["name"]) == ("host", host)]
    if not everything:
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        for one in found:
            newest.setdefault((one["kind"], one["name"]), one)
        found = list(newest.values())
    if as_json:
        print_json(found)
        return
    write(
        COLUMNS,
        [
            (
                one["name"] if one["kind"] == "host" else f"{one['name']} ({one['kind']})",
                _state(one),
                when(one["not_after_us"]),
                when(one["renewed_from_us"]),
                one["authority"][:16],
                one["serial"],
                ", ".join(one["names"]) or "-",
            )
            for one in found
        ],
    )


def _state(one: dict[str, Any]) -> str:
    because = f": {one['revoked_because'].replace('_', ' ')}" if one["revoked_because"] else ""
    return one_line(one["state"] + because)
