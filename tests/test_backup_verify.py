"""`droveway backup verify`: of the store that a host's configuration names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from click.testing import CliRunner

from droveway.domain.volume import manifest as form
from droveway.domain.volume.manifest import Manifest, ManifestHead
from droveway.drivers.backups.directory import DirectoryBackups
from droveway.main import droveway

B1, B2, V1 = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2, 3))


def test_what_is_damaged_is_named_and_ends_with_1(tmp_path: Path) -> None:
    root = tmp_path / "backups"
    root.mkdir()
    config = tmp_path / "droveway.toml"
    config.write_text(
        f'state_path = "{tmp_path}"\n[backup]\npath = "{root}"\n[[host]]\nname = "h1"\nhypervisor = "simulated"\n'
    )

    async def fill() -> None:
        objects = DirectoryBackups(root)
        for backup_id, data in ((B1, b"one"), (B2, b"two")):
            digest = form.digest_of(data)
            await objects.put(form.chunk_name(digest), form.pack(data))
            head = ManifestHead(backup_id, V1, 1 << 30)
            await objects.put(form.manifest_name(backup_id), form.encode(Manifest(head, {0: digest})))
        await objects.close()

    asyncio.run(fill())

    def verify(*words: str) -> tuple[int, str]:
        ended = CliRunner().invoke(droveway, ["backup", "verify", "--config", str(config), *words])
        return ended.exit_code, ended.output

    assert verify() == (0, f"backup {B1}: 1 chunks, all as stored\nbackup {B2}: 1 chunks, all as stored\n")
    next(root.glob(f"chunks/*/{form.digest_of(b'two').hex()}")).write_bytes(form.pack(b"twp"))
    code, output = verify("--backup", B2, "--json")
    (sentence,) = json.loads(output)[B2]["damage"]
    assert code == 1 and "is damaged: its bytes are others than were stored" in sentence and V1 in sentence
    assert verify("--backup", B1)[0] == 0
