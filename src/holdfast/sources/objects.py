"""Objects in an S3 bucket, whoever serves it; or the same objects as files, where there is none."""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, cast

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    NoScratch,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
    UsageInvalid,
)
from holdfast.model.artifact import Artifact, Known, Tree, TreeItems
from holdfast.model.facts import Discovery, Facts, Inspection, Json, Probe
from holdfast.model.options import Options
from holdfast.model.urls import bucket_and_prefix
from holdfast.ports import Frozen, Role, Source, Staged, Token
from holdfast.s3.xml import Listed

from ._elsewhere import local_path
from ._exclude import excluder
from ._files_staged import FilesStaged
from ._guide import unpacking
from ._objects_bucket import Bucket
from ._objects_disk import DiskStore
from ._objects_entry import Attributes
from ._objects_inspect import inspect_objects
from ._objects_options import ObjectsOptions
from ._objects_plan import Plan
from ._objects_staged import HIDDEN, BucketStaged
from ._objects_store import LOOKING, BucketStore
from ._objects_tally import Tally
from ._places import ROOT
from ._reading import Reading
from ._swap import Swap

SCRATCH = "scratch-"
FORGOTTEN = 86_400  # seconds after which a twin that a crash left is removed
TERMS = {"url", "aside", "exclude", "remove_extra"}  # what holds for a restore until it ends


