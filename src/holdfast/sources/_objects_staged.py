"""Restoring into a bucket that others use: new objects beside live ones, then server-side copies.

A bucket has no switch. So what a restore changes is staged under a hidden prefix of its own,
``.holdfast/<tag>/``, in the same bucket or in another one, and before anything live is overwritten
or removed, its old content is copied there too, by the server itself. Copies, not old versions, are
the way back: most buckets keep none, and those that do may let them expire. What is done when is
written down first (`_objects_plan`):

=============  ==========================================================  ====================
state          what is done in it                                          the way back
=============  ==========================================================  ====================
``filling``    objects that differ are uploaded to ``new/``                remove the prefix
``keeping``    what will be replaced is copied to ``replaced/``            remove the prefix
``switching``  staged objects are copied to their keys, extra ones go      copy what was kept
``switched``   nothing more                                                copy what was kept
=============  ==========================================================  ====================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, Self

from holdfast.errors import SourceMissing, TargetInUse, TargetUnfit
from holdfast.model.artifact import Artifact, Tree
from holdfast.model.facts import Json
from holdfast.ports import Source, Token
from holdfast.s3.xml import Listed

from ._objects_ahead import Work, ahead
from ._objects_bucket import Bucket
from ._objects_entry import Attributes
from ._objects_fill import ROOM, Filler
from ._objects_plan import Plan, State, Step

HIDDEN = ".holdfast"  # the part of a key that belongs to no backup
LONGEST_KEY = 1024  # bytes
KEPT = "kept"  # the object that says what the prefix of a restore is kept for


class Live(Protocol):
    """What a staging needs to know of the live objects."""

    name: str

    def bucket(self) -> Bucket: ...

    @property
    def prefix(self) -> str: ...

    def aside(self) -> Bucket:
        """Return the bucket where to stage and keep; it may be the same one."""

    @property
    def hidden(self) -> str:
        """What keys begin with there, if they belong to restores of these live objects."""

    @property
    def concurrency(self) -> int: ...

    @property
    def remove_extra(self) -> bool: ...

    @property
    def terms(self) -> dict[str, Json]:
        """What a restore must not see changed before its end, however it is configured by then."""

    def there(self, bucket: Bucket) -> Iterable[Listed]:
        """Give what is there and belongs to backups, with keys without the prefix."""

    def planned(self, workspace: Path) -> Source:
        """Return what a plan says as a source."""


@dataclass(slots=True)
class _Session:
    """The live bucket, the one aside, which may be the same, and threads: for one step."""

    live: Bucket
    aside: Bucket
    threads: ThreadPoolExecutor

    def all(self, works: Iterable[Work[None]]) -> None:
        """Do all of it, many at once; raises what one of them raises."""
        with closing(ahead(self.threads, works, ROOM)) as results:
            for done in results:
                done.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        clients = (self.live.client, self.aside.client)
        if kind is not None:
            for client in clients:
                client.abandon()
        self.threads.shutdown(cancel_futures=True)
        for client in clients:
            client.close()


class BucketStaged:
    """See `holdfast.ports.Staged`."""

    def __init__(self, live: Live, tag: str, workspace: Path) -> None:
        """Touch nothing."""
        self.token: Token = {"tag": tag, "workspace": str(workspace), "terms": live.terms}
        self._live = live
        self._tag = tag
        self._workspace = workspace
        self._prefix = live.prefix
        self._staging = f"{live.hidden}{tag}/"

    @property
    def view(self) -> Source:
        """What will be there, as a source to be counted and asked for its keys."""
        return self._live.planned(self._workspace)

    # --- filling ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Upload what the bucket lacks, to where restores stage. A missing live bucket is made.

        Raises:
            TargetUnfit: there is no bucket to stage in; nothing was touched.
            TargetUnfit, TreeUnsafe: the backup does not hold one tree of objects.
            AccessRefused, ServerFailed, …: the bucket cannot be written.

        """
        tree = self._only(artifacts)
        with self._session() as session, self._begun(session) as plan:
            live = session.live
            if plan.fact("made"):
                live.create()
                if tree.labels.get("versioning") == "Enabled":
                    live.enable_versioning()
            session.aside.purge(self._staging)
            plan.write_list("filled", self._live.there(live))
            keeps = live.versioning() == "Enabled"
            if keeps:
                plan.remember(self._histories(live))
            with plan.changing():
                Filler(
                    live,
                    self._prefix,
                    session.aside,
                    self._staging,
                    self._live.name,
                    self._live.concurrency,
                    plan,
                    keeps_versions=keeps,
                ).fill(tree)
                plan.state = State.FILLED

    def _only(self, artifacts: Sequence[Artifact]) -> Tree:
        if len(artifacts) == 1 and isinstance(artifacts[0], Tree):
            return artifacts[0]
        reason = "the backup does not hold one tree of objects"
        raise TargetUnfit(component=self._live.name, path=self._prefix, reason=reason)

    def _begun(self, session: _Session) -> Plan:
        live, aside = session.live, session.aside
        made = "" if live.exists() else "yes"
        if aside is not live and not aside.exists():
            # We do not make it: who may see it, and how it is encrypted, is not ours to choose.
            reason = f"there is no bucket {aside.name}, which `aside` names: make it first"
            raise TargetUnfit(component=self._live.name, path=live.client.where, reason=reason)
        return Plan.begin(self._workspace, {"state": State.FILLING, "made": made})

    def _histories(self, bucket: Bucket) -> Iterable[str]:
        hidden = self._prefix + HIDDEN
        return (
            one.key.removeprefix(self._prefix)
            for one in bucket.versions(self._prefix)
            if not one.key.startswith(hidden)
        )

    # --- switching ---

    def activate(self) -> None:
        """Keep what will be replaced, then copy and remove; doing it again does nothing.

        Raises:
            TargetInUse: an object that needed no restoring was changed since; nothing live was
                touched.

        """
        with self._session() as session, self._plan() as plan:
            if plan.state is State.SWITCHED:
                return
            if plan.state in {State.FILLED, State.KEEPING}:
                plan.write_list("before", self._live.there(session.live))
                self._demand_calm(plan)
                plan.state = State.KEEPING
                session.all(
                    Work(partial(self._keep, session, step), 0)
                    for step in plan.replaced(remove_extra=self._live.remove_extra)
                )
                plan.state = State.SWITCHING
            self._switch(session, plan)
            plan.state = State.SWITCHED

    def _demand_calm(self, plan: Plan) -> None:
        if key := plan.disturbed():
            where = f"{self._prefix}{key}"
            users = "a program that changed it during the restore"
            raise TargetInUse(component=self._live.name, path=where, users=users)

    def _switch(self, session: _Session, plan: Plan) -> None:
        session.all(
            Work(
                partial(self._replay, session, key, plan.versions_of(key), plan.current_of(key)), 0
            )
            for key in plan.replayed()
        )
        session.all(Work(partial(self._restore, session, step), 0) for step in plan.restored())
        if self._live.remove_extra:
            session.live.delete((self._prefix + key, "") for key in plan.extra())

    def _keep(self, session: _Session, step: Step) -> None:
        live, key = session.live, self._prefix + step.key
        live.copy(key, session.aside, self._kept(step), step.size, etag=step.etag)

    def _restore(self, session: _Session, step: Step) -> None:
        self._copy_back(session, f"{self._staging}new/{step.number}", step)

    def _copy_back(self, session: _Session, staged: str, step: Step) -> None:
        session.aside.copy(staged, session.live, self._prefix + step.key, step.size)

    def _replay(
        self, session: _Session, key: str, versions: Sequence[Step], current: Step | None
    ) -> None:
        """Give a key that has nothing its old versions, one after the other, and then its own."""
        for step in versions:
            if step.deleted:
                session.live.delete([(self._prefix + key, "")])
            else:
                self._copy_back(session, f"{self._staging}versions/{step.number}", step)
        if current is not None:
            self._restore(session, current)

    def _kept(self, step: Step) -> str:
        """Return where a replaced object is kept: under its own key, where that is not too long."""
        place = f"{self._staging}replaced/{step.key}"
        if len(place.encode("utf-8", "surrogateescape")) <= LONGEST_KEY:
            return place
        return f"{self._staging}replaced-long/{step.number}"

    # --- ending ---

    def revert(self) -> None:
        """Put back what was replaced and take away what was added; then nothing of ours is left.

        Raises:
            SourceMissing: the live bucket, or what was kept of it, is gone; nothing was removed.

        """
        with self._session() as session:
            made = False
            if Plan.exists(self._workspace):
                with self._plan() as plan:
                    made = bool(plan.fact("made"))
                    gone = made and not session.live.exists()  # as a revert that was killed left it
                    if plan.state in {State.SWITCHING, State.SWITCHED} and not gone:
                        self._put_back(session, plan)
                    plan.state = State.REVERTED
            if session.aside.exists():
                session.aside.purge(self._staging)
            if made:
                session.live.remove_if_empty()

    def _put_back(self, session: _Session, plan: Plan) -> None:
        live, aside = session.live, session.aside
        if not aside.exists():
            raise SourceMissing(component=self._live.name, path=aside.client.where)
        plan.write_list("now", self._live.there(live))
        session.all(
            Work(partial(self._copy_back, session, self._kept(step), step), 0)
            for step in plan.to_put_back(remove_extra=self._live.remove_extra)
        )
        live.delete((self._prefix + key, "") for key in plan.to_take_away())
        for key in plan.replayed():
            whole = self._prefix + key
            found = [one for one in live.versions(whole) if one.key == whole]
            live.delete((one.key, one.version) for one in found)

    def settle(self, attic: Path | None) -> str | None:
        """Remove what was staged; what was replaced too, or with an attic keep it where it is.

        It then stays under the restore's own prefix until the next restore that keeps something.
        """
        with self._session() as session:
            bucket = session.aside
            if attic is None:
                bucket.purge(self._staging)
                return None
            if not self._mark_kept(bucket):
                bucket.purge(self._staging)
                return None
            bucket.purge(f"{self._staging}new/")
            bucket.purge(f"{self._staging}versions/")
            beside = f"{self._prefix}{HIDDEN}/"  # where it was kept before `aside` was configured
            for place in {(bucket, self._live.hidden), (session.live, beside)}:
                self._forget_earlier(*place)
            return f"s3://{bucket.name}/{self._staging}replaced/"

    def _mark_kept(self, bucket: Bucket) -> bool:
        """Say in the bucket what the prefix is, if anything was replaced."""
        mark = self._staging + KEPT
        if bucket.head(mark) is not None:
            return True
        if not Plan.exists(self._workspace):
            return False
        with self._plan() as plan:
            plan.state = State.SETTLED
            steps = plan.replaced(remove_extra=self._live.remove_extra)
            if next(steps, None) is None:
                return False
        note = {
            "what": "objects that a restore by Holdfast replaced, under replaced/",
            "component": self._live.name,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        attributes = Attributes({"content-type": "application/json"})
        bucket.put(mark, json.dumps(note).encode(), attributes)
        return True

    def _forget_earlier(self, bucket: Bucket, hidden: str) -> None:
        """Remove what earlier restores kept; never a restore's that is still to be recovered."""
        for one in list(bucket.objects(hidden)):
            tag, _slash, name = one.key.removeprefix(hidden).partition("/")
            if name == KEPT and tag != self._tag:
                bucket.purge(f"{hidden}{tag}/")

    # --- asking ---

    def _plan(self) -> Plan:
        return Plan(self._workspace)

    def _session(self) -> _Session:
        live, aside = self._live.bucket(), self._live.aside()
        if aside.name == live.name:
            aside = live  # and one set of connections
        return _Session(live, aside, ThreadPoolExecutor(self._live.concurrency, "objects"))
