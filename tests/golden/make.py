"""Make the golden vaults of this format, once: `python -m tests.golden.make FOLDER`.

What is committed here must stay readable for ever, so a folder that exists is never made anew. A
later format gets a folder of its own beside the old ones.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from holdfast.model.manifest import Component, Manifest, Status
from holdfast.model.marks import Level, Marks, Proof
from holdfast.ports import Source
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.sources.sqlite import SqliteOptions, SqliteSource
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import silent
from holdfast.vaults.plain import PlainOptions, PlainVault
from holdfast.verbs.guide import restore_guide

INSTANT = datetime(2026, 2, 4, 12, 0, 0, tzinfo=UTC)
PROOF = Proof(Level.NATIVE, INSTANT, passed=True)
VAULTS = {
    "boxed": ("{backup_id}/{artifact}", "tar.zst"),
    "flat": ("{component}/{stem}_{timestamp}{suffix}", "tar.gz"),
}


def make_stores(folder: Path) -> None:
    """Fill a database and a folder with something of every kind."""
    with closing(sqlite3.connect(folder / "projects.db")) as connection:
        connection.execute("PRAGMA page_size = 512")
        connection.execute("CREATE TABLE projects (id INTEGER PRIMARY KEY, name TEXT, data BLOB)")
        rows = [(1, "first", b"\x00\xff"), (2, "zweites ü", None), (3, "셋째", b"")]
        connection.executemany("INSERT INTO projects VALUES (?, ?, ?)", rows)
        connection.commit()
    uploads = folder / "uploads"
    (uploads / "2026" / "empty folder").mkdir(parents=True)
    (uploads / "2026" / "note.md").write_text("a note\n")
    (uploads / "2026" / "run.sh").write_text("#!/bin/sh\n")
    (uploads / "2026" / "run.sh").chmod(0o750)
    (uploads / "ü\nnewline").write_bytes(bytes(range(256)))
    (uploads / "link").symlink_to("2026/note.md")
    os.link(uploads / "2026" / "note.md", uploads / "same note.md")
    with (uploads / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    for path in sorted(uploads.rglob("*")):
        os.utime(path, ns=(1, 1_770_206_400_123_456_789), follow_symlinks=False)


def sources_in(folder: Path) -> list[Source]:
    """Return the sources of the stores in a folder."""
    return [
        SqliteSource("projects", SqliteOptions(path=folder / "projects.db")),
        FilesSource("uploads", FilesOptions(path=folder / "uploads")),
    ]


def vault_in(folder: Path, layout: str) -> PlainVault:
    """Return the vault in a folder."""
    return PlainVault("golden", LocalStore(folder), PlainOptions(url=folder, layout=layout))


def back_up(vault: PlainVault, sources: list[Source], archive: str) -> Manifest:
    """Back up as the verb does, but at a fixed instant and without a host's name."""
    backup_id = vault.backup_id("brain", INSTANT)
    with vault.draft(backup_id, INSTANT, archive) as draft:
        components, artifacts = [], []
        for source in sources:
            workspace = draft.workspace / source.name
            workspace.mkdir()
            with source.freeze(workspace) as frozen:
                artifacts += [draft.put(source.name, a, silent) for a in frozen.artifacts]
                facts = frozen.facts()
            record = Component(source.name, source.kind, "completed", INSTANT, facts=facts)
            components.append(replace(record, version=frozen.version))
        manifest = Manifest(
            id=backup_id,
            stack="brain",
            created_at=INSTANT,
            sequence=vault.next_sequence(),
            status=Status.COMPLETED,
            components=tuple(components),
            artifacts=tuple(artifacts),
            holdfast="0.1.0",
            description="golden",
        )
        draft.seal(manifest, restore_guide(manifest, sources, draft))
    return manifest


def main(target: Path) -> None:
    """Make both vaults, and write down what they must give for ever."""
    target.mkdir()
    with tempfile.TemporaryDirectory() as stores:
        make_stores(Path(stores))
        sources = sources_in(Path(stores))
        expected = {}
        for name, (layout, archive) in VAULTS.items():
            vault = vault_in(target / name, layout)
            manifest = back_up(vault, sources, archive)
            vault.mark(manifest.id, lambda _marks: Marks(pinned="golden", proofs=(PROOF,)))
            expected[name] = {
                "id": manifest.id,
                "facts": {c.name: dict(c.facts.counts) for c in manifest.components},
                "sha256": {s.path: s.sha256 for s in manifest.artifacts},
            }
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
