"""Key pairs: at each microversion, whose they are, what is a key and what is none; and `openstack keypair`."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from droveway.domain.quota import NO_LIMITS, Quotas
from droveway.store.compute import guest_data, instances, keypairs
from droveway.store.identity import assignments
from tests.api.world import NOVA, World, in_world, make_image, make_server, reason

KEYS = f"{NOVA}/os-keypairs"
OPEN = serialization.PublicFormat.OpenSSH


def line(key: Any = None, comment: str = " me@here") -> str:
    public = (key or ed25519.Ed25519PrivateKey.generate()).public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, OPEN).decode() + comment


async def post(world: World, token: str, version: str = "2.96", **keypair: Any) -> httpx.Response:
    return await world.ask("POST", KEYS, token=token, version=version, json={"keypair": keypair})


async def names(world: World, token: str, query: str = "", version: str = "2.96") -> list[str]:
    reply = await world.ask("GET", KEYS + query, token=token, version=version)
    assert reply.status_code == 200, reply.text
    return [each["keypair"]["name"] for each in reply.json()["keypairs"]]


async def test_the_fields_follow_the_microversion(tmp_path: Path) -> None:
    listed = {"name", "public_key", "fingerprint"}
    shown = {"id", "created_at", "updated_at", "deleted", "deleted_at", "user_id"}
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for minor in (1, 2, 9, 10, 35, 91, 92, 96):
            version, key, type_ = f"2.{minor}", line(), {"type"} if minor >= 2 else set[str]()
            reply = await post(world, alice, version, name=f"k{minor}", public_key=key)
            assert reply.status_code == (201 if minor >= 2 else 200)
            made = reply.json()["keypair"]
            assert set(made) == listed | type_ | {"user_id"} and made["public_key"] == key
            one = (await world.ask("GET", f"{KEYS}/k{minor}", token=alice, version=version)).json()["keypair"]
            assert set(one) == listed | type_ | shown
            assert (one["deleted"], one["deleted_at"], one["updated_at"]) == (False, None, None)
            every = (await world.ask("GET", KEYS, token=alice, version=version)).json()["keypairs"]
            assert every == [{"keypair": {name: one[name] for name in listed | type_}}]
            gone = await world.ask("DELETE", f"{KEYS}/k{minor}", token=alice, version=version)
            assert (gone.status_code, gone.content) == (204 if minor >= 2 else 202, b"")
            again = await world.ask("DELETE", f"{KEYS}/k{minor}", token=alice, version=version)
            assert (again.status_code, f"Keypair k{minor} not found for user" in reason(again)) == (404, True)


def certificate() -> str:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    now = datetime.now(UTC)
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


async def test_fingerprints_are_those_that_ssh_keygen_and_openssl_show(tmp_path: Path) -> None:
    def colons(digits: str) -> str:
        return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))

    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for number, key in enumerate(
            (None, rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1()))
        ):
            text = line(key) + "\n"  # as the file has it
            made = (await post(world, alice, name=f"k{number}", public_key=text, type="ssh")).json()["keypair"]
            blob = base64.b64decode(text.split()[1])
            assert made["fingerprint"] == colons(hashlib.md5(blob, usedforsecurity=False).hexdigest())
            assert made["public_key"] == text
        pem = certificate()
        made = (await post(world, alice, name="windows", public_key=pem, type="x509")).json()["keypair"]
        assert made["fingerprint"] == colons(
            x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA1()).hex()
        )
        assert made["type"] == "x509"


PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("keypair", "version", "words"),
    [
        ({"name": "k", "public_key": "not a key"}, "2.96", "no SSH public key"),
        ({"name": "k", "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"}, "2.96", "no SSH public key"),
        ({"name": "k", "public_key": "ssh-rsa"}, "2.1", "failed to generate fingerprint"),
        ({"name": "k", "public_key": PRIVATE}, "2.96", "one line"),
        ({"name": "k", "public_key": PRIVATE.replace("\n", " ")}, "2.96", "private key"),
        ({"name": "k", "public_key": line() + "\n" + line()}, "2.96", "one line"),
        ({"name": "k", "public_key": line(), "type": "x509"}, "2.96", "no certificate in PEM"),
        ({"name": "k", "public_key": "x" * 20_000}, "2.96", "1 to 16384"),
        ({"name": "k", "public_key": ""}, "2.96", "1 to 16384"),
        ({"name": "k"}, "2.92", "'public_key' is a required property"),
        ({"name": "k", "public_key": None}, "2.92", "is not a text"),
        ({"public_key": line()}, "2.96", "'name' is a required property"),
        ({"name": "", "public_key": line()}, "2.96", "1 to 255"),
        ({"name": "n" * 256, "public_key": line()}, "2.96", "1 to 255"),
        ({"name": " k", "public_key": line()}, "2.96", "begin or end with a space"),
        ({"name": "a@b.c", "public_key": line()}, "2.91", "unsafe characters"),
        ({"name": "ké", "public_key": line()}, "2.96", "unsafe characters"),
        ({"name": "k/1", "public_key": line()}, "2.96", "unsafe characters"),
        ({"name": "k", "public_key": line(), "type": "ssh"}, "2.1", "'type'"),
        ({"name": "k", "public_key": line(), "type": "pgp"}, "2.96", "one of ssh, x509"),
        ({"name": "k", "public_key": line(), "user_id": "u"}, "2.9", "'user_id'"),
    ],
)
async def test_what_is_no_key_pair_is_refused(tmp_path: Path, keypair: Any, version: str, words: str) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        reply = await post(world, alice, version, **keypair)
        assert reply.status_code == 400 and words in reason(reply), reason(reply)
        assert await names(world, alice) == []


async def test_a_pair_is_made_until_2_91_and_its_private_half_is_shown_once(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        made = (await post(world, alice, "2.91", name="made")).json()["keypair"]
        private = serialization.load_pem_private_key(made["private_key"].encode(), None)
        assert isinstance(private, rsa.RSAPrivateKey) and private.key_size == 2048
        assert made["public_key"].startswith(line(private, ""))
        assert "private_key" not in (await world.ask("GET", f"{KEYS}/made", token=alice)).json()["keypair"]
        windows = (await post(world, alice, "2.91", name="w", type="x509", public_key=None)).json()["keypair"]
        there = x509.load_pem_x509_certificate(windows["public_key"].encode())
        key = serialization.load_pem_private_key(windows["private_key"].encode(), None)
        assert there.public_key() == key.public_key()
        assert (await post(world, alice, name="a@b.c", public_key=line())).status_code == 201


async def test_key_pairs_are_of_users_and_administrators_name_another_one(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice, bob, rita = [
            await world.token(name, project) for name, project in (("alice", "red"), ("bob", "blue"), ("rita", "red"))
        ]
        admin = await world.token()
        made = (await post(world, alice, name="k", public_key=line())).json()["keypair"]
        mine = made["user_id"]
        assert (await post(world, bob, name="k", public_key=line())).status_code == 201, "another user's own name"
        assert (await post(world, rita, name="r", public_key=line())).status_code == 201, "a reader has keys too"
        twice = await post(world, alice, name="k", public_key=line())
        assert (twice.status_code, reason(twice)) == (409, "Key pair 'k' already exists.")
        for method, path in (("GET", KEYS), ("GET", f"{KEYS}/k"), ("DELETE", f"{KEYS}/k")):
            reply = await world.ask(method, f"{path}?user_id={mine}", token=bob, version="2.96")
            assert (reply.status_code, "role admin" in reason(reply)) == (403, True)
        assert (await post(world, bob, name="x", public_key=line(), user_id=mine)).status_code == 403
        assert (await post(world, admin, name="given", public_key=line(), user_id=mine)).status_code == 201
        assert (await post(world, admin, name="x", public_key=line(), user_id="nobody")).status_code == 400
        assert await names(world, admin) == [] and await names(world, admin, f"?user_id={mine}") == ["given", "k"]
        assert await names(world, admin, f"?user_id={mine}", "2.9") == [], "not known there"
        shown = await world.ask("GET", f"{KEYS}/given?user_id={mine}", token=admin, version="2.10")
        assert shown.json()["keypair"]["user_id"] == mine
        gone = await world.ask("DELETE", f"{KEYS}/given?user_id={mine}", token=admin, version="2.10")
        assert gone.status_code == 204 and await names(world, alice) == ["k"]

        def end(tx: Any) -> int:
            assignments.remove_user(tx, mine)
            return len(keypairs.find(tx, mine, limit=9))

        assert await world.store.run(end) == 0, "with its user"


async def test_pages_since_2_35(tmp_path: Path) -> None:
    async with in_world(tmp_path) as world:
        alice = await world.token("alice", "red")
        for name in ("c", "a", "b"):
            await post(world, alice, name=name, public_key=line())
        assert await names(world, alice) == ["a", "b", "c"]
        page = (await world.ask("GET", f"{KEYS}?limit=2", token=alice, version="2.35")).json()
        assert [each["keypair"]["name"] for each in page["keypairs"]] == ["a", "b"]
        assert page["keypairs_links"][0]["href"].endswith("/os-keypairs?limit=2&marker=b")
        assert await names(world, alice, "?limit=2&marker=b", "2.35") == ["c"]
        assert await names(world, alice, "?limit=1", "2.34") == ["a", "b", "c"]
        wrong = await world.ask("GET", f"{KEYS}?marker=z", token=alice, version="2.35")
        assert (wrong.status_code, reason(wrong)) == (400, "marker [z] not found")


async def test_the_quota_is_that_of_a_user(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=Quotas(key_pairs=1)) as world:
        alice, rita = await world.token("alice", "red"), await world.token("rita", "red")
        assert (await post(world, alice, name="k", public_key=line())).status_code == 201
        over = await post(world, alice, name="l", public_key=line())
        assert (over.status_code, "Quota exceeded, too many key pairs" in reason(over)) == (403, True)
        assert (await post(world, rita, name="k", public_key=line())).status_code == 201


async def test_a_server_keeps_a_copy_of_the_key_that_it_was_made_with(tmp_path: Path) -> None:
    async with in_world(tmp_path, quotas=NO_LIMITS) as world:
        alice, rita = await world.token("alice", "red"), await world.token("rita", "red")
        image, key = await make_image(world, alice), line()
        await post(world, alice, name="k", public_key=key)
        server = await make_server(world, alice, image, key_name="k")
        body = {"server": {"name": "g", "imageRef": image, "flavorRef": "tiny", "networks": "none", "key_name": "z"}}
        reply = await world.ask("POST", f"{NOVA}/servers", token=alice, version="2.96", json=body)
        assert (reply.status_code, "Invalid key_name provided" in reason(reply)) == (400, True)
        body["server"]["key_name"] = "k"
        reply = await world.ask("POST", f"{NOVA}/servers", token=rita, version="2.96", json=body)
        assert reply.status_code == 403, "a reader makes no servers"
        await world.ask("DELETE", f"{KEYS}/k", token=alice)
        await post(world, alice, name="k", public_key=line())
        shown = (await world.ask("GET", f"{NOVA}/servers/{server}", token=alice)).json()["server"]
        assert shown["key_name"] == "k"
        facts = await world.store.read(lambda tx: guest_data.facts(tx, instances.get(tx, server)))
        assert facts.key is not None and facts.key.public_key == key
