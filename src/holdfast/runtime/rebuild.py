"""`holdfast catalog rebuild`: the catalog made anew from the vaults' manifests.

A catalog that is whole is completed in place. A damaged one is copied aside as it is; what can be
read of its runs and of the audit trail goes into the new one, and the manifests tell the rest. The
new catalog takes the old one's place in one step, which a crash does not lose.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CatalogUnusable
from ..model.facts import Json
from ..model.manifest import Manifest
from ..model.names import timestamp
from ..ports import Clock
from .audit import AuditTrail
from .catalog import Catalog
from .database import FILE_NAME, REBUILT, Database, put_in_place
from .files import lock_file, private_folder, sync_folder, writing
from .rows import run_of, run_values, step_of, step_values

_UNFINISHED = "catalog.new.db"
_LOOKUPS = 10_000  # entries to look for one by one behind a damaged page


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild found. ``aside`` is the folder with the damaged catalog, if it was."""

    runs: int  # added from manifests
    backups: int
    salvaged_runs: int = 0
    salvaged_entries: int = 0  # of the audit trail
    problem: str = ""
    aside: Path | None = None


def rebuild(folder: Path, clock: Clock, manifests: Mapping[str, Iterable[Manifest]]) -> Rebuilt:
    """Rebuild the catalog of a state folder from the manifests of each vault, by its name.

    It writes an entry of its own into the audit trail; if entries were lost, the trail tells so
    from then on. No catalog of this folder may be open in this process.
    """
    private_folder(folder)
    with lock_file(folder / "rebuild.lock"):
        put_in_place(folder / FILE_NAME)
        problem = _problem(folder, clock)
        result = _anew(folder, clock, problem) if problem else Rebuilt(0, 0)
        return _complete(folder, clock, manifests, result)


def _problem(folder: Path, clock: Clock) -> str:
    """Read the whole catalog; returns why it cannot be used, or nothing."""
    try:
        with Catalog(folder, clock) as catalog:
            catalog.backups()
            for run in catalog.runs(limit=-1):
                catalog.steps(run.id)
            return "; ".join(catalog.database.problems())
    except CatalogUnusable as error:
        return str(error.fields["reason"])


def _complete(
    folder: Path, clock: Clock, manifests: Mapping[str, Iterable[Manifest]], result: Rebuilt
) -> Rebuilt:
    runs = backups = 0
    with Catalog(folder, clock) as catalog:
        for vault, of_vault in manifests.items():
            known = list(of_vault)
            catalog.remember(vault, known)
            with catalog.database.transaction():
                runs += sum(catalog.adopt(vault, manifest) for manifest in known)
            backups += len(known)
        result = Rebuilt(
            runs,
            backups,
            result.salvaged_runs,
            result.salvaged_entries,
            result.problem,
            result.aside,
        )
        details: dict[str, Json] = {**asdict(result), "aside": str(result.aside or "")}
        AuditTrail(catalog.database, clock).append("catalog rebuild", "", "completed", details)
    return result


def _anew(folder: Path, clock: Clock, problem: str) -> Rebuilt:
    """Put a new catalog in the place of a damaged one, with whatever can be read of that."""
    aside = _keep_aside(folder, clock)
    new = folder / _UNFINISHED
    _remove(new)
    with closing(Database(new)) as database:
        with (
            closing(_open_damaged(aside / FILE_NAME)) as damaged,
            database.transaction(durable=True),
        ):
            entries = _salvage_audit(damaged, database)
            runs = _salvage_runs(damaged, database)
        database.fold()
    with writing(new):
        new.replace(folder / REBUILT)
        sync_folder(folder)
    put_in_place(folder / FILE_NAME)
    return Rebuilt(0, 0, runs, entries, problem, aside)


def _keep_aside(folder: Path, clock: Clock) -> Path:
    """Copy the damaged catalog with its log into a folder of its own, durably."""
    stem = f"catalog.damaged-{timestamp(clock.now())}"
    aside, number = folder / stem, 1
    while aside.exists():
        number += 1
        aside = folder / f"{stem}-{number}"
    private_folder(aside)
    for name in (FILE_NAME, FILE_NAME + "-wal"):
        if (folder / name).exists():
            with (
                writing(aside / name),
                (folder / name).open("rb") as old,
                (aside / name).open("xb") as new,
            ):
                shutil.copyfileobj(old, new)
                new.flush()
                os.fsync(new.fileno())
    with writing(aside):
        sync_folder(aside)
    return aside


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _open_damaged(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None
    )
    connection.row_factory = sqlite3.Row
    return connection


def _salvage_audit(damaged: sqlite3.Connection, database: Database) -> int:
    """Copy every entry that can be read, as it is: the chain tells later what is missing."""
    return sum(_kept(database, "insert_audit", row) for row in _readable(damaged, "audit"))


def _salvage_runs(damaged: sqlite3.Connection, database: Database) -> int:
    count = 0
    for row in _readable(damaged, "runs"):
        try:
            run = run_of(row)
        except (ValueError, TypeError, KeyError):
            continue  # rotten: the damaged catalog, kept aside, still has it
        if _kept(database, "insert_run", dict(run_values(run))):
            count += 1
            for values in _readable_steps(damaged, run.id):
                _kept(database, "put_step", values)
    return count


def _readable_steps(damaged: sqlite3.Connection, run: str) -> list[dict[str, Any]]:
    try:
        rows = damaged.execute(
            "SELECT * FROM steps WHERE run = ? ORDER BY number", (run,)
        ).fetchall()
        return [dict(step_values(run, step_of(dict(row)))) for row in rows]
    except (sqlite3.DatabaseError, ValueError, TypeError, KeyError):
        return []  # a run without its steps is still worth having


def _kept(database: Database, statement: str, values: Mapping[str, Any]) -> bool:
    """Insert one salvaged row; tells whether the new catalog took it."""
    try:
        return bool(database.change(statement, values))
    except CatalogUnusable:
        return False  # it breaks a constraint: rotten, and still there in the copy kept aside


def _readable(damaged: sqlite3.Connection, table: str) -> Iterator[dict[str, Any]]:
    """Give every row of a table with numbered rows that can be read, in order.

    From the front until a damaged page, from the back until one, and one by one in between.
    """
    seen = -1
    try:
        for row in damaged.execute(f"SELECT * FROM {table} ORDER BY number"):  # noqa: S608 - our own
            yield dict(row)
            seen = row["number"]
    except sqlite3.DatabaseError:
        tail = _from_the_back(damaged, table, seen)
        last = tail[-1]["number"] if tail else seen + _LOOKUPS
        for number in range(seen + 1, last):
            yield from _one(damaged, table, number)
        yield from reversed(tail)


def _from_the_back(damaged: sqlite3.Connection, table: str, after: int) -> list[dict[str, Any]]:
    rows = []
    query = f"SELECT * FROM {table} WHERE number > ? ORDER BY number DESC"  # noqa: S608 - our own
    try:
        for row in damaged.execute(query, (after,)):
            rows.append(dict(row))  # noqa: PERF401 - what was read before an error counts
    except sqlite3.DatabaseError:
        return rows
    return rows


def _one(damaged: sqlite3.Connection, table: str, number: int) -> list[dict[str, Any]]:
    query = f"SELECT * FROM {table} WHERE number = ?"  # noqa: S608 - our own
    try:
        return [dict(row) for row in damaged.execute(query, (number,))]
    except sqlite3.DatabaseError:
        return []
