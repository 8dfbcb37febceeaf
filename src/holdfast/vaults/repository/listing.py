"""Writing index files anew, without the packs that go."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.errors import RepositoryDamaged

from .damage import DamagedError, damage_in
from .index import BLOBS_PER_FILE, listed
from .inventory import blob_counts
from .packs import Pack
from .repository import INDEX, Repository
from .unpacked import from_json, to_json

SMALL = BLOBS_PER_FILE // 5  # an index file of fewer blobs is joined with others


class Listing:
    """Stores index files as packs are listed, each as soon as it is full."""

    def __init__(self, repository: Repository, still_ours: Callable[[], None]) -> None:
        self._repository = repository
        self._still_ours = still_ours
        self._packs: list[dict[str, Any]] = []
        self._blobs = 0
        self.stored: set[str] = set()  # the names of the files

    def pack(self, pack: Pack) -> None:
        """List a pack that was stored."""
        self.add(listed(pack))

    def add(self, pack: dict[str, Any]) -> None:
        """List a pack as another index file does."""
        self._packs.append(pack)
        self._blobs += len(pack["blobs"])
        if self._blobs >= BLOBS_PER_FILE:
            self.finish()

    def finish(self) -> None:
        """Store what is not stored yet."""
        if self._packs:
            self._still_ours()
            document = to_json({"packs": self._packs})
            self.stored.add(self._repository.save(INDEX, document))
            self._packs, self._blobs = [], 0


@dataclass(slots=True)
class _File:
    """An index file: how many blobs it lists, the packs that it lists whole, and if any goes."""

    name: str
    blobs: int = 0
    whole: array[int] = field(default_factory=lambda: array("L"))
    goes: bool = False


def replace_listings(
    repository: Repository, goes: Callable[[int], bool], listing: Listing
) -> list[str]:
    """List again what files list together with packs that go; returns the names of these files.

    Small files are joined, too. Files that list nothing that goes stay. A pack is left out where
    another file lists all of it.
    """
    counts = blob_counts(repository.index)
    files = [
        _file(name, packs, counts, goes)
        for name, packs in _documents(repository, repository.index_files())
    ]
    small = [file.name for file in files if not file.goes and file.blobs < SMALL]
    replaced = [file.name for file in files if file.goes]
    if replaced or len(small) > 1:
        replaced += small
    gone, kept = set(replaced), bytearray(len(counts))
    for file in files:
        if file.name not in gone:
            for number in file.whole:
                kept[number] = 1
    for _name, packs in _documents(repository, replaced):
        for number, pack in packs:
            if not goes(number) and not kept[number]:
                kept[number] = len(pack["blobs"]) == counts[number]
                listing.add(pack)
    return replaced


def _file(
    name: str,
    packs: Iterable[tuple[int, dict[str, Any]]],
    counts: array[int],
    goes: Callable[[int], bool],
) -> _File:
    file = _File(name)
    for number, pack in packs:
        blobs = len(pack["blobs"])
        file.blobs += blobs
        file.goes = file.goes or goes(number)
        if blobs == counts[number]:
            file.whole.append(number)
    return file


def _documents(
    repository: Repository, names: Sequence[str]
) -> Iterator[tuple[str, list[tuple[int, dict[str, Any]]]]]:
    """Give what index files list, with the numbers of the packs. The index has taken it in."""
    for name, document in repository.index_documents(names):
        if isinstance(document, RepositoryDamaged):
            raise document
        with damage_in(repository.where, f"{INDEX}/{name}"):
            if document is None:
                raise DamagedError("somebody removed it meanwhile")
            yield name, [_numbered(repository, pack) for pack in from_json(document)["packs"]]


def _numbered(repository: Repository, pack: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    number = repository.index.pack_number(bytes.fromhex(pack["id"]))
    if number is None:
        raise DamagedError("it is not the one that was read before")
    return number, {"id": pack["id"], "blobs": pack["blobs"] or []}
