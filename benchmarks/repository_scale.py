"""A repository's index at millions of blobs, and what a bucket is asked: `python -m …`.

    python -m benchmarks.repository_scale            # some minutes, and 0.5 GB of disk for a while
    python -m benchmarks.repository_scale --small    # seconds

Index files are written as a backup writes them, sealed, and then loaded by a process of its own, as
every command that reads or adds does. Requests are counted in a store that is far away by its
looks, and in memory. `docs/formats/repository.md` quotes the results.
"""

from __future__ import annotations

import os
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from holdfast.model.manifest import Manifest
from holdfast.stores.local import LocalStore
from holdfast.testing._trips import read_artifact
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.testing.memory import MemoryObjects
from holdfast.testing.vault_contract import keep, samples
from holdfast.vaults.repository import locks
from holdfast.vaults.repository.blobs import Kind, Located
from holdfast.vaults.repository.index import BLOBS_PER_FILE, encode
from holdfast.vaults.repository.opening import init_repository, open_repository
from holdfast.vaults.repository.options import RepositoryOptions
from holdfast.vaults.repository.packs import Pack
from holdfast.vaults.repository.repository import INDEX, Repository
from holdfast.vaults.repository.vault import RepositoryVault
from holdfast.verbs.select import list_backups

PASSWORD = "scale"  # noqa: S105 - it protects nothing
NOW = datetime(2026, 2, 4, 12, tzinfo=UTC)
LOOKUPS = 20_000


@dataclass(frozen=True, slots=True)
class Shape:
    """A repository: how many blobs, how large each is, and how many are in a pack."""

    name: str
    blobs: int
    size: int
    in_pack: int


SHAPES = (
    Shape("1 TB of large files", 1_000_000, 1 << 20, 14),
    Shape("10 TB of large files", 10_000_000, 1 << 20, 14),
    Shape("10 million files of 10 KB", 10_000_000, 10_000, 1600),
)
BACKUPS = (1, 100, 1000)


# --- the index -----------------------------------------------------------------------------------


def write_index(folder: Path, shape: Shape) -> None:
    """Make a repository that has nothing but its index."""
    repository = init_repository(LocalStore(folder), "scale", PASSWORD, NOW)
    waiting: list[Pack] = []
    for _pack in range(shape.blobs // shape.in_pack):
        waiting.append(_pack_of(shape))
        if len(waiting) * shape.in_pack >= BLOBS_PER_FILE:
            repository.save(INDEX, encode(waiting))
            waiting.clear()
    repository.save(INDEX, encode(waiting))


def _pack_of(shape: Shape) -> Pack:
    ids, offset, blobs = secrets.token_bytes(32 * shape.in_pack), 0, []
    for at in range(0, len(ids), 32):
        size = shape.size + ids[at] * shape.size // 512  # all of different lengths
        length = size * 2 // 3
        blobs.append(Located(Kind.DATA, ids[at : at + 32], offset, length, size, compressed=True))
        offset += length
    return Pack(secrets.token_bytes(32), blobs)


def load_index(folder: Path) -> str:
    """Load the index in this process, and say what that took."""
    repository = open_repository(LocalStore(folder), "scale", PASSWORD)
    memory, began, since = _memory(), time.process_time(), time.monotonic()
    repository.load_index()
    took, waited = time.process_time() - began, time.monotonic() - since
    size = sum(size for _name, size in repository.store.sizes(INDEX))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    blobs = len(repository.index)
    return (
        f"{blobs} blobs, {size / 1e6:.0f} MB of index files: {peak / 1e6:.0f} MB of memory "
        f"({(_memory() - memory) / blobs:.0f} bytes a blob), {took:.1f} s of processor time, "
        f"{waited:.1f} s; found in {_lookup(repository):.1f} microseconds"
    )


def _lookup(repository: Repository) -> float:
    """Return the microseconds that it takes to find a blob, half of which are there."""
    every = (row[0] for row in repository.index.rows(Kind.DATA))
    ids = list(islice(every, 0, None, max(1, len(repository.index) // LOOKUPS)))
    ids += [secrets.token_bytes(32) for _number in range(LOOKUPS)]
    secrets.SystemRandom().shuffle(ids)
    began = time.process_time()
    for id_ in ids:
        repository.index.has(Kind.DATA, id_)
    return (time.process_time() - began) / len(ids) * 1e6


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- requests ------------------------------------------------------------------------------------


def requests(backups: int) -> Iterator[str]:
    """Count what each verb asks of a bucket with so many backups."""
    locks.LATE = 0.0  # nothing is late here
    store = MemoryObjects()
    _vault(store).init()
    vault = _vault(store)
    for day in range(backups):
        _keep(vault, day, 0)
    newest = max(
        (one for one in vault.manifests() if isinstance(one, Manifest)),
        key=lambda one: one.created_at,
    )
    verbs: Sequence[tuple[str, Callable[[RepositoryVault], object]]] = (
        ("list, the first time", _list),
        ("list", _list),
        ("backup, nothing changed", lambda vault: _keep(vault, backups, 0)),
        ("backup, 80 MB of new content", lambda vault: _keep(vault, backups + 1, 80)),
        ("prune, a plan", lambda vault: vault.prune(dry_run=True)),
        ("prune, a plan again", lambda vault: vault.prune(dry_run=True)),
        ("restore", lambda vault: _restore(vault, newest)),
    )
    with tempfile.TemporaryDirectory() as copies:
        os.environ["XDG_CACHE_HOME"] = copies
        for name, verb in verbs:
            calls = Calls()
            verb(_vault(FaultyStore(store, calls)))
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(calls.counts.items()))
            yield f"{backups} backups, {name}: {calls.total} ({kinds})"


def _vault(store: MemoryObjects | FaultyStore) -> RepositoryVault:
    return RepositoryVault("scale", store, RepositoryOptions(url=Path("/none"), password=PASSWORD))


def _keep(vault: RepositoryVault, day: int, megabytes: int) -> None:
    new = {f"new{number}": secrets.token_bytes(1 << 20) for number in range(megabytes)}
    keep(vault, NOW + timedelta(days=day), samples(b"the same", {"file": b"the same", **new}))


def _list(vault: RepositoryVault) -> None:
    list_backups(vault, "stack")


def _restore(vault: RepositoryVault, manifest: Manifest) -> None:
    for stored in manifest.artifacts:
        read_artifact(vault.artifact(manifest, stored))


# --- all -----------------------------------------------------------------------------------------


def report(*, small: bool) -> Iterator[str]:
    """Give the lines of the result."""
    for shape in SHAPES:
        blobs = shape.blobs // 100 if small else shape.blobs
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "repository"
            write_index(place, Shape(shape.name, blobs, shape.size, shape.in_pack))
            arguments = [sys.executable, "-m", "benchmarks.repository_scale", str(place)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=True)
        yield f"{shape.name}: {done.stdout.strip()}"
    for backups in BACKUPS[: 2 if small else None]:
        yield from requests(backups)


def main() -> None:
    """Print the result; given a folder, that of loading the index there."""
    arguments = sys.argv[1:]
    if arguments and arguments != ["--small"]:
        print(load_index(Path(arguments[0])))
        return
    for line in report(small=bool(arguments)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
