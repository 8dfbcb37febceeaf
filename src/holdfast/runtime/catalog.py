"""The catalog: what ran, when and how it ended, and a copy of what the vaults hold.

It is a cache, made so that it may be lost: the manifests in the vaults stay the truth, journals and
leases lie beside it, and `rebuild` makes a new one. Only the audit trail has no second home.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, Self

from .. import __version__
from ..errors import BackupDamaged, BackupTooNew, CatalogUnusable, HoldfastError, UnknownName
from ..model.facts import Json
from ..model.manifest import Manifest, decode
from ..model.runs import DIED, Process, Run, RunState, Step, new_run_id
from ..ports import Clock
from .database import FILE_NAME, Database
from .processes import ended, this_process
from .rows import backup_values, run_of, run_values, step_of, step_values


class Runs(Protocol):
    """Where runs are recorded: a `Catalog`, or `NoCatalog` where a verb must go on without one."""

    def begin(
        self, verb: str, stack: str, *, plan: str = "", backup: str = "", vault: str = ""
    ) -> Run:
        """Record that a run is wanted; it is pending, and has its id."""

    def save(self, run: Run) -> None:
        """Record how a run is now: state, backup, vault, figures, error and end."""

    def put_steps(self, run: str, steps: Iterable[Step]) -> None:
        """Record steps of a run, new ones and changed ones."""

    def bury(self, run: str) -> None:
        """Record that a run died, as far as it is not known to have ended."""


class Catalog:
    """The catalog of a state folder, open. Usable from several threads; close it, or use ``with``.

    Opening it marks runs as failed whose processes have died. Every method may raise
    `CatalogUnusable`; what is already recorded stays.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        """Open the catalog in the state folder, making both where needed.

        Raises:
            CatalogUnusable: it is damaged, unreadable, or of a later version.
            StateUnwritable: the folder does not let us.

        """
        self.folder = folder
        self.database = Database(folder / FILE_NAME)
        self._clock = clock
        try:
            self._bury_dead()
        except BaseException:
            self.database.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file go. May be called twice."""
        self.database.close()

    # --- runs ---

    def begin(
        self, verb: str, stack: str, *, plan: str = "", backup: str = "", vault: str = ""
    ) -> Run:
        """Record that a run is wanted; it is pending, and has its id."""
        run = replace(
            new_run(self._clock.now(), verb, stack), plan=plan, backup=backup, vault=vault
        )
        with self.database.transaction():
            while not self.database.change("insert_run", run_values(run)):
                run = replace(run, id=new_run_id(run.started_at))
        return run

    def save(self, run: Run) -> None:
        """Record how a run is now: state, backup, vault, figures, error and end."""
        with self.database.transaction():
            self._save(run)

    def bury(self, run: str) -> None:
        """Record that a run died, as far as it is not known to have ended."""
        with self.database.transaction():
            for row in self.database.rows("run", {"id": run}):
                found = self._run(row)
                if found.state.open:
                    self._save(died(found, self._clock.now()))

    def run(self, run_id: str) -> Run:
        """Return one run by its id, or by a beginning of it that no other id has.

        Raises:
            UnknownName: there is none, or more than one.

        """
        rows = self.database.rows("run", {"id": run_id}) or self.database.rows(
            "runs_like", {"prefix": run_id}
        )
        if len(rows) != 1:
            known = ", ".join(run.id for run in self.runs(limit=5)) or "none"
            raise UnknownName(what="run", name=run_id, known=known)
        return self._run(rows[0])

    def runs(
        self,
        *,
        stack: str | None = None,
        verb: str | None = None,
        state: RunState | None = None,
        limit: int = 50,
    ) -> list[Run]:
        """Return the newest runs, newest first."""
        values = {"stack": stack, "verb": verb, "state": state, "limit": limit}
        return [self._run(row) for row in self.database.rows("runs", values)]

    def put_steps(self, run: str, steps: Iterable[Step]) -> None:
        """Record steps of a run, new ones and changed ones."""
        with self.database.transaction():
            for step in steps:
                self.database.change("put_step", step_values(run, step))

    def steps(self, run: str) -> list[Step]:
        """Return the steps of a run in the order they began."""
        rows = self.database.rows("steps", {"run": run})
        with self._understood():
            return [step_of(row) for row in rows]

    def _run(self, row: Mapping[str, Any]) -> Run:
        with self._understood():
            return run_of(row)

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """Translate what a row raises that SQLite could read and we cannot: it is rotten."""
        try:
            yield
        except (ValueError, TypeError, KeyError, BackupDamaged, BackupTooNew) as error:
            reason = f"a row is damaged: {error}"
            raise CatalogUnusable(path=self.database.path, reason=reason) from error

    def _save(self, run: Run) -> None:
        values = run_values(run)
        self.database.change("update_run", values)
        if not run.state.open:
            still = {"run": run.id, "state": RunState.FAILED, "ended_at": values["ended_at"]}
            self.database.change("end_open_steps", still)

    def _bury_dead(self) -> None:
        for row in self.database.rows("open_runs"):
            run = self._run(row)
            if ended(run.process):
                self.bury(run.id)

    # --- backups ---

    def remember(self, vault: str, manifests: Iterable[Manifest]) -> None:
        """Replace what is known of a vault by these manifests, at once."""
        rows = [backup_values(vault, manifest) for manifest in manifests]
        with self.database.transaction():
            self.database.change("forget_vault", {"vault": vault})
            for values in rows:
                self.database.change("put_backup", values)

    def note(self, vault: str, manifest: Manifest) -> None:
        """Record one more backup of a vault."""
        with self.database.transaction():
            self.database.change("put_backup", backup_values(vault, manifest))

    def forget(self, vault: str, backup: str) -> None:
        """Record that a vault does not hold a backup any more."""
        with self.database.transaction():
            self.database.change("forget_backup", {"vault": vault, "id": backup})

    def count_backups(self, vault: str, stack: str) -> int:
        """Return how many backups of a stack were made in a vault, as far as is known."""
        rows = self.database.rows("count_backups", {"vault": vault, "stack": stack})
        return int(rows[0]["count"])

    def backups(
        self, *, vault: str | None = None, stack: str | None = None
    ) -> list[tuple[str, Manifest]]:
        """Return the backups known, with the vault of each, oldest first within a vault.

        This is what the vaults held when last asked, not what they hold now.
        """
        rows = self.database.rows("backups", {"vault": vault, "stack": stack})
        with self._understood():
            found = [(row["vault"], decode(row["manifest"], row["id"])) for row in rows]
        return sorted(found, key=_in_order)

    def adopt(self, vault: str, manifest: Manifest) -> bool:
        """Record the run that a manifest tells of, unless it is known; tells whether it was not."""
        known = self.database.rows("backup_is_known", {"backup": manifest.id, "vault": vault})
        return not known and bool(
            self.database.change("insert_run", run_values(_told(vault, manifest)))
        )


def _in_order(found: tuple[str, Manifest]) -> tuple[str, int, datetime, str]:
    vault, manifest = found
    return vault, manifest.sequence, manifest.created_at, manifest.id


class NoCatalog:
    """Records nothing: for verbs that must work on the day the catalog is lost."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def begin(
        self, verb: str, stack: str, *, plan: str = "", backup: str = "", vault: str = ""
    ) -> Run:
        """Return a run with its id, that nobody will find later."""
        return replace(
            new_run(self._clock.now(), verb, stack), plan=plan, backup=backup, vault=vault
        )

    def save(self, run: Run) -> None:
        """Record nothing."""

    def put_steps(self, run: str, steps: Iterable[Step]) -> None:
        """Record nothing."""

    def bury(self, run: str) -> None:
        """Record nothing."""


