"""Qdrant: collections of vectors, backed up by the server's own snapshots while it is written to.

A snapshot of a collection is made on the server, streamed from there, and deleted again; what it
holds is counted while it goes by (`_qdrant_count`). Restoring uploads it under another name, looks
at it there, and then switches (`_qdrant_staged`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, cast

from holdfast.errors import (
    HoldfastError,
    SourceMissing,
    SourceUnstable,
    UnknownName,
    UsageInvalid,
)
from holdfast.model.artifact import Artifact, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Source, Token

from ._http import Patience, Server, without_secrets
from ._laid_out import LaidOut
from ._qdrant_api import Qdrant
from ._qdrant_backup import NotOursError, all_described, all_problems_of, recounted, stored
from ._qdrant_count import Contents
from ._qdrant_facts import Described, Names, facts_of, size_of
from ._qdrant_find import find
from ._qdrant_freeze import Freezing, frozen
from ._qdrant_guide import guide
from ._qdrant_keys import keys_of
from ._qdrant_options import QdrantOptions, is_url
from ._qdrant_program import found, running, version_of
from ._qdrant_reading import Open, counted
from ._qdrant_staged import QdrantStaged
from ._qdrant_taking import is_mark
from ._qdrant_twins import names_beside, recovered_count

__all__ = ["QdrantOptions", "QdrantSource"]


class QdrantSource:
    """The collections of one server, or of one cluster. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "qdrant"
    role: ClassVar[Role] = Role.VECTORS
    options_model: ClassVar[type[Options]] = QdrantOptions
    pause: ClassVar[float] = Patience().pause  # seconds before a call is repeated

    def __init__(self, name: str, options: Options, names: Names | None = None) -> None:
        """Touch nothing. ``names`` are how collections that are not live are called there."""
        if not isinstance(options, QdrantOptions):
            raise TypeError(f"{type(options).__name__} are not options of a Qdrant server")
        self.name = name
        self.options = options
        self.names = names or Names()

    @property
    def where(self) -> str:
        """Say where the server is."""
        return without_secrets(self.options.url)

    @property
    def limit(self) -> float:
        """How many seconds making a snapshot may take."""
        return self.options.snapshot_timeout

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find servers in compose files and ``.env``."""
        return find(folder, cls.kind)

    # --- the server ---

    @contextmanager
    def nodes(self) -> Iterator[list[Qdrant]]:
        """Give each node of the cluster, or the one server."""
        with ExitStack() as open_:
            yield [open_.enter_context(self._connected(url)) for url in self.options.every_node]

    @contextmanager
    def node(self) -> Iterator[Qdrant]:
        """Give the one server, or the node of the cluster that is asked."""
        with self._connected(self.options.url) as qdrant:
            yield qdrant

    def _connected(self, url: str) -> Qdrant:
        options = self.options
        patience = Patience(options.connect_timeout, options.timeout, pause=self.pause)
        key = {"api-key": options.api_key} if options.api_key else {}
        server = Server(self.name, url, headers=key, patience=patience, authority=options.authority)
        return Qdrant(server, long=options.snapshot_timeout)

    def _chosen(self, qdrant: Qdrant) -> list[str]:
        """Return the collections that belong to this component, as they are called here."""
        there = self.names.ours(qdrant.names())
        if not self.options.collections:
            return there
        aliases = self._aliases(qdrant)
        chosen = {aliases.get(name, name) for name in self.options.collections}
        return [name for name in there if name in chosen]

    def _demand_all(self, qdrant: Qdrant) -> None:
        """Raise `SourceMissing` if a collection that is configured is not there."""
        wanted = self.options.collections
        known = {*self.names.ours(qdrant.names()), *self._aliases(qdrant)} if wanted else set()
        for name in wanted:
            if name not in known:
                path = f"{self.where}/collections/{name}"
                raise SourceMissing(component=self.name, path=path)

    def _aliases(self, qdrant: Qdrant) -> dict[str, str]:
        """Return the aliases that belong here with their collections, as they are called here."""
        suffix = self.names.suffix
        return {
            alias.removesuffix(suffix): meant.removesuffix(suffix)
            for alias, meant in qdrant.aliases().items()
            if alias.endswith(suffix) and meant.endswith(suffix) and not is_mark(alias)
        }

    # --- looking ---

    def probe(self) -> Probe:
        """Look whether the server answers and takes our key."""
        program = found(self.options.server)
        tools = {"qdrant": version_of(program)} if program else {}
        try:
            with self.node() as qdrant:
                version, manages = qdrant.version(), qdrant.may_manage()
                chosen = self._chosen(qdrant)
                size = sum(size_of(qdrant.collection(self.names.there(name))) for name in chosen)
                problems = self._problems(qdrant, manages=manages)
        except HoldfastError as error:
            return Probe(reachable=False, tools=tools, problems=(str(error),))
        rights = "may manage the server" if manages else "may only read"
        return Probe(
            reachable=True,
            version=version,
            size=size,
            tools=tools,
            rights=rights,
            problems=problems,
        )

    def _problems(self, qdrant: Qdrant, *, manages: bool) -> tuple[str, ...]:
        problems = []
        if not manages:
            problems.append(f"{self.name}: the key may only read: no snapshot can be made")
        try:
            self._demand_all(qdrant)
        except SourceMissing as error:
            problems.append(str(error))
        return tuple(problems)

    def facts(self) -> Facts:
        """Count the points of each collection exactly; empty if there is none."""
        with self.node() as qdrant:
            found_here = {}
            aliases = self._aliases(qdrant)
            for name in self._chosen(qdrant):
                there = self.names.there(name)
                if (info := qdrant.collection(there)) is not None:
                    meant = [alias for alias, target in aliases.items() if target == name]
                    indexes = info.get("payload_schema", {})
                    count = qdrant.count(there)
                    found_here[name] = Described(count, info["config"], indexes, meant)
        return facts_of(found_here)

    # --- freezing ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Make a snapshot of each collection, and delete it from the server in the end.

        Each shard of a collection is as of one instant, with everything that was acknowledged
        before it was asked; several are as of several.

        Raises:
            ServerUnreachable, AccessRefused, ConnectionLost: the server cannot be spoken to.
            ServerFailed: it cannot make a snapshot.
            SourceMissing: a collection that is configured is not there.
            SourceCorrupt, SourceUnstable: from ``facts``, if a snapshot cannot be counted.

        """
        del evidence  # a server that is damaged makes no snapshot
        with self.nodes() as nodes:
            self._demand_all(nodes[0])
            wanted = Freezing(
                component=self.name,
                where=self.where,
                collections=self._chosen(nodes[0]),
                aliases=self._aliases(nodes[0]),
                configured=bool(self.options.collections),
                limit=self.limit,
                recount=self._recount,
            )
            with frozen(wanted, nodes, workspace) as held:
                yield held

    def _recount(self, open_: Open, sha256: str, contents: Contents, workspace: Path) -> Contents:
        """Have Qdrant recover a snapshot and count it: operations in its log need Qdrant itself.

        By a server of our own where the program is found, or else beside the live collections.
        """
        if self.options.nodes:
            reason = f"{contents.undecided}; this cannot be counted in a cluster"
            raise SourceUnstable(component=self.name, path=self.where, reason=reason)
        with self._counting(workspace) as qdrant:
            return recounted(contents, recovered_count(qdrant, open_, sha256))

    @contextmanager
    def _counting(self, workspace: Path) -> Iterator[Qdrant]:
        program = found(self.options.server)
        if program is None:
            with self.node() as qdrant:
                yield qdrant
            return
        with self._own(program, workspace) as twin, twin.node() as qdrant:
            yield qdrant

    @contextmanager
    def _own(self, program: Path, workspace: Path) -> Iterator[QdrantSource]:
        """Give a server of our own, which ends with the context."""
        with running(program, workspace, self.name) as server:
            options = self.options.elsewhere(server.url, server.key)
            yield QdrantSource(self.name, options)

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read each snapshot to its end, and count what it holds without unpacking it.

        Only where its log ends with operations that Qdrant must judge it is recovered to be
        counted: see `_recount`.
        """
        try:
            backup = stored(artifacts)
        except NotOursError as error:
            return Inspection(Facts(), (str(error),))
        parts = {
            name: [self._inspected(snapshot, workspace) for snapshot in snapshots]
            for name, snapshots in backup.snapshots.items()
        }
        facts = facts_of(all_described(parts, backup.aliases))
        return Inspection(facts, tuple(all_problems_of(parts, backup)))

    def _inspected(self, snapshot: Stream, workspace: Path) -> Contents:
        contents = counted(snapshot.open, workspace)
        if contents.undecided:
            return self._recount(snapshot.open, "", contents, workspace)
        return contents

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> QdrantStaged:
        """Return the names beside the live collections where a restore puts new ones."""
        return QdrantStaged(self, tag, workspace, self._look)

    def reopen(self, token: Token) -> QdrantStaged:
        """Return a staging by its token."""
        return self.staging(str(token["tag"]), Path(str(token["workspace"])))

    def _look(self, names: Names) -> Source:
        options = self.options.model_copy(update={"collections": ()})
        return cast("Source", QdrantSource(self.name, options, names))

    def at(self, folder: Path) -> LaidOut:
        """Return a folder for the stored snapshots themselves: only a server can hold them."""
        return LaidOut(cast("Source", self), folder)

    def elsewhere(self, url: str) -> QdrantSource:
        """Return the server at another URL, with the same key and the same collections."""
        if not is_url(url):
            problem = f"{self.name} can be restored to an http:// or https:// URL of a server"
            raise UsageInvalid(problem=problem)
        return QdrantSource(self.name, self.options.elsewhere(url), self.names)

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[Source]:
        """Give a server of its own where the program is found, or else names beside the live ones.

        Raises:
            NoScratch: there is no program, and the server cannot be used.

        """
        program = found(self.options.server)
        if program is None:
            with names_beside(self.name, self.names, self.node) as names:
                yield self._look(names)
            return
        with self._own(program, workspace) as twin:
            yield cast("Source", twin)

    def occupants(self) -> Sequence[str]:
        """Name nobody: clients of a server notice a switch."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that upload each snapshot, and create the aliases."""
        return guide(paths)

    # --- keys ---

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the ids of ``collection``, or with ``payload`` the values under that key.

        A list gives each of its values. Points without the key give nothing.

        Raises:
            UsageInvalid: other options than these, or no ``collection``.
            UnknownName: there is no such collection.

        """
        if "collection" not in options or set(options) - {"collection", "payload"}:
            problem = "keys of Qdrant are chosen by `collection` and, if wanted, `payload`"
            raise UsageInvalid(problem=f"{self.name}: {problem}")
        with self.node() as qdrant:
            name = options["collection"]
            name = self._aliases(qdrant).get(name, name)
            known = self.names.ours(qdrant.names())
            if name not in known:
                raise UnknownName(what="collection", name=name, known=", ".join(known) or "none")
            yield keys_of(qdrant, self.names.there(name), options.get("payload"))
