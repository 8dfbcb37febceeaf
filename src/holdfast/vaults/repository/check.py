"""Looking whether a repository is whole: its structure always, its data all or in shares."""

from __future__ import annotations

from contextlib import AbstractContextManager

from holdfast.errors import BackupDamaged, HoldfastError, RepositoryDamaged
from holdfast.model.manifest import Manifest
from holdfast.model.upkeep import EVERYTHING, Checked, Share
from holdfast.ports import Damaged

from . import config, keys, marks
from .ahead import in_order
from .backups import Backups, Sealed
from .crypto import unseal
from .damage import damage_in
from .draft import digest_of
from .examine import THREADS, Examiner
from .inventory import Inventory, take_inventory
from .needed import Needed
from .packs import pack_name
from .repository import Repository
from .snapshots import FOLDER as SNAPSHOTS
from .snapshots import load_snapshot
from .steps import Observer, Tell, counted, nobody, step
from .stored import read_bounded
from .walk import find


def check(
    repository: Repository, *, share: Share | None = EVERYTHING, observer: Observer = nobody
) -> Checked:
    """Look at everything, and read the packs of a share; None: none. The caller holds a lock.

    Read are: the config, all keys, index files, snapshots, trees, manifests and marks. Every pack
    that the index lists must be there, with the size that it then has; everything that a snapshot
    needs must be listed, in such packs; each artifact of a manifest must be the one in its
    snapshot. Of the packs of the share every byte is read once: the hash of the whole against its
    name, the header against the index, each blob against its id.

    Raises:
        HoldfastError: the store cannot be read. What is damaged there is a problem, not an error.

    """
    return _Checking(repository.fresh(), observer).run(share)


class _Checking:
    """One check."""

    def __init__(self, repository: Repository, observer: Observer) -> None:
        self._repository = repository
        self._observer = observer
        self._found = Checked()

    def run(self, share: Share | None) -> Checked:
        names = self._repository.names(SNAPSHOTS)  # before the index, which then lists theirs
        self._small_files()
        with self._step("index"):
            self._repository.load_index(self._found.problem)
            self._found.blobs = len(self._repository.index)
        with self._step("packs"):
            inventory = self._inventory()
        self._snapshots(names, inventory)
        self._backups()
        if share is not None:
            self._data(inventory, share)
        return self._found

    # --- structure ---

    def _small_files(self) -> None:
        """Read what is opened with a password, and what was learned of backups."""
        for name in (config.NAME, *self._below(keys.FOLDER), *self._below(marks.FOLDER)):
            try:
                with damage_in(self._repository.where, name):
                    self._small_file(name)
            except FileNotFoundError:
                if name == config.NAME:
                    raise
            except RepositoryDamaged as error:
                self._found.problem(error)

    def _below(self, folder: str) -> list[str]:
        return sorted(self._repository.store.names(folder))

    def _small_file(self, name: str) -> None:
        store, key = self._repository.store, self._repository.key
        if name == config.NAME:
            config.decode_config(key, read_bounded(store, name, config.LARGEST))
        elif name.startswith(f"{keys.FOLDER}/"):
            stored = read_bounded(store, name, keys.LARGEST)
            keys.describe(name.removeprefix(f"{keys.FOLDER}/"), stored)
        else:
            unseal(key, read_bounded(store, name, marks.LARGEST))

    def _inventory(self) -> Inventory:
        inventory = take_inventory(self._repository)
        self._found.packs = len(inventory.found)
        for pack, reason in inventory.wrong.items():
            self._found.problem(_damage(self._repository, pack_name(pack), reason))
        if inventory.unlisted:
            size = sum(inventory.unlisted.values())
            self._found.hints.append(
                f"{len(inventory.unlisted)} packs, {size} bytes, are in no index file: of runs that"
                " died, or that are under way"
            )
        if copies := self._repository.index.copies():
            self._found.hints.append(f"{copies} blobs are stored more than once")
        return inventory

    def _snapshots(self, names: list[str], inventory: Inventory) -> None:
        needed = Needed(self._repository, inventory.wrong)
        with self._step("snapshots", len(names)) as tell:
            for name in counted(names, tell):
                try:
                    tree = load_snapshot(self._repository, name).tree
                except FileNotFoundError:
                    continue  # it was deleted just now
                except RepositoryDamaged as error:
                    self._found.problem(error)
                    continue
                self._found.snapshots += 1
                for lack in needed.add(tree):
                    reason = f"it needs the {lack}"
                    self._found.problem(_damage(self._repository, f"{SNAPSHOTS}/{name}", reason))

    def _backups(self) -> None:
        """Hold each manifest against its snapshot."""
        for backup in Backups(self._repository).everything():
            if not isinstance(backup, Sealed):
                continue  # a snapshot that cannot be read: known already
            if isinstance(backup.manifest, Damaged):
                self._found.problem(backup.manifest.reason)
            else:
                self._manifest(backup, backup.manifest)

    def _manifest(self, backup: Sealed, manifest: Manifest) -> None:
        for stored in manifest.artifacts:
            try:
                node = find(self._repository, backup.snapshot.tree, stored.path)
            except HoldfastError as error:
                reason = str(error)
            else:
                if node is None:
                    reason = "it is missing"
                elif digest_of(node) != stored.sha256:
                    reason = "it is not the one of the manifest"
                else:
                    continue
            self._found.problem(BackupDamaged(backup=backup.id, path=stored.path, reason=reason))

    # --- data ---

    def _data(self, inventory: Inventory, share: Share) -> None:
        index = self._repository.index
        chosen = [
            number
            for number, size in enumerate(inventory.found)
            if share.has(pack := index.pack(number)) and pack not in inventory.wrong and size
        ]
        examiner = Examiner(self._repository, inventory)
        total = sum(inventory.found[number] for number in chosen)
        with self._step("data", total) as tell:
            for number, reasons in in_order(THREADS, examiner.examine, chosen):
                self._found.packs_read += 1
                self._found.bytes_read += inventory.found[number]
                tell(inventory.found[number])
                name = pack_name(index.pack(number))
                for reason in reasons:
                    self._found.problem(_damage(self._repository, name, reason))

    def _step(self, name: str, total: int = 0) -> AbstractContextManager[Tell]:
        return step(self._observer, name, self._repository.where, total)


def _damage(repository: Repository, path: str, reason: str) -> RepositoryDamaged:
    return RepositoryDamaged(where=repository.where, path=path, reason=reason)
