"""A repository on a store: its key, its config, its index, and the files and blobs in it.

What is read is checked before it is given out: every file by its name or its signature, every blob
by its id. What fails names the file and says why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from holdfast.errors import ConfigInvalid, RepositoryDamaged, ValueTooShort
from holdfast.ports import Store

from . import cache
from .ahead import in_order
from .blobs import Kind, unseal_blob
from .cache import NOTHING, Cache
from .config import VERSION, Config
from .crypto import Key
from .damage import DamagedError, damage_in
from .index import LARGEST_DOCUMENT, Index, Place, Places
from .packs import FinishedPack, pack_name
from .stored import ids_in, read_bounded
from .unpacked import decode, encode, name_of

INDEX = "index"
_AHEAD = 4  # index files on their way while one is taken in
_COPIED = frozenset({cache.INDEX, cache.SNAPSHOTS})  # folders of files that never change


class Repository:
    """An open repository. All methods may be called from several threads.

    ``where`` names it in messages. Nothing of the index is known before `load_index`. ``copies``
    are what it may read instead of the store; what is to prove anything goes without.
    """

    def __init__(  # noqa: PLR0913 - all that opening one finds out
        self,
        store: Store,
        where: str,
        key: Key,
        key_name: str,
        config: Config,
        *,
        copies: Cache = NOTHING,
    ) -> None:
        """Take what `init_repository` or `open_repository` found out."""
        self.store = store
        self.where = where
        self.key = key
        self.key_name = key_name  # of the key file that the password opened
        self.config = config
        self.copies = copies
        self.index = Index()
        self._listed: set[str] = set()  # the index files that are taken in
        self._loading = threading.Lock()
        self._copying: dict[bytes, threading.Lock] = {}  # by pack
        self._copied: set[bytes] = set()  # packs that were brought near, or could not be

    def fresh(self) -> Repository:
        """Return the same repository, of whose index nothing is known yet.

        For whoever adds to it: what a run that failed meant to store is in nobody else's way.
        """
        return self.near(self.copies)

    def near(self, copies: Cache) -> Repository:
        """Return the same repository, `fresh`, which reads what there are copies of from these."""
        return Repository(
            self.store, self.where, self.key, self.key_name, self.config, copies=copies
        )

    def beside(self, copies: Cache) -> Repository:
        """Return the same repository, with its index, that reads trees through these copies.

        For as long as nobody adds to it.
        """
        if not copies.keeps:
            return self
        other = self.near(copies)
        other.index, other._listed = self.index, set(self._listed)  # noqa: SLF001 - its own kind
        return other

    def give_index(self, other: Repository) -> None:
        """Let another object of this repository have what is known of its index; this forgets it.

        Loading a large one takes a while, and holding it twice much memory. Nothing happens where
        the other knows something already. Nobody may look for blobs here meanwhile.
        """
        with self._loading, other._loading:
            if not other._listed:
                other.index, other._listed = self.index, self._listed
                self.index, self._listed = Index(), set()

    # --- files that are not packs ---

    def save(self, folder: str, document: bytes) -> str:
        """Store a JSON document as a file of a folder; returns its name there."""
        name, sealed = encode(self.key, document, compressed=self.config.version > 1)
        self.store.put(f"{folder}/{name}", iter((sealed,)))
        if folder in _COPIED:
            self.copies.keep(folder, name, sealed)
        return name

    def load(self, folder: str, name: str, limit: int) -> bytes:
        """Return the document of a file, of ``limit`` bytes at most.

        Raises:
            FileNotFoundError: there is no such file.
            RepositoryDamaged: it is not what was stored.

        """
        copy = self.copies.read(folder, name) if folder in _COPIED else None
        if copy is not None:
            with suppress(DamagedError):
                return decode(self.key, copy, name, limit)
            self.copies.drop(folder, name)
        with damage_in(self.where, f"{folder}/{name}"):
            stored = read_bounded(self.store, f"{folder}/{name}", limit)
            document = decode(self.key, stored, name, limit)
        if folder in _COPIED:
            self.copies.keep(folder, name, stored)
        return document

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
                gone = 0
                for name, document in self.index_documents(new):
                    gone += document is None
                    try:
                        self._take_in(name, document)
                    except RepositoryDamaged as error:
                        if damaged is None:
                            raise
                        damaged(error)
                    self._listed.add(name)
                if not gone:
                    break
                names = self.names(INDEX)
            self._forget_copies(frozenset(names))

    def _take_in(self, name: str, document: bytes | RepositoryDamaged | None) -> None:
        if isinstance(document, RepositoryDamaged):
            raise document
        if document is not None:
            with damage_in(self.where, f"{INDEX}/{name}"):
                self.index.load(document)

    def _forget_copies(self, index_files: frozenset[str]) -> None:
        """Remove copies of index files, and of packs, that are not here any more."""
        self.copies.retain(INDEX, index_files.__contains__)
        self.copies.retain(
            cache.PACKS, lambda name: self.index.pack_number(bytes.fromhex(name)) is not None
        )

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

    def save_index_file(self, document: bytes) -> None:
        """Store an index file of packs that the index knows: should it go, all is read anew."""
        self._listed.add(self.save(INDEX, document))

    # --- packs and blobs ---

    def check_writable(self) -> None:
        """Raise `ConfigInvalid` for a version without compression: what we add would not be it."""
        if self.config.version != VERSION:
            raise ConfigInvalid(
                place=self.where,
                problem=f"a repository of version {self.config.version} is read, but not added to",
                advice="`restic migrate upgrade_repo_v2` makes it one of version 2",
            )

    def copy_stored(self, pack: FinishedPack) -> None:
        """Keep a copy of a pack of trees that was just stored: the next backup looks at them."""
        if self.copies.keeps and pack.pack.blobs[0].kind is Kind.TREE:
            self.copies.keep(cache.PACKS, pack.pack.id.hex(), b"".join(pack.chunks()))

    def places(self, kind: Kind, id_: bytes) -> Places:
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
        blob, pack = place.blob, place.pack
        if blob.kind is Kind.TREE:
            self.bring_near(pack)
        copy = self.copies.part(cache.PACKS, pack.hex(), blob.offset, blob.length)
        if copy is not None:
            with suppress(DamagedError):
                return unseal_blob(self.key, blob, copy)
            self.copies.drop(cache.PACKS, pack.hex())
        stored = self._stored_part(pack, blob.offset, blob.length)
        with damage_in(self.where, pack_name(pack)):
            return unseal_blob(self.key, blob, stored)

    def bring_near(self, pack: bytes) -> None:
        """Copy a whole pack of trees: with one of its folders the others will be asked for.

        Nothing happens where there are no copies, where it is too large, or damaged: whoever reads
        from it then finds that out.
        """
        if not self.copies.keeps:
            return
        with self._copying.setdefault(pack, threading.Lock()):
            if pack in self._copied:
                return
            self._copied.add(pack)
            if self.copies.has(cache.PACKS, pack.hex()):
                return
            with suppress(FileNotFoundError, DamagedError):
                stored = read_bounded(self.store, pack_name(pack), cache.LARGEST)
                if name_of(stored) == pack.hex():
                    self.copies.keep(cache.PACKS, pack.hex(), stored)

    def part(self, pack: bytes, start: int, length: int) -> bytes:
        """Return bytes of a pack; they may come from a copy, and are to be checked by the reader.

        Raises:
            RepositoryDamaged: the pack is missing, or ends before.

        """
        copy = self.copies.part(cache.PACKS, pack.hex(), start, length)
        return copy if copy is not None else self._stored_part(pack, start, length)

    def _stored_part(self, pack: bytes, start: int, length: int) -> bytes:
        name = pack_name(pack)
        with damage_in(self.where, name):
            try:
                return self.store.part(name, start, length)
            except FileNotFoundError:
                raise DamagedError("this pack is missing") from None
            except ValueTooShort:
                raise DamagedError("this pack ends too early") from None
