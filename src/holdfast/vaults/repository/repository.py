"""A repository on a store: its key, its config, its index, and the files and blobs in it.

What is read is checked before it is given out: every file by its name or its signature, every blob
by its id. What fails names the file and says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from holdfast.errors import BackupExists, ConfigInvalid, RepositoryDamaged, ValueTooShort
from holdfast.ports import Store

from .ahead import in_order
from .blobs import Kind, unseal_blob
from .config import VERSION, Config
from .crypto import Key
from .damage import DamagedError, damage_in
from .index import LARGEST_DOCUMENT, Index, Place
from .packs import FinishedPack, pack_name
from .stored import ids_in, read_bounded
from .unpacked import decode, encode

INDEX = "index"
_AHEAD = 4  # index files on their way while one is taken in


class Repository:
    """An open repository. All methods may be called from several threads.

    ``where`` names it in messages. Nothing of the index is known before `load_index`.
    """

    def __init__(self, store: Store, where: str, key: Key, key_name: str, config: Config) -> None:
        """Take what `init_repository` or `open_repository` found out."""
        self.store = store
        self.where = where
        self.key = key
        self.key_name = key_name  # of the key file that the password opened
        self.config = config
        self.index = Index()
        self._listed: set[str] = set()  # the index files that are taken in
        self._loading = threading.Lock()

    def fresh(self) -> Repository:
        """Return the same repository, of whose index nothing is known yet.

        For whoever adds to it: what a run that failed meant to store is in nobody else's way.
        """
        return Repository(self.store, self.where, self.key, self.key_name, self.config)

    # --- files that are not packs ---

    def save(self, folder: str, document: bytes) -> str:
        """Store a JSON document as a file of a folder; returns its name there."""
        name, sealed = encode(self.key, document, compressed=self.config.version > 1)
        self.store.put(f"{folder}/{name}", iter((sealed,)))
        return name

    def load(self, folder: str, name: str, limit: int) -> bytes:
        """Return the document of a file, of ``limit`` bytes at most.

        Raises:
            FileNotFoundError: there is no such file.
            RepositoryDamaged: it is not what was stored.

        """
        with damage_in(self.where, f"{folder}/{name}"):
            return decode(
                self.key, read_bounded(self.store, f"{folder}/{name}", limit), name, limit
            )

    def names(self, folder: str) -> list[str]:
        """Return the names of the files of a folder, without what else may lie there."""
        return ids_in(self.store, folder)

    # --- the index ---

    def load_index(self, damaged: Callable[[RepositoryDamaged], None] | None = None) -> None:
        """Take in every index file that is not known yet.

        A file that is gone before it was read was replaced by others: these are looked for. Where
        one that is known is gone the repository was pruned, and everything is read anew.

        ``damaged`` is told of damaged files, which are then passed over for good; without it they
        are errors.
        """
        with self._loading:
            names = self.names(INDEX)
            if not self._listed.issubset(names):
                self.index, self._listed = Index(), set()
            while new := [name for name in names if name not in self._listed]:
                for name, document in self.index_documents(new):
                    try:
                        self._take_in(name, document)
                    except RepositoryDamaged as error:
                        if damaged is None:
                            raise
                        damaged(error)
                    self._listed.add(name)
                names = self.names(INDEX)

    def _take_in(self, name: str, document: bytes | RepositoryDamaged | None) -> None:
        if isinstance(document, RepositoryDamaged):
            raise document
        if document is not None:
            with damage_in(self.where, f"{INDEX}/{name}"):
                self.index.load(document)

    def index_files(self) -> list[str]:
        """Return the names of the index files that are taken in, sorted."""
        return sorted(self._listed)

    def index_documents(
        self, names: Iterable[str]
    ) -> Iterator[tuple[str, bytes | RepositoryDamaged | None]]:
        """Read index files, some of them ahead; None for those that are gone."""
        return in_order(_AHEAD, lambda name: (name, self._index_file(name)), names)

    def _index_file(self, name: str) -> bytes | RepositoryDamaged | None:
        try:
            return self.load(INDEX, name, LARGEST_DOCUMENT)
        except FileNotFoundError:
            return None
        except RepositoryDamaged as error:
            return error

    def save_index(self, *, everything: bool) -> None:
        """List packs that were added to the index in files of it; see `Index.save`."""
        self.index.save(self._save_index, everything=everything)

    def _save_index(self, document: bytes) -> None:
        self.save(INDEX, document)

    # --- packs and blobs ---

    def check_writable(self) -> None:
        """Raise `ConfigInvalid` for a version without compression: what we add would not be it."""
        if self.config.version != VERSION:
            raise ConfigInvalid(
                place=self.where,
                problem=f"a repository of version {self.config.version} is read, but not added to",
                advice="`restic migrate upgrade_repo_v2` makes it one of version 2",
            )

    def store_pack(self, pack: FinishedPack) -> None:
        """Store a pack and know it from then on; one that is there already is as good."""
        self.check_writable()
        with suppress(BackupExists):  # its name is the hash of its bytes: a run that died left it
            self.store.put(pack.name, pack.chunks())
        self.index.add(pack.pack)

    def places(self, kind: Kind, id_: bytes) -> list[Place]:
        """Return where a blob lies: one place, or several.

        Raises:
            RepositoryDamaged: the index lists no such blob, or a place that cannot be.

        """
        with damage_in(self.where, INDEX):
            places = list(self.index.places(kind, id_))
            if not places:
                raise DamagedError(f"no index file lists the {kind} blob {id_.hex()}")
            return places

    def blob(self, kind: Kind, id_: bytes) -> bytes:
        """Return the plaintext of a blob, from another pack if the first is damaged.

        Raises:
            RepositoryDamaged: it is listed nowhere, or damaged wherever it is.

        """
        return self.read(self.places(kind, id_))

    def read(self, places: Sequence[Place]) -> bytes:
        """Return the plaintext of a blob that lies in these places; see `blob`."""
        for place in places[:-1]:
            with suppress(RepositoryDamaged):
                return self._blob_at(place)
        return self._blob_at(places[-1])

    def _blob_at(self, place: Place) -> bytes:
        blob = place.blob
        stored = self.part(place.pack, blob.offset, blob.length)
        with damage_in(self.where, pack_name(place.pack)):
            return unseal_blob(self.key, blob, stored)

    def part(self, pack: bytes, start: int, length: int) -> bytes:
        """Return bytes of a pack.

        Raises:
            RepositoryDamaged: the pack is missing, or ends before.

        """
        name = pack_name(pack)
        with damage_in(self.where, name):
            try:
                return self.store.part(name, start, length)
            except FileNotFoundError:
                raise DamagedError("this pack is missing") from None
            except ValueTooShort:
                raise DamagedError("this pack ends too early") from None
