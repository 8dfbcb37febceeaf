"""Repairing the index and the packs after damage: what is not damaged is kept.

In this order, each under the exclusive lock: `repair_index` lists what the packs hold, if index
files are damaged or gone; `repair_packs` moves what is sound out of packs that are not; then
`repair_snapshots` tells which backups lost what. Killed at any point, no sound blob is lost, and
the next run finishes. A pack that was given up stays where it is, in no index file, until the
repository is pruned: a disk that reads better tomorrow has lost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial

from holdfast.errors import RepositoryDamaged
from holdfast.model.upkeep import IndexRepaired, PacksRepaired

from .ahead import in_order
from .blobs import Kind, Located, Sealed, unseal_blob
from .damage import DamagedError, damage_in
from .examine import THREADS, Examiner
from .inventory import Inventory, take_inventory
from .listing import Listing, replace_listings
from .packs import PACKS, Pack, pack_name, pack_of, read_header
from .repository import INDEX, Repository
from .rewriting import full_packs, remove_index_files, store_packs
from .steps import Observer, Tell, always_ours, counted, nobody, step

_HEADERS = 8  # read at once


def repair_index(
    repository: Repository,
    *,
    still_ours: Callable[[], None] = always_ours,
    observer: Observer = nobody,
) -> IndexRepaired:
    """List what all packs hold by their own headers in new index files, which replace the old ones.

    Of a pack whose header cannot be read is listed what the old index files said, if any can be
    read that did: `repair_packs` may find its blobs sound.
    """
    repairing = _Repairing(repository.fresh(), still_ours, observer)
    return repairing.index()


def repair_packs(
    repository: Repository,
    *,
    still_ours: Callable[[], None] = always_ours,
    observer: Observer = nobody,
) -> PacksRepaired:
    """Read all packs; store what is sound in damaged ones anew, and list damaged ones no more.

    Raises:
        RepositoryDamaged: an index file is damaged: `repair_index` comes first.

    """
    repairing = _Repairing(repository.fresh(), still_ours, observer)
    return repairing.packs()


class _Repairing:
    """One repair."""

    def __init__(
        self, repository: Repository, still_ours: Callable[[], None], observer: Observer
    ) -> None:
        self._repository = repository
        self._still_ours = still_ours
        self._observer = observer

    # --- the index ---

    def index(self) -> IndexRepaired:
        found = IndexRepaired()
        old = self._repository.names(INDEX)
        self._repository.load_index(lambda error: found.damaged_files.append(str(error)))
        listing = Listing(self._repository, self._still_ours)
        packs = [
            (pack, size)
            for name, size in self._repository.store.sizes(PACKS)
            if (pack := pack_of(name)) is not None
        ]
        unread = []
        with self._step("headers", len(packs)) as tell:
            for pack, blobs in counted(in_order(_HEADERS, self._header, packs), tell):
                if isinstance(blobs, RepositoryDamaged):
                    found.damaged_packs.append(str(blobs))
                    unread.append(pack)
                elif blobs:
                    listing.pack(Pack(pack, blobs))
                    found.packs += 1
                    found.blobs += len(blobs)
        for pack, blobs in self._listed_before(unread).items():
            listing.pack(Pack(pack, blobs))
            found.packs += 1
            found.blobs += len(blobs)
        listing.finish()
        gone = [name for name in old if name not in listing.stored]
        self._remove(gone)
        found.replaced = len(gone)
        return found

    def _header(self, listed: tuple[bytes, int]) -> tuple[bytes, list[Located] | RepositoryDamaged]:
        pack, size = listed
        try:
            with damage_in(self._repository.where, pack_name(pack)):
                if not size:
                    raise DamagedError("it is empty")
                part = partial(self._repository.part, pack)
                return pack, read_header(self._repository.key, size, part)
        except RepositoryDamaged as error:
            return pack, error

    def _listed_before(self, packs: Iterable[bytes]) -> dict[bytes, list[Located]]:
        """Return what the old index says of packs, as far as that can be."""
        index = self._repository.index
        by_number = {index.pack_number(pack): pack for pack in packs}
        numbers = {number: pack for number, pack in by_number.items() if number is not None}
        found: dict[bytes, list[Located]] = {}
        if not numbers:
            return found
        for kind in Kind:
            for id_, number, offset, *_others in index.rows(kind):
                if number in numbers:
                    found.setdefault(numbers[number], []).extend(
                        self._listed_at(kind, id_, numbers[number], offset)
                    )
        return found

    def _listed_at(self, kind: Kind, id_: bytes, pack: bytes, offset: int) -> Iterator[Located]:
        with suppress(DamagedError):  # a place that no blob can lie in
            for place in self._repository.index.places(kind, id_):
                if (place.pack, place.blob.offset) == (pack, offset):
                    yield place.blob

    # --- packs ---

    def packs(self) -> PacksRepaired:
        found = PacksRepaired()
        self._repository.load_index()
        inventory = take_inventory(self._repository)
        damaged = self._damaged(inventory, found)
        if not damaged:
            return found
        listing = Listing(self._repository, self._still_ours)
        with self._step("salvage"):
            sound = self._sound(damaged, inventory, found)
            for pack in store_packs(self._repository, full_packs(sound), self._still_ours):
                listing.pack(pack)
        replaced = replace_listings(self._repository, damaged.__contains__, listing)
        listing.finish()
        self._remove([name for name in replaced if name not in listing.stored])
        return found

    def _damaged(self, inventory: Inventory, found: PacksRepaired) -> dict[int, list[Located]]:
        """Read all packs; returns the numbers of the damaged ones, with what is listed in them."""
        index = self._repository.index
        reasons: dict[int, list[str]] = {}
        whole = []
        for number in range(len(inventory.found)):
            if reason := inventory.wrong.get(index.pack(number)):
                reasons[number] = [reason]
            else:
                whole.append(number)
        examiner = Examiner(self._repository, inventory)
        with self._step("data", sum(inventory.found[number] for number in whole)) as tell:
            for number, why in in_order(THREADS, examiner.examine, whole):
                tell(inventory.found[number])
                if why:
                    reasons[number] = why
        found.packs = len(inventory.found)
        found.damaged = {pack_name(index.pack(number)): why for number, why in reasons.items()}
        before = self._listed_before(map(index.pack, reasons))
        return {number: before.get(index.pack(number), []) for number in reasons}

    def _sound(
        self, damaged: Mapping[int, list[Located]], inventory: Inventory, found: PacksRepaired
    ) -> Iterator[Sealed]:
        """Give the blobs of damaged packs that are sound, and lie in no other pack."""
        gone = {self._repository.index.pack(number) for number in damaged}
        moved: set[tuple[Kind, bytes]] = set()
        lost: set[tuple[Kind, bytes]] = set()
        for number, listed in damaged.items():
            pack, size = self._repository.index.pack(number), inventory.found[number]
            for blob in {*listed, *self._by_header(pack, size)}:
                if (blob.kind, blob.id) in moved or self._is_elsewhere(blob, gone):
                    continue
                sealed = self._salvaged(pack, blob) if size else None
                if sealed is None:
                    lost.add((blob.kind, blob.id))
                else:
                    moved.add((blob.kind, blob.id))
                    yield sealed
        found.moved, found.lost = len(moved), len(lost - moved)

    def _by_header(self, pack: bytes, size: int) -> list[Located]:
        blobs = self._header((pack, size))[1]
        return [] if isinstance(blobs, RepositoryDamaged) else blobs

    def _is_elsewhere(self, blob: Located, gone: set[bytes]) -> bool:
        with suppress(DamagedError):
            places = self._repository.index.places(blob.kind, blob.id)
            return any(place.pack not in gone for place in places)
        return False

    def _salvaged(self, pack: bytes, blob: Located) -> Sealed | None:
        try:
            stored = self._repository.part(pack, blob.offset, blob.length)
            unseal_blob(self._repository.key, blob, stored)
        except (RepositoryDamaged, DamagedError):
            return None
        return Sealed(blob.kind, blob.id, stored, blob.size, blob.compressed)

    # --- both ---

    def _remove(self, index_files: list[str]) -> None:
        with self._step("index", len(index_files)) as tell:
            for _name in remove_index_files(self._repository, index_files, self._still_ours):
                tell(1)

    def _step(self, name: str, total: int = 0) -> AbstractContextManager[Tell]:
        return step(self._observer, name, self._repository.where, total)
