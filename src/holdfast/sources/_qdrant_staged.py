"""New collections beside the live ones, until they take their places.

Qdrant cannot rename a collection. What is staged lies under names of its own and is counted and
tried there. The switch then has three steps:

1. Of each live collection that is replaced a snapshot is taken and brought into the workspace. Up
   to here nothing live was touched.
2. All aliases move to the staged collections, in one step: whoever speaks by alias has the new
   content from here on.
3. Each live collection is recovered from the backup under its own name. It goes on answering from
   its old content until Qdrant has checked and unpacked the upload, and refuses to answer for as
   long as its shards are loaded. Then the aliases move back to it, again in one step.

Each step is written down in the workspace before it is taken (`State`), so that `revert` in another
process knows which collections may have been touched, and puts back exactly those.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from holdfast.errors import HoldfastError, NoSpace, TargetUnfit
from holdfast.model.artifact import CHUNK, Artifact, Chunks, Stream
from holdfast.ports import Source, Token

from ._qdrant_api import Qdrant, creating_alias, deleting_alias
from ._qdrant_backup import (
    SHA256,
    NotOursError,
    Stored,
    points_of,
    problems_of,
    snapshot_name,
    stored,
)
from ._qdrant_count import Contents
from ._qdrant_facts import LONGEST_NAME, Names, shape_of
from ._qdrant_merge import SHARDS, merged
from ._qdrant_reading import Open, Tally
from ._qdrant_state import State
from ._qdrant_taking import swept, taken
from ._qdrant_tar import NotATarError
from ._swap import FULL

AGREEING = 0.1  # seconds between two looks at the nodes of a cluster
SAMPLE = 32  # points of a staged collection that are looked at closely


class Live(Protocol):
    """What a staging needs to know of the live store."""

    name: str

    @property
    def where(self) -> str: ...

    @property
    def names(self) -> Names: ...

    @property
    def limit(self) -> float: ...

    def nodes(self) -> AbstractContextManager[list[Qdrant]]: ...


class QdrantStaged:
    """See `holdfast.ports.Staged`."""

    def __init__(
        self, live: Live, tag: str, workspace: Path, look: Callable[[Names], Source]
    ) -> None:
        """``look`` makes a source of collections of other names on the same server."""
        self.token: Token = {"tag": tag, "workspace": str(workspace)}
        self._live = live
        self._names = live.names
        self._beside = live.names.beside(tag)
        self._file = f"holdfast-{tag}.snapshot"  # what our uploads are called on the server
        self._workspace = workspace
        self._look = look
        self._backup = Stored({}, {})

    @property
    def view(self) -> Source:
        """The staged collections as a source to be counted and queried."""
        return self._look(self._beside)

    # --- staging ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Upload each snapshot under a name of its own, count it there and try a sample of it.

        Raises:
            TargetUnfit: this is no backup of Qdrant, or its names are taken by something else.
            ServerFailed: the server refused a snapshot, or has not recovered what is in it.
            HoldfastError: what reading the artifacts raises.

        """
        try:
            self._backup = stored(artifacts)
        except NotOursError as error:
            raise self._unfit(str(error)) from error
        with self._live.nodes() as nodes, self._foreseen():
            qdrant = nodes[0]
            self._refuse_conflicts(qdrant)
            state = State()
            for name, snapshots in self._backup.snapshots.items():
                state.staged.append(name)
                state.save(self._workspace)
                there = self._beside.there(name)
                contents = self._upload_counted(nodes, there, snapshots)
                self._check(qdrant, name, there, contents)

    def _refuse_conflicts(self, qdrant: Qdrant) -> None:
        """Refuse what could not be switched, before anything is uploaded."""
        names, aliases = set(qdrant.names()), qdrant.aliases()
        for name in self._backup.snapshots:
            if len(self._beside.there(name).encode()) > LONGEST_NAME:
                raise self._unfit(f"the name {name} is too long to stage something beside it")
            if self._names.there(name) in aliases:
                raise self._unfit(f"{name} is an alias there, but a collection in the backup")
        for alias in self._backup.aliases:
            if self._names.there(alias) in names:
                raise self._unfit(f"{alias} is a collection there, but an alias in the backup")

    def _upload_counted(
        self, nodes: Sequence[Qdrant], there: str, snapshots: Sequence[Stream]
    ) -> Contents:
        """Upload a snapshot and return what went by."""
        tally = Tally(self._workspace)

        @contextmanager
        def opened() -> Iterator[Chunks]:
            with merged(snapshots)() as chunks, closing(tally.over(chunks)) as counted:
                yield counted

        try:
            self._upload(nodes, there, opened, _sum_of(snapshots))
        except NotATarError as error:
            raise self._unfit(f"{snapshots[0].name}: {error}") from error
        contents = tally.contents or Contents(problems=("it was not read to its end",))
        if problems := problems_of([contents]):
            raise self._unfit(f"{snapshots[0].name}: {'; '.join(problems)}")
        return contents

    def _upload(
        self,
        nodes: Sequence[Qdrant],
        there: str,
        open_: Open,
        sha256: str,
        before_end: Callable[[], None] = lambda: None,
    ) -> None:
        """Recover a collection on every node, each of which takes the shards that are its own.

        ``before_end`` is called when all bytes are sent, but the server does not know it yet.
        Nothing of the upload stays on a server that can be reached.
        """
        for qdrant in nodes:
            try:
                with open_() as chunks:
                    sent = _followed(chunks, before_end)
                    alone = len(nodes) == 1
                    qdrant.upload(there, sent, file=self._file, sha256=sha256, alone=alone)
            except BaseException:
                with suppress(HoldfastError):  # `revert` tries again
                    qdrant.delete_snapshot(there, self._file)
                raise
            qdrant.delete_snapshot(there, self._file)
        if len(nodes) > 1:
            self._await_all_shards(nodes, there)

    def _await_all_shards(self, nodes: Sequence[Qdrant], there: str) -> None:
        """Wait until the nodes of a cluster agree that every shard may be asked."""
        ends = time.monotonic() + self._live.limit
        while not all(_all_active(node.cluster(there)) for node in nodes):
            if time.monotonic() > ends:
                raise nodes[0].server.failed(f"{there} has shards that do not become active")
            time.sleep(AGREEING)

    def _check(self, qdrant: Qdrant, name: str, there: str, contents: Contents) -> None:
        """Refuse a staged collection that is not what went into it."""
        described = qdrant.collection(there)
        if described is None:
            raise qdrant.server.failed(f"{name} was uploaded and is not there")
        params = described["config"]["params"]
        wanted = contents.config["params"]
        for what in ("vectors", "sparse_vectors"):
            if (params.get(what) or {}) != (wanted.get(what) or {}):
                raise qdrant.server.failed(f"{name} has other {what} than its snapshot")
        count = qdrant.count(there)
        expected = points_of([contents])
        if not contents.undecided and count != expected:
            raise qdrant.server.failed(f"{name} has {count} points of {expected} in its snapshot")
        self._try_sample(qdrant, name, there, params)

    def _try_sample(self, qdrant: Qdrant, name: str, there: str, params: Mapping[str, Any]) -> None:
        """Read vectors of some points, and search for one of them."""
        points = next(qdrant.pages(there, {"limit": SAMPLE, "with_vector": True}), [])
        tried = set()
        for point in points:
            vectors = point.get("vector") or {}
            named = vectors if isinstance(vectors, dict) else {"": vectors}
            for using, vector in named.items():
                if not _fits(vector, _dimension(params, using)):
                    raise qdrant.server.failed(f"{name}: point {point['id']} has a broken vector")
                if using not in tried and not qdrant.nearest(there, using, vector):
                    raise qdrant.server.failed(f"{name}: a search among its vectors finds nothing")
                tried.add(using)

    # --- the switch ---

    def activate(self) -> None:
        """Switch, in the steps that this module begins with.

        Raises:
            NoSpace: the live content does not fit into the workspace; nothing was touched.
            ServerFailed: a collection does not have all its points after the switch.

        """
        state = State.load(self._workspace) or State()
        with self._live.nodes() as nodes, self._foreseen():
            qdrant = nodes[0]
            self._keep(nodes, state)
            state.bridged = True
            state.save(self._workspace)
            qdrant.change_aliases(self._pointing(state, self._beside))
            for name, snapshots in self._backup.snapshots.items():
                there = self._names.there(name)
                begin = partial(self._begin, state, name)
                self._make_way(qdrant, there, self._beside.there(name), begin)
                self._upload(nodes, there, merged(snapshots), _sum_of(snapshots), begin)
            qdrant.change_aliases(self._pointing(state, self._names))
            for name in self._backup.snapshots:
                self._compare(qdrant, name)

    def _keep(self, nodes: Sequence[Qdrant], state: State) -> None:
        """Bring what is live into the workspace, and note what the aliases stand for."""
        qdrant = nodes[0]
        live = set(qdrant.names())
        for name in self._backup.snapshots:
            there = self._names.there(name)
            if there not in live:
                continue
            state.existed[name] = [
                self._keep_one(node, there, self._kept(name, number))
                for number, node in enumerate(nodes)
            ]
            state.shapes[name] = shape_of(qdrant.collection(there) or {})
        targets = {self._names.there(name) for name in self._backup.snapshots}
        now = qdrant.aliases()
        wanted = [self._names.there(alias) for alias in self._backup.aliases]
        moved = [alias for alias, meant in now.items() if meant in targets]
        state.aliases = {alias: now.get(alias) for alias in {*wanted, *moved}}

    def _keep_one(self, qdrant: Qdrant, there: str, path: Path) -> tuple[str, str]:
        digest = hashlib.sha256()
        with taken(qdrant, there, limit=self._live.limit) as snapshot:
            if snapshot is None:
                raise self._unfit(f"{there} went away")
            with snapshot.open() as chunks, path.open("wb", buffering=0) as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                os.fsync(file.fileno())
        return digest.hexdigest(), snapshot.shards

    def _pointing(self, state: State, names: Names) -> list[dict[str, Any]]:
        """Return the actions that make every alias stand for the new content, under these names."""
        back = {self._names.there(name): name for name in self._backup.snapshots}
        meant = {self._names.there(alias): name for alias, name in self._backup.aliases.items()}
        for alias, target in state.aliases.items():
            if target in back:
                meant.setdefault(alias, back[target])
        return [creating_alias(alias, names.there(name)) for alias, name in sorted(meant.items())]

    def _begin(self, state: State, name: str) -> None:
        """Note that from now on a live collection may not be what it was.

        Qdrant touches it when an upload is complete. One that breaks off before leaves nothing to
        be put back, and whoever reads from the collection notices nothing.
        """
        if name not in state.switched:
            state.switched.append(name)
            state.save(self._workspace)

    def _make_way(self, qdrant: Qdrant, there: str, beside: str, begin: Callable[[], None]) -> None:
        """Delete a live collection that is configured otherwise: it could not be recovered into."""
        live, staged = qdrant.collection(there), qdrant.collection(beside)
        if live is not None and shape_of(live) != shape_of(staged or {}):
            begin()
            qdrant.delete(there)

    def _compare(self, qdrant: Qdrant, name: str) -> None:
        found = qdrant.count(self._names.there(name))
        expected = qdrant.count(self._beside.there(name))
        if found != expected:
            raise qdrant.server.failed(f"{name} has {found} points of {expected} after the switch")

    # --- the way back ---

    def revert(self) -> None:
        """Put back what was live, then remove what is staged; doing it again does nothing."""
        state = State.load(self._workspace)
        if state is None:
            return
        with self._live.nodes() as nodes, self._foreseen():
            qdrant = nodes[0]
            for name in state.switched:
                self._put_back(nodes, name, state)
            if state.bridged:
                qdrant.change_aliases(_as_before(state))
            self._remove_staged(nodes, state)
            for node in nodes:
                swept(node)
            self._forget(state)

    def _put_back(self, nodes: Sequence[Qdrant], name: str, state: State) -> None:
        there = self._names.there(name)
        if name not in state.existed:
            self._purge(nodes, there)
            return
        for qdrant in nodes:
            qdrant.delete_snapshot(there, self._file)
        live = nodes[0].collection(there)
        if live is not None and shape_of(live) != state.shapes[name]:
            nodes[0].delete(there)
        kept = [
            _kept_stream(self._kept(name, number), sha256, shards)
            for number, (sha256, shards) in enumerate(state.existed[name])
        ]
        self._upload(nodes, there, merged(kept), _sum_of(kept))

    # --- the end ---

    def settle(self, attic: Path | None) -> str | None:
        """Remove what is staged, and move the snapshots of what was live into the attic."""
        state = State.load(self._workspace)
        if state is None:
            return None
        with self._live.nodes() as nodes, self._foreseen():
            self._remove_staged(nodes, state)
            for node in nodes:
                swept(node)
            if attic is not None and state.existed:
                attic.mkdir(parents=True, exist_ok=True, mode=0o700)
                for path in self._all_kept(state):
                    _move(path, attic / path.name)
            self._forget(state)
        return str(attic) if attic is not None and state.existed else None

    def _remove_staged(self, nodes: Sequence[Qdrant], state: State) -> None:
        for name in state.staged:
            self._purge(nodes, self._beside.there(name))

    def _purge(self, nodes: Sequence[Qdrant], there: str) -> None:
        for qdrant in nodes:
            qdrant.purge(there, self._file)

    def _forget(self, state: State) -> None:
        State.remove(self._workspace)
        for path in self._all_kept(state):
            path.unlink(missing_ok=True)

    # --- files and errors ---

    def _kept(self, name: str, node: int) -> Path:
        """Return where the snapshot of a live collection lies until it is settled."""
        return self._workspace / snapshot_name(name, node, 1 + node)

    def _all_kept(self, state: State) -> list[Path]:
        return [
            self._kept(name, number)
            for name, each in state.existed.items()
            for number in range(len(each))
        ]

    def _unfit(self, reason: str) -> TargetUnfit:
        return TargetUnfit(component=self._live.name, path=self._live.where, reason=reason)

    @contextmanager
    def _foreseen(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=self._workspace) from error
            raise self._unfit(f"{self._workspace}: {error.strerror or error}") from error