class ObjectsSource:
    """The objects of one bucket, or of one prefix in it. See `holdfast.ports.Source`.

    Objects are read as they are listed. One that vanishes or is replaced meanwhile is noted, and
    the copy is then not `exact`; each is whole in any case.
    """

    kind: ClassVar[str] = "objects"
    role: ClassVar[Role] = Role.OBJECTS
    options_model: ClassVar[type[Options]] = ObjectsOptions

    def __init__(self, name: str, options: Options) -> None:
        """Touch nothing."""
        if not isinstance(options, ObjectsOptions):
            raise TypeError(f"{type(options).__name__} are not options of objects")
        self.name = name
        self.options = options
        self._just_counted: Facts | None = None  # of staged files, when they were complete

    @property
    def where(self) -> str:
        """Say which bucket at which server, or which folder."""
        store = self._bucket or self._disk
        return store.where

    @property
    def _bucket(self) -> BucketStore | None:
        return None if self.options.url is None else BucketStore(self.name, self.options)

    @property
    def _disk(self) -> DiskStore:
        options = self.options
        folder = options.folder or Path()
        exclude = excluder(options.exclude)
        return DiskStore(self.name, folder, exclude, versions=options.versions)

    def _chosen(self) -> BucketStore | DiskStore:
        """Return the bucket; or the folder, where there is one and no bucket can be reached."""
        bucket = self._bucket
        if bucket is None:
            return self._disk
        if self.options.folder is None:
            return bucket
        try:
            bucket.exists(attempts=LOOKING)
        except (ServerUnreachable, ConnectionLost):
            return self._disk
        return bucket

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find buckets in compose files and ``.env``."""
        from ._objects_find import find

        return find(folder, cls.kind)

    # --- looking ---

    def probe(self) -> Probe:
        """Look whether the bucket can be listed; ``size`` is that of its first objects."""
        try:
            store = self._chosen()
            store.demand()
            size = store.sample()
        except HoldfastError as error:
            return Probe(reachable=False, problems=(str(error),))
        problems: tuple[str, ...] = ()
        if isinstance(store, BucketStore):
            problems = self._problems_aside(store)
        elif self.options.url is not None:
            problems = (f"{self.name}: {self.where} cannot be reached; {store.where} stands in",)
        return Probe(
            reachable=True,
            version=store.software(),
            size=size,
            rights="may list the bucket" if isinstance(store, BucketStore) else "",
            problems=problems,
        )

    def _problems_aside(self, store: BucketStore) -> tuple[str, ...]:
        """Say why no restore could stage; that it may write there is known only by doing so."""
        if self.options.aside is None:
            return ()
        try:
            store.aside.demand()
        except HoldfastError as error:
            return (f"no restore could stage anything: {error}",)
        return ()

    def facts(self) -> Facts:
        """Count the live objects; empty where there is no bucket."""
        counted, self._just_counted = self._just_counted, None
        if counted is not None:
            return counted
        store = self._chosen()
        return self._counted(store) if store.exists() else Facts()

    def _counted(self, store: BucketStore | DiskStore) -> Facts:
        tally = self._tally(store)
        store.count(tally)
        return tally.facts()

    def _tally(self, store: BucketStore | DiskStore) -> Tally:
        details: dict[str, Json] = {"label": store.label}
        if isinstance(store, BucketStore):
            details["versioning"] = store.versioning() or "never"
        return Tally(versions=0 if self.options.versions else None, details=details)

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the keys of objects; ``prefix`` selects those that begin so.

        Raises:
            UsageInvalid: another option was given.

        """
        if unknown := set(options) - {"prefix"}:
            problem = f"{self.name}: objects have no option {min(unknown)}, only prefix"
            raise UsageInvalid(problem=problem)
        prefix = options.get("prefix", "")
        yield (key for key in self._keys() if key.startswith(prefix))

    def _keys(self) -> Iterator[str]:
        return self._chosen().keys()

    def occupants(self) -> Sequence[str]:
        """Name nobody: a server does not say who uses it."""
        return ()

    # --- backing up ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Give the objects as they are while they are read, beginning now.

        Raises:
            SourceMissing: there is no such bucket.
            AccessRefused, ServerUnreachable, ServerFailed: it cannot be listed.

        """
        del workspace, evidence  # a damaged object is one that cannot be read
        store = self._chosen()
        store.demand()
        instant = datetime.now(UTC)
        made_ns = int(instant.timestamp()) * 1_000_000_000
        versioning = store.versioning() if isinstance(store, BucketStore) else ""

        def items(tally: Tally, _known: Known | None) -> TreeItems:
            return store.items(tally, made_ns)

        reading = Reading(items, lambda: self._counted(store), lambda: self._tally(store))
        labels = {"label": store.label, **({"versioning": versioning} if versioning else {})}
        frozen = Frozen(
            artifacts=(Tree(self.name, reading.opened, labels=labels),),
            instant=instant,
            facts=lambda: _judged(frozen, reading),
        )
        try:
            yield frozen
        finally:
            reading.close()

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read the stored tree to its end and count it; nothing is written."""
        del workspace
        return inspect_objects(artifacts, self.name, versions=self.options.versions)

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that unpack the archive, and tell how to upload what is in it."""
        url = self.options.url or "s3://BUCKET"
        lines = [
            "# Each object becomes a file under its key; docs/formats/objects.md tells the rest.",
            'mkdir -p "$TARGET"',
        ]
        lines += map(unpacking, paths.values())
        upload = shlex.quote(url)
        endpoint = f" --endpoint-url {shlex.quote(self.options.endpoint or '')}"
        lines += [
            "# Then bring them to a bucket, with one of these; add --delete to the first, or say",
            "# `sync` in the second, to remove what is not in the backup:",
            f'#   aws s3 sync "$TARGET" {upload}{endpoint if self.options.endpoint else ""}',
            f'#   rclone copy "$TARGET" REMOTE:{shlex.quote(url.partition("://")[2])}',
        ]
        return lines

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> Staged:
        """Return where a restore puts new objects: a hidden prefix, or beside the folder.

        In which bucket that is goes with the token: it may be configured otherwise after a crash.
        """
        store = self._chosen()
        if isinstance(store, BucketStore):
            return BucketStaged(_Live(self, store), tag, workspace)
        return self._on_disk(Swap(self.name, [store.folder], tag))

    def reopen(self, token: Token) -> Staged:
        """Return a staging by its token."""
        if "workspace" not in token:
            return self._on_disk(Swap.reopened(self.name, token))
        terms = cast("dict[str, Json]", token["terms"])
        then = ObjectsOptions.model_validate({**self.options.model_dump(), **terms})
        live = _Live(ObjectsSource(self.name, then), BucketStore(self.name, then))
        return BucketStaged(live, str(token["tag"]), Path(str(token["workspace"])))

    def _on_disk(self, swap: Swap) -> Staged:
        def look(
            places: Mapping[str, Path], _file: str, _notes: Sequence[str], counted: Facts | None
        ) -> Source:
            return self._with(counted, url=None, folder=places[ROOT], aside=None)

        exclude = excluder(self.options.exclude)
        return FilesStaged({ROOT: swap.targets[0]}, swap, exclude, look, whole=True)

    def at(self, folder: Path) -> ObjectsSource:
        """Return a source whose objects are files in ``folder``."""
        return self._with(url=None, folder=folder, aside=None)

    def elsewhere(self, url: str) -> ObjectsSource:
        """Return a source with the same options whose objects are in the bucket or folder ``url``.

        Raises:
            UsageInvalid: it names neither.

        """
        if not url.startswith("s3:"):
            return self.at(local_path(url, self.name))
        try:
            bucket_and_prefix(url)
        except ValueError as error:
            raise UsageInvalid(problem=f"{self.name}: {error}") from error
        return self._with(url=url, folder=None)

    def _with(self, counted: Facts | None = None, **changes: object) -> ObjectsSource:
        other = ObjectsSource(self.name, self.options.model_copy(update=changes))
        other._just_counted = counted
        return other

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[ObjectsSource]:
        """Give a hidden prefix where restores stage, or a folder in the workspace.

        Raises:
            NoScratch: the bucket is not there, cannot be written, or would lose old versions.

        """
        store = self._chosen()
        if isinstance(store, DiskStore):
            yield self.at(workspace / "twin")
            return
        hidden = store.hidden
        prefix = f"{hidden}{SCRATCH}{int(time.time())}-{secrets.token_hex(4)}/"
        with store.aside.open() as bucket:
            try:
                store.aside.demand()  # a server may make a bucket for whoever writes to it
                if self.options.versions and bucket.versioning() != store.versioning():
                    reason = f"{store.aside.where} does not keep versions as {store.where} does"
                    raise NoScratch(component=self.name, reason=reason)
                self._try_out(bucket, prefix)
                _remove_forgotten(bucket, hidden)
            except (AccessRefused, SourceMissing, ServerFailed) as error:
                raise NoScratch(component=self.name, reason=str(error)) from error
            try:
                yield self._with(url=f"s3://{bucket.name}/{prefix}", folder=None, aside=None)
            finally:
                bucket.purge(prefix)

    def _try_out(self, bucket: Bucket, prefix: str) -> None:
        """Write an object and remove it: only so is it known that it may be done."""
        key = f"{prefix}{HIDDEN}"
        bucket.put(key, b"", Attributes())
        bucket.delete([(key, "")])


class _Live:
    """What a staging needs to know; see `_objects_staged.Live`."""

    def __init__(self, source: ObjectsSource, store: BucketStore) -> None:
        self.name = source.name
        self.prefix = store.prefix
        self.concurrency = source.options.concurrency
        self.remove_extra = source.options.remove_extra
        self.hidden = store.hidden
        self.terms: dict[str, Json] = source.options.model_dump(mode="json", include=TERMS)
        self._source = source
        self._store = store

    def bucket(self) -> Bucket:
        """Return the bucket, with connections of its own."""
        return self._store.bucket()

    def aside(self) -> Bucket:
        """Return the bucket where to stage and keep, with connections of its own."""
        return self._store.aside.bucket()

    def there(self, bucket: Bucket) -> Iterator[Listed]:
        """Give what is there."""
        return self._store.there(bucket)

    def planned(self, workspace: Path) -> Source:
        """Return what a plan says as a source."""
        return PlannedObjects(self._source, workspace)


class PlannedObjects(ObjectsSource):
    """The objects that a restore will have made, as its plan says."""

    def __init__(self, source: ObjectsSource, workspace: Path) -> None:
        """Touch nothing."""
        super().__init__(source.name, source.options)
        self._workspace = workspace

    def facts(self) -> Facts:
        """Count what will be there."""
        with Plan(self._workspace) as plan:
            counts, left = plan.counts(), plan.left_versions()
        if not self.options.versions:
            del counts["versions"]
        why = "the bucket keeps none, or has a history of these keys"
        notes = (f"{left} old versions are left in the backup: {why}",) if left else ()
        return Facts(counts, notes=notes)

    def _keys(self) -> Iterator[str]:
        with Plan(self._workspace) as plan:
            yield from plan.keys()


def _judged(frozen: Frozen, reading: Reading[Tally]) -> Facts:
    """Return what was read, and say whether it is the state of one instant."""
    facts = reading.facts()
    frozen.exact = not reading.changed
    return facts


def _remove_forgotten(bucket: Bucket, hidden: str) -> None:
    """Remove the twins of processes that died more than a day ago."""
    old = set()
    for one in bucket.objects(f"{hidden}{SCRATCH}"):
        name = one.key.removeprefix(hidden).partition("/")[0]
        made = name.removeprefix(SCRATCH).partition("-")[0]
        if made.isdecimal() and int(made) < time.time() - FORGOTTEN:
            old.add(name)
    for name in sorted(old):
        bucket.purge(f"{hidden}{name}/")


__all__ = ["ObjectsOptions", "ObjectsSource"]