def new_run(now: datetime, verb: str, stack: str) -> Run:
    """Return a pending run of this process, with an id of its own."""
    process = this_process()
    return Run(new_run_id(now), verb, stack, RunState.PENDING, now, process, __version__)


def finished(
    run: Run,
    now: datetime,
    state: RunState = RunState.COMPLETED,
    error: HoldfastError | None = None,
) -> Run:
    """Return the run as it ended, with the error that ended it."""
    code, text = (error.code, str(error)) if error else ("", "")
    return replace(run, state=state, ended_at=now, error_code=code, error_text=text)


def died(run: Run, now: datetime) -> Run:
    """Return the run as one that died; ``now`` is when that was found out."""
    text = f"process {run.process.pid} on {run.process.host} ended without a word"
    return replace(run, state=RunState.FAILED, ended_at=now, error_code=DIED, error_text=text)


def _told(vault: str, manifest: Manifest) -> Run:
    """Return the run that made a backup, as far as its manifest tells."""
    instant = manifest.created_at
    figures: dict[str, Json] = {"from": "manifest", "bytes": manifest.size}
    return Run(
        id=new_run_id(instant),
        verb="backup",
        stack=manifest.stack,
        state=RunState.COMPLETED,
        started_at=instant,
        ended_at=instant,
        process=Process(manifest.host, "", "", -1, -1),
        holdfast=manifest.holdfast,
        plan=manifest.plan,
        backup=manifest.id,
        vault=vault,
        partial=manifest.status.value == "partial",
        figures=figures,
    )
