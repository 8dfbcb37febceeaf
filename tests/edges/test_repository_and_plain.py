"""One backup to a repository and to a plain vault, from one read: right and whole in both."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.edges.command_line import Brain
from tests.edges.test_bytes_once import counted
from tests.tree_world import picture

SIZE = 4 << 20
VAULTS = """\
  local: {kind: plain, url: backups}
  offsite: {kind: repository, url: repository, password: first}
"""


@pytest.fixture
def both(brain: Brain) -> Brain:
    """The stack with many files, backed up once to both vaults."""
    text = brain.config.read_text().replace("  local: {kind: plain, url: backups}\n", VAULTS)
    brain.config.write_text(text)
    brain.ok("vault", "init", "offsite")
    deep = brain.uploads / "deep" / "er"
    deep.mkdir(parents=True)
    for number in range(20):
        (deep / f"{number:02}").write_bytes(os.urandom(SIZE // 20))
    (brain.uploads / "link").symlink_to("deep/er/00")
    os.link(deep / "01", brain.uploads / "second name")
    with (brain.uploads / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"in the middle")
    brain.ok("backup")
    return brain


def edit(brain: Brain) -> None:
    """Change, remove, add and rename a few of many files, and rows."""
    deep = brain.uploads / "deep" / "er"
    (deep / "03").write_bytes(os.urandom(SIZE // 20))
    before = (deep / "04").stat()
    (deep / "04").write_bytes(os.urandom(SIZE // 20))
    os.utime(deep / "04", ns=(before.st_atime_ns, before.st_mtime_ns))
    (deep / "05").unlink()
    (deep / "06").rename(brain.uploads / "moved")
    (deep / "07").chmod(0o600)
    (brain.uploads / "new").write_bytes(b"new")
    brain.sql("DELETE FROM episodes WHERE id = 3")


def packed(brain: Brain) -> int:
    packs = (brain.folder / "repository" / "data").rglob("*")
    return sum(path.stat().st_size for path in packs if path.is_file())


def restored(brain: Brain, vault: str) -> Path:
    out = brain.folder / f"from-{vault}"
    brain.ok("restore", "latest", "--vault", vault, "--target", str(out))
    return out


def test_both_have_all_of_what_was_read_once(both: Brain) -> None:
    edit(both)
    before, live = packed(both), picture(both.uploads)
    with counted() as counts:
        report = both.ok("backup", "--json").json
    assert set(report["vaults"]) == {"local", "offsite"}
    assert counts["rchar"] < 2 * SIZE, "files were read once for both"
    assert packed(both) - before < SIZE // 2, "what is known is not stored again"
    for vault in ("local", "offsite"):
        both.ok("verify", "latest", "--vault", vault)
        out = restored(both, vault)
        assert picture(out / "uploads") == live, vault
        with closing(sqlite3.connect(out / "projects" / "projects.db")) as database:
            assert database.execute("SELECT id FROM episodes").fetchall() == [(1,), (2,)]
    manifests = [
        both.ok("show", "latest", "--vault", vault, "--json").json for vault in ("local", "offsite")
    ]
    assert manifests[0]["components"] == manifests[1]["components"], "facts and instants are one"
    assert both.ok("vault", "check", "offsite", "--json").json["sound"]


def test_the_other_goes_on_when_one_is_lost(both: Brain) -> None:
    """And the repository alone then compares with the newest that it has, and reads little."""
    edit(both)
    config = both.config.read_text()
    both.config.write_text(config.replace("url: backups", "url: /proc/nowhere"))
    alone = both.run("backup", "--json")
    assert alone.status == 3
    both.config.write_text(config)
    with counted() as counts:
        both.ok("backup", "--vault", "offsite")
    assert counts["rchar"] < SIZE, "nothing changed since the one in the repository"
    live = picture(both.uploads)
    assert picture(restored(both, "offsite") / "uploads") == live
    both.ok("backup")
    assert picture(restored(both, "local") / "uploads") == live
