"""Real restics, and folders and repositories to try them on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

from holdfast.model.artifact import Entry
from holdfast.ports import Store
from holdfast.sources._survey import Survey
from holdfast.sources._walk import walk
from holdfast.stores.local import LocalStore
from holdfast.vaults.repository import keys, nodes, opening, snapshots, trees
from holdfast.vaults.repository.blobs import Kind
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.write import Writer
from servers.s3 import KEY, SECRET

PEERS = Path(__file__).parent.parent / ".venv" / "peers"
RESTICS = {"0.14": shutil.which("restic") or "restic", "0.18": str(PEERS / "restic")}
PASSWORD = "correct horse"
OWNER = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}  # of repositories in buckets
CHEAP = keys.Cost(1 << 10, 8, 1)
NOW = datetime(2026, 2, 4, 12, 0, 0, 123456, UTC)


def locked_status(version: str) -> int:
    """Return how a restic ends that finds the repository locked: since 0.17 as we do."""
    said = subprocess.run([RESTICS[version], "version"], capture_output=True, text=True, check=True)
    return 11 if tuple(map(int, said.stdout.split()[1].split(".")[:2])) >= (0, 17) else 1


def restic(version: str, repository: Path | str, *arguments: str, status: int = 0) -> str:
    """Run a restic on a repository, and return what it said; it must end with this status."""
    done = subprocess.run(
        [RESTICS[version], "-r", str(repository), "--no-cache", *arguments],
        env=os.environ | {"RESTIC_PASSWORD": PASSWORD} | OWNER,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said


def opened(folder: Path, password: str = PASSWORD) -> Repository:
    """Open a repository in a folder, index and all."""
    return opened_on(LocalStore(folder), str(folder), password)


def opened_on(store: Store, where: str = "repository", password: str = PASSWORD) -> Repository:
    """Open a repository on a store, index and all."""
    repository = opening.open_repository(store, where, password)
    repository.load_index()
    return repository


def made(folder: Path) -> Repository:
    """Make a repository in a folder, whose key costs restic and us nothing."""
    with patch.object(keys, "OURS", CHEAP):
        return opening.init_repository(LocalStore(folder), str(folder), PASSWORD, NOW)


def keep(repository: Repository, folders: Mapping[str, Path]) -> snapshots.Snapshot:
    """Back folders up under their paths, as one snapshot."""
    with Writer(repository) as writer:
        found = {path: grown(writer, path, folder) for path, folder in folders.items()}
        around = nodes.Node("", nodes.FOLDER, 0o755, mtime=1, atime=1, ctime=1)
        tree = trees.assemble(writer.tree, found, around)
        writer.finish()
    paths = ["/" + path for path in folders]
    snapshot = snapshots.new_snapshot(NOW, tree, paths, ["stack:x", "backup:y"], "holdfast test")
    name = snapshots.save_snapshot(repository, snapshot)
    return snapshots.load_snapshot(repository, name)


def put(repository: Repository, kind: Kind, *plain: bytes) -> list[bytes]:
    """Store blobs, listed in the index, even those that are there already."""
    added_to = repository.fresh()
    ids: list[bytes] = []
    with Writer(added_to) as writer:
        for one in plain:
            if kind is Kind.TREE:
                ids.append(writer.tree(one))
            else:
                ids += writer.file(iter((one,)))[0]
        writer.finish()
    repository.load_index()
    return ids


def grown(writer: Writer, path: str, folder: Path) -> nodes.Node:
    """Write one folder as a tree."""
    tree = trees.TreeWriter(writer, origin=len(path), known=_nothing, note=_loud)
    for entry, chunks in walk(folder, component="test", survey=Survey()):
        tree.add(entry, chunks)
    return tree.finish(path.rpartition("/")[2])


def _nothing(_entry: Entry) -> None:
    return None


def _loud(path: str, reason: str) -> None:
    raise AssertionError(f"{path}: {reason}")


def strange_folder(root: Path) -> None:
    """Make a folder with all that a file system has and a backup may get wrong."""
    root.mkdir(parents=True)
    names = [b"plain", b"\xff\xfe", b"new\nline", b"q\"'\\", b"<&>", "ä€😀".encode(), b"\x01\x7f"]
    names += ["e\u0301\u00a0\u2028\u0085".encode(), b"\\xff", b"-rf", b" ", b"x" * 255]
    for number, name in enumerate(names):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + name))
        path.write_bytes(name * number)
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + number * 333_333_333))
    deep = root / "d" / "e" / "f"
    deep.mkdir(parents=True)
    (deep / "big").write_bytes(os.urandom(3 << 20) + bytes(2 << 20) + b"end")
    (root / "empty").touch()
    (root / "empty folder").mkdir()
    os.link(root / "plain", deep / "second name")
    os.link(root / "plain", root / "zz third name")
    (root / "link").symlink_to("d/e/f")
    (root / "dangling").symlink_to("/nowhere/<&>/ä")
    os.mkfifo(root / "pipe")
    os.setxattr(root / "plain", "user.one", b"\0\xff value")
    os.setxattr(root / "d", "user.ü", b"")
    with (root / "sparse").open("wb") as file:
        file.truncate(5 << 20)
        file.seek(1 << 20)
        file.write(b"data" * 3000)
    (root / "before 1970").touch()
    os.utime(root / "before 1970", ns=(0, -1_500_000_001))
    if os.geteuid() == 0:
        os.chown(root / "empty", 12345, 54321)
    (root / "empty").chmod(0o4755)
    (root / "empty folder").chmod(0o3711)
    (root / "d" / "e").chmod(0o500)
    os.utime(root / "d", ns=(0, 123_456_789))


def files_of(folder: Path) -> Iterator[Path]:
    """Give every file below a folder, sorted."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
