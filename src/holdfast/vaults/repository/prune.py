"""Removing what no snapshot needs ("Forget and Prune": under an exclusive lock).

First everything is found out: what the snapshots need, and for each pack whether it stays, goes, or
is repacked because too much of it is not needed. Nothing is removed where anything needed is
lacking. Then, in this order: packs that no index file lists go; what is needed of repacked packs is
stored in new ones, and these are listed; index files that list packs which go are written anew
without them; the old index files go; the old packs go. Killed at any point, every blob that is
needed lies in a pack that an index file lists, and the next run goes on from there.

Packs of which everything is needed are never rewritten. What is moved is moved as it is sealed,
after it was checked: a blob that is damaged stops the run before anything it replaces is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain

from holdfast.errors import RepositoryLockLost, RetentionHolds
from holdfast.model.upkeep import TOLERATED, Pruned

from .ahead import in_order
from .blobs import Sealed, unseal_blob
from .cache import NOTHING
from .damage import DamagedError, damage_in
from .index import Place
from .inventory import Inventory, take_inventory
from .listing import Listing, replace_listings
from .needed import Needed
from .packs import Pack, pack_name, read_header
from .repository import Repository
from .rewriting import REMOVERS, full_packs, remove_index_files, store_packs
from .runs import read_run, runs
from .snapshots import FOLDER as SNAPSHOTS
from .snapshots import load_snapshot
from .steps import Observer, Tell, always_ours, counted, nobody, step
from .tidying import Fate, Tidying, choose

_READERS = 3  # of up to 16 MiB each; one more waits


def prune(  # noqa: PLR0913 - each is one property of a run, given by name
    repository: Repository,
    *,
    tolerated: float = TOLERATED,
    dry_run: bool = False,
    still_ours: Callable[[], None] = always_ours,
    confirmed: Callable[[], None] = always_ours,
    observer: Observer = nobody,
) -> Pruned:
    """Remove what no snapshot needs. The caller holds the exclusive lock; a plan needs a shared.

    ``tolerated`` is the share of the repository, from 0 to 1, that may remain of bytes which
    nothing needs, in packs of data: less of it costs more repacking. ``still_ours`` raises when
    others may have taken the lock from us; ``confirmed`` does, too, and looks at the lock for that.

    Raises:
        RepositoryDamaged: what a snapshot needs is lacking, named with the snapshot; or an index
            file, a snapshot or a blob to be moved is damaged. Nothing needed was removed.
        RepositoryLockLost: the lock is gone, or a backup was made in spite of it.
        AppendOnly, RetentionHolds: the store keeps an index file that should go. All is sound.

    """
    pruning = _Pruning(repository.fresh(), still_ours, confirmed, observer)
    return pruning.run(tolerated, dry_run=dry_run)


class _Pruning:
    """One run."""

    def __init__(
        self,
        repository: Repository,
        still_ours: Callable[[], None],
        confirmed: Callable[[], None],
        observer: Observer,
    ) -> None:
        self._repository = repository
        self._stored = repository.near(NOTHING)  # what is moved is read there, never from a copy
        self._still_ours = still_ours
        self._confirmed = confirmed
        self._observer = observer
        self._result = Pruned()

    def run(self, tolerated: float, *, dry_run: bool) -> Pruned:
        snapshots = self._repository.names(SNAPSHOTS)  # before the index, which then lists theirs
        with self._step("index"):
            self._repository.load_index()
        with self._step("packs"):
            inventory = take_inventory(self._repository)
        needed = self._needed(snapshots, inventory)
        tidying = choose(self._repository.index, needed, tolerated)
        self._count(snapshots, inventory, tidying)
        if not dry_run:
            self._repository.check_writable()
            self._carry_out(inventory, tidying, snapshots)
        return self._result

    def _needed(self, snapshots: list[str], inventory: Inventory) -> Needed:
        """Mark what the snapshots need; raises where any of it is lacking."""
        needed = Needed(self._repository, inventory.wrong)
        with self._step("snapshots", len(snapshots)) as tell:
            for name in counted(snapshots, tell):
                for lack in needed.add(self._tree(name)):
                    with damage_in(self._repository.where, f"{SNAPSHOTS}/{name}"):
                        raise DamagedError(f"it needs the {lack}; nothing was removed")
        return needed

    def _tree(self, snapshot: str) -> bytes:
        with damage_in(self._repository.where, f"{SNAPSHOTS}/{snapshot}"):
            try:
                return load_snapshot(self._repository, snapshot).tree
            except FileNotFoundError:
                raise DamagedError("it was removed meanwhile; nothing else was") from None

    def _count(self, snapshots: list[str], inventory: Inventory, tidying: Tidying) -> None:
        result = self._result
        result.snapshots = len(snapshots)
        result.used_blobs, result.unused_blobs = tidying.used_blobs, tidying.unused_blobs
        result.used, result.unused = sum(tidying.used), sum(tidying.unused)
        result.unlisted_packs = len(inventory.unlisted)
        result.unlisted = sum(inventory.unlisted.values())
        deleted, repacked = tidying.packs(Fate.DELETE), tidying.packs(Fate.REPACK)
        result.deleted_packs, result.repacked_packs = len(deleted), len(repacked)
        result.deleted = sum(inventory.found[number] for number in deleted)
        result.repacked = sum(tidying.used[number] for number in repacked)
        freed = sum(tidying.unused[number] for number in repacked)
        result.freed = result.unlisted + result.deleted + freed
        result.left = sum(tidying.unused[number] for number in tidying.packs(Fate.KEEP))

    # --- acting ---

    def _carry_out(self, inventory: Inventory, tidying: Tidying, snapshots: list[str]) -> None:
        self._demand_no_others(snapshots)
        self._remove(map(pack_name, inventory.unlisted), "unlisted", len(inventory.unlisted))
        listing = Listing(self._repository, self._still_ours)
        with self._step("repack", self._result.repacked) as tell:
            for pack in self._repacked(inventory, tidying, tell):
                listing.pack(pack)
        with self._step("index"):
            replaced = replace_listings(
                self._repository, lambda number: tidying.fates[number] != Fate.KEEP, listing
            )
            listing.finish()
        self._result.index_files = len(replaced)
        self._demand_no_others(snapshots)
        gone = [name for name in replaced if name not in listing.stored]
        with self._step("index", len(gone)) as tell:
            for _name in remove_index_files(self._repository, gone, self._still_ours):
                tell(1)
        numbers = [
            number
            for fate in (Fate.DELETE, Fate.REPACK)
            for number in tidying.packs(fate)
            if inventory.found[number]
        ]
        names = (pack_name(tidying.index.pack(number)) for number in numbers)
        self._remove(names, "delete", len(numbers))

    def _demand_no_others(self, snapshots: list[str]) -> None:
        """See that no snapshot has come, whatever locks were good for: it may need what goes."""
        self._confirmed()
        if set(self._repository.names(SNAPSHOTS)) - set(snapshots):
            reason = "somebody made a backup meanwhile"
            raise RepositoryLockLost(where=self._repository.where, reason=reason)

    def _remove(self, names: Iterable[str], what: str, count: int) -> None:
        """Delete packs, several at once; those that object lock still keeps are only noted."""
        with self._step(what, count) as tell:
            for held in counted(in_order(REMOVERS, self._delete, names), tell):
                if held:
                    self._result.held.append(held)

    def _delete(self, name: str) -> str:
        self._still_ours()
        try:
            self._repository.store.delete(name)
        except RetentionHolds:
            return name
        return ""

    # --- repacking ---

    def _repacked(self, inventory: Inventory, tidying: Tidying, tell: Tell) -> Iterator[Pack]:
        """Store what stays of packs in new ones, and give these."""
        sizes = inventory.implied
        stays = partial(self._stays, tidying, sizes)
        pieces = chain.from_iterable(in_order(_READERS, stays, tidying.packs(Fate.REPACK)))
        blobs = chain.from_iterable(in_order(_READERS, self._sealed, pieces))
        for pack in store_packs(self._repository, full_packs(blobs), self._still_ours):
            tell(sum(blob.length for blob in pack.blobs))
            yield pack

    def _stays(self, tidying: Tidying, sizes: Sequence[int], number: int) -> list[list[Place]]:
        """Return the blobs of a pack that stay, by its own header, in pieces to be read at once."""
        pack = tidying.index.pack(number)
        with damage_in(self._repository.where, pack_name(pack)):
            header = read_header(
                self._repository.key, sizes[number], partial(self._stored.part, pack)
            )
            staying = [blob for blob in header if tidying.stays(number, blob)]
            if sum(blob.length for blob in staying) != tidying.used[number]:
                raise DamagedError("its header does not list what the index does")
        return list(runs(Place(pack, blob) for blob in staying))

    def _sealed(self, run: list[Place]) -> list[Sealed]:
        """Read blobs and check them."""
        found = []
        for place, stored in read_run(self._stored, run):
            blob = place.blob
            with damage_in(self._repository.where, pack_name(place.pack)):
                unseal_blob(self._repository.key, blob, stored)
            found.append(Sealed(blob.kind, blob.id, bytes(stored), blob.size, blob.compressed))
        return found

    def _step(self, name: str, total: int = 0) -> AbstractContextManager[Tell]:
        return step(self._observer, name, self._repository.where, total)
