"""A small stack to crash: two databases (one with a log beside it), a tree of files, services."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.crash_world import Commands, World, copy_world, picture

CONFIG = """\
stack: brain
components:
  projects: {source: sqlite, path: data/projects.db}
  settings: {source: sqlite, path: data/settings.db}
  uploads: {source: files, path: data/uploads}
vaults:
  local: {kind: plain, url: backups}
plans:
  nightly: {keep: {last: 1}}
"""
SERVICES = """\
services:
  stop: [sh, -c, "echo stop >> services.log"]
  start: [sh, -c, "echo start >> services.log"]
"""


VECTORS = "  vectors: {source: chroma, path: data/vectors}\n"
ADD_VECTORS = """
import chromadb, sys
from chromadb.config import Settings
settings = Settings(anonymized_telemetry=False)
client = chromadb.PersistentClient(path=sys.argv[1], settings=settings)
collection = client.get_or_create_collection("episodes", embedding_function=None)
names = [f"{sys.argv[2]} {number}" for number in range(50)]
collection.add(ids=names, embeddings=[[float(len(name)), 1.0, 2.0] for name in names])
print("ready", flush=True)
sys.stdin.read()
"""


def make_stack(folder: Path, *, services: bool = False, vectors: bool = False) -> None:
    """Write configuration and data; what the data is can be told from `change`."""
    (folder / "data").mkdir(parents=True)
    config = CONFIG.replace("vaults:", VECTORS + "vaults:") if vectors else CONFIG
    (folder / "holdfast.yaml").write_text(config + (SERVICES if services else ""))
    change(folder, "old")
    if vectors:
        add_vectors(folder, "old")


def add_vectors(folder: Path, generation: str) -> None:
    """Add to the vector store by Chroma itself, in a process of its own."""
    command = [sys.executable, "-c", ADD_VECTORS, str(folder / "data" / "vectors"), generation]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)


def change(folder: Path, generation: str) -> None:
    """Make every component differ from what it was; ``projects`` keeps a log beside it."""
    write_database(folder / "data" / "projects.db", generation, logged=True)
    write_database(folder / "data" / "settings.db", generation, logged=False)
    uploads = folder / "data" / "uploads"
    shutil.rmtree(uploads, ignore_errors=True)
    (uploads / "deep" / generation).mkdir(parents=True)
    (uploads / "a.txt").write_text(generation)
    (uploads / "deep" / generation / "b.bin").write_bytes(generation.encode() * 5000)
    (uploads / "link").symlink_to("a.txt")


def write_database(path: Path, generation: str, *, logged: bool) -> None:
    """Write a database whose rows tell its generation; with ``logged`` some are only in its log."""
    path.unlink(missing_ok=True)
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    making = path.with_name(path.name + ".making")
    connection = sqlite3.connect(making, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {'WAL' if logged else 'DELETE'}")
    connection.execute("CREATE TABLE episodes (id INTEGER PRIMARY KEY, text TEXT)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    rows = [(f"{generation} {number}",) for number in range(len(generation) * 20)]
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO episodes (text) VALUES (?)", rows)
    connection.execute("COMMIT")
    # Copied while it is open: closing would fold the log in.
    shutil.copyfile(making, path)
    log = making.with_name(making.name + "-wal")
    if log.exists():
        shutil.copyfile(log, path.with_name(path.name + "-wal"))
    connection.close()
    making.unlink()


def strays(world: World) -> list[str]:
    """Return what lies in vault and state that belongs to no backup and to no record."""
    vault = world.folder / "backups"
    own = [p for p in sorted(vault.glob(".holdfast/*")) if p.name not in {"marks", "marks.lock"}]
    found = [str(path) for path in own if path.is_file() or any(path.iterdir())]
    found += [str(p) for p in vault.rglob(".incoming-*")]
    state = world.folder / ".holdfast"
    found += [str(p) for p in state.rglob("*.new")]
    found += [str(p) for p in state.glob("leases/*.held")]
    found += [str(p) for p in state.glob("scratch/*")]
    found += [str(p) for p in state.glob("staging/*")]
    return found


def sealed(world: World) -> dict[str, dict[str, str]]:
    """Return a picture of each backup's folder, by its id."""
    folders = (world.folder / "backups").glob("*backup_*")
    return {folder.name: picture(folder) for folder in folders}


class Scenes:
    """Copies of one prepared world, always at the same place, since journals hold whole paths."""

    def __init__(
        self,
        commands: Commands,
        folder: Path,
        *,
        services: bool = False,
        vectors: bool = False,
    ) -> None:
        self.original = folder / "original"
        self.world = World(folder / "world", commands)
        make_stack(self.world.folder, services=services, vectors=vectors)

    def keep(self) -> None:
        """Remember the world as it is now."""
        copy_world(self.world.folder, self.original)

    def again(self) -> World:
        """Put the world back to what was remembered."""
        copy_world(self.original, self.world.folder)
        return self.world