def _followed(chunks: Chunks, then: Callable[[], None]) -> Chunks:
    yield from chunks
    then()


def _as_before(state: State) -> list[dict[str, Any]]:
    return [
        deleting_alias(alias) if meant is None else creating_alias(alias, meant)
        for alias, meant in sorted(state.aliases.items())
    ]


def _all_active(cluster: Mapping[str, Any]) -> bool:
    shards = [*cluster["local_shards"], *cluster["remote_shards"]]
    moving = cluster.get("shard_transfers") or []
    return not moving and all(shard["state"] == "Active" for shard in shards)


def _dimension(params: Mapping[str, Any], using: str) -> int:
    vectors = params.get("vectors") or {}
    one = vectors if not using else vectors.get(using, {})
    return int(one.get("size", 0))


def _fits(vector: Any, dimension: int) -> bool:
    """Tell whether a vector, a multivector or a sparse one is whole."""
    if isinstance(vector, dict):
        return len(vector["indices"]) == len(vector["values"])
    rows = vector if vector and isinstance(vector[0], list) else [vector]
    return all(len(row) == dimension and all(map(math.isfinite, row)) for row in rows)


def _sum_of(snapshots: Sequence[Stream]) -> str:
    """Return the checksum of what is uploaded; of several strung together it is not known."""
    return snapshots[0].labels.get(SHA256, "") if len(snapshots) == 1 else ""


def _kept_stream(path: Path, sha256: str, shards: str) -> Stream:
    return Stream(path.name, partial(_reading, path), labels={SHA256: sha256, SHARDS: shards})


@contextmanager
def _reading(path: Path) -> Iterator[Chunks]:
    with path.open("rb", buffering=0) as file:
        yield iter(lambda: file.read(CHUNK), b"")


def _move(source: Path, target: Path) -> None:
    """Move a file, also to another disk; one that was moved already stays."""
    if not source.exists():
        return
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
        source.unlink()
