"""Chroma servers (``chroma run``, containers, hosted ones), by their REST API.

A server is read while others write to it, see `_chroma_server_export`; a restore puts collections
beside the live ones and then changes names, see `_chroma_server_staged`. A restored collection has
another id than the one it replaces: clients that hold on to a collection must get it anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import ClassVar, cast

from holdfast.errors import (
    HoldfastError,
    NoScratch,
    NoSpace,
    SourceMissing,
    UnknownName,
    UsageInvalid,
)
from holdfast.model.artifact import CHUNK, Artifact, Chunks, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Source, Token

from ._chroma_open import require
from ._chroma_options import ChromaOptions
from ._chroma_server_api import Api, Collection, Gone, Place
from ._chroma_server_book import IdBook
from ._chroma_server_export import Exporter
from ._chroma_server_find import find
from ._chroma_server_guide import guide_lines
from ._chroma_server_inspect import inspect_export
from ._chroma_server_pages import Reader
from ._chroma_server_remove import remove
from ._chroma_server_scope import SCRATCH, Scope, counted
from ._chroma_server_scratch import chroma_program, scratch_url
from ._chroma_server_staged import ChromaServerStaged, only_stream
from ._http import Patience
from ._laid_out import LaidOut
from ._swap import FULL

EXPORT, BOOK = "export.jsonl", "ids.db"  # the names in the workspace
PAUSE = 0.5  # seconds before a second try
RECORD_BYTES = 400  # of a record besides its vector, roughly: for the check that there is room
Listing = Callable[[Api], Mapping[str, Collection]]


class ChromaServer:
    """One Chroma server, or a part of it. See `holdfast.ports.Source`."""

    kind: ClassVar[str] = "chroma"
    role: ClassVar[Role] = Role.VECTORS
    options_model: ClassVar[type[Options]] = ChromaOptions

    def __init__(self, name: str, options: Options, listing: Listing | None = None) -> None:
        """Touch nothing. ``listing`` gives collections by title, in place of the live ones."""
        if not isinstance(options, ChromaOptions) or options.url is None:
            raise TypeError(f"{type(options).__name__} are not options of a Chroma server")
        self.name = name
        self.options = options
        self.url = options.url
        self._scope = Scope.of(options)
        self._listing = listing or self._live

    @property
    def where(self) -> str:
        """Say where the server is; its address has nothing secret in it."""
        return self.url

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find the servers that compose files and ``.env`` below ``folder`` tell of."""
        return find(folder, cls.kind)

    def _api(self) -> Api:
        options = self.options
        patience = Patience(options.connect_timeout, options.answer_timeout, options.tries, PAUSE)
        return Api(self.name, self.url, options.headers, patience, options.ca_file)

    def _live(self, api: Api) -> Mapping[str, Collection]:
        found = self._scope.collections(api, self._scope.places(api))
        return {self._scope.title(one.place, one.name): one for one in found}

    # --- looking ---

    def probe(self) -> Probe:
        """Ask the server what it is, and whether everything that was named is there."""
        tools = {"httpx": version("httpx")}
        try:
            with self._api() as api:
                server = api.version()
                rights = api.user()
                if missing := self._scope.missing(api):
                    raise SourceMissing(component=self.name, path=f"{missing} in {self.where}")
                size = sum(_size(one, count) for one, count in self._counted(api).values())
        except HoldfastError as error:
            return Probe(reachable=False, tools=tools, problems=(str(error),))
        rights = f"as {rights}" if rights else "anybody's: the server does not ask who we are"
        return Probe(reachable=True, version=server, size=size, tools=tools, rights=rights)

    def facts(self) -> Facts:
        """Count the collections; empty where none of the databases named is there.

        Raises:
            ServerUnreachable, AccessRefused, ConnectionLost, ServerFailed: what the server did.

        """
        with self._api() as api:
            found = self._counted(api)
            return counted(found) if found or self._scope.places(api) else Facts()

    def _counted(self, api: Api) -> dict[str, tuple[Collection, int]]:
        found = {}
        for title, one in self._listing(api).items():
            try:
                found[title] = (one, api.count(one))
            except Gone:
                continue  # deleted since it was listed
        return found

    # --- freezing ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Read everything into ``workspace``; nobody waits, and it is not held still.

        Raises:
            SourceMissing: something that was named is not there.
            SourceUnstable: a collection was replaced while it was read.
            ServerUnreachable, AccessRefused, ConnectionLost, ServerFailed: what the server did.

        """
        del evidence  # what the server gives is all there is
        require("numpy", "backing up a Chroma server")
        export = workspace / EXPORT
        with self._api() as api, _room_for(export), export.open("wb") as file:
            server = api.version()
            if missing := self._scope.missing(api):
                raise SourceMissing(component=self.name, path=f"{missing} in {self.where}")
            exporter = Exporter(api, self.name, self._scope, page_size=self.options.page_size)
            twice = self.options.read_twice
            done = exporter.run(file, workspace / BOOK, server, twice=twice)
        (workspace / BOOK).unlink()
        stream = Stream(
            name=f"{self.name}.jsonl",
            open=lambda: _reading(export),
            size_hint=export.stat().st_size,
            path=export,
            disposable=True,
            compressible=True,
        )
        yield Frozen(
            artifacts=[stream],
            instant=done.instant,
            facts=lambda: done.facts,
            exact=done.exact,
            version=server,
            tools={"httpx": version("httpx")},
        )

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read an export to its end and look at each record."""
        require("numpy", "checking the backup of a Chroma server")
        stream = only_stream(artifacts)
        if stream is None:
            return Inspection(Facts(), ("the backup is none of a Chroma server",))
        with stream.open() as chunks:
            return inspect_export(chunks, workspace)

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> ChromaServerStaged:
        """Return the place beside the live collections."""
        return self._staging({"url": self.url, "tag": tag, "workspace": str(workspace)})

    def reopen(self, token: Token) -> ChromaServerStaged:
        """Return a staging by its token, on the server where it was."""
        source = self.elsewhere(str(token["url"]))
        return source._staging(token)  # noqa: SLF001 - it is this very class

    def _staging(self, token: Token) -> ChromaServerStaged:
        def look(listing: Listing) -> Source:
            return cast("Source", ChromaServer(self.name, self.options, listing))

        return ChromaServerStaged(
            self.name,
            self._scope,
            token,
            batch_size=self.options.batch_size,
            connect=self._api,
            look=look,
        )

    def at(self, folder: Path) -> LaidOut:
        """Return the export itself in a folder: only a server can hold the collections."""
        return LaidOut(self, folder)

    def elsewhere(self, url: str) -> ChromaServer:
        """Return the source with the same options on another server."""
        try:
            options = self.options.at_url(url)
        except ValueError as error:
            raise UsageInvalid(problem=f"{self.name}: the address of a server {error}") from error
        return ChromaServer(self.name, options)

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[ChromaServer]:
        """Give a server of our own where Chroma is installed, or else another database on this one.

        A database that a killed process left there is called `SCRATCH` and more; backups pass it
        over.

        Raises:
            NoScratch: neither can be.

        """
        program = chroma_program()
        if program is not None:
            with scratch_url(self.name, program, workspace) as url:
                yield self._twin({"url": url, "token": "", "secret_headers": {}, "ca_file": None})
            return
        if self._scope.only is None:
            reason = "the program `chroma` is not installed here, and it has several databases"
            raise NoScratch(component=self.name, reason=reason)
        place = Place(self._scope.only.tenant, f"{SCRATCH}{token_hex(8)}")
        try:
            yield self._twin({"databases": (place.database,)})
        finally:
            with self._api() as api:
                for one in api.collections(place):
                    remove(api, one)
                api.delete_database(place)

    def _twin(self, changes: Mapping[str, object]) -> ChromaServer:
        return ChromaServer(self.name, self.options.model_copy(update=changes))

    def occupants(self) -> Sequence[str]:
        """Name nobody: clients of a server go by names, and get what is under them."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Load the export into a server by a small program that needs Python alone."""
        return guide_lines(paths)

    # --- keys ---

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the ids of ``collection``, or with ``metadata`` that value of each id that has it.

        Raises:
            UsageInvalid: other options than these, or no ``collection``.
            UnknownName: there is no such collection.

        """
        if "collection" not in options or set(options) - {"collection", "metadata"}:
            problem = "keys of Chroma are chosen by `collection` and, if wanted, `metadata`"
            raise UsageInvalid(problem=f"{self.name}: {problem}")
        with self._api() as api, TemporaryDirectory(prefix="holdfast-keys-") as folder:
            known = self._listing(api)
            if options["collection"] not in known:
                listed = ", ".join(known) or "none"
                raise UnknownName(what="collection", name=options["collection"], known=listed)
            reader = Reader(api, self.options.page_size)
            with closing(IdBook(Path(folder) / BOOK)) as ids:
                yield reader.keys(known[options["collection"]], ids, options.get("metadata"))


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Translate what happens when the disk is full."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        full = isinstance(error, OSError) and error.errno in FULL
        if full or getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            raise NoSpace(path=path) from error
        raise


@contextmanager
def _reading(path: Path) -> Iterator[Chunks]:
    with path.open("rb", buffering=0) as file:
        yield iter(lambda: file.read(CHUNK), b"")


def _size(one: Collection, count: int) -> int:
    vector = (one.dimension or 0) * 16 // 3  # four bytes in base64
    return count * (vector + RECORD_BYTES)
