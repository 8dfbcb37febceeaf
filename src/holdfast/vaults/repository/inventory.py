"""What the index says of packs, held against the packs that there are."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from .blobs import Kind
from .index import Index
from .packs import EMPTY_SIZE, ENTRY_SIZE, PACKS, pack_of
from .repository import Repository


@dataclass(slots=True)
class Inventory:
    """The packs of a repository, by their numbers in the index where that lists them."""

    implied: array[int]  # bytes that a pack has by what the index lists of it
    found: array[int]  # bytes that it has; 0: there is none
    unlisted: dict[bytes, int] = field(default_factory=dict)  # what no index file lists: bytes
    wrong: dict[bytes, str] = field(default_factory=dict)  # that are not as listed, and why


def take_inventory(repository: Repository) -> Inventory:
    """List all packs; the index must be loaded, and nobody may add to it meanwhile."""
    index = repository.index
    implied = implied_sizes(index)
    inventory = Inventory(implied, array("Q", bytes(8 * len(implied))))
    for name, size in repository.store.sizes(PACKS):
        pack = pack_of(name)
        if pack is None:
            continue
        number = index.pack_number(pack)
        if number is None:
            inventory.unlisted[pack] = size
        else:
            inventory.found[number] = size
    for number, size in enumerate(implied):
        if (found := inventory.found[number]) != size:
            reason = f"it has {found} bytes, and by the index {size}" if found else "it is missing"
            inventory.wrong[index.pack(number)] = reason
    return inventory


def implied_sizes(index: Index) -> array[int]:
    """Return how large each pack must be, by its number: its blobs, and a header for them."""
    sizes = array("Q", [EMPTY_SIZE]) * index.pack_count()
    for kind in Kind:
        for _id, number, _offset, length, size in index.rows(kind):
            sizes[number] += length + ENTRY_SIZE[size > 0]
    return sizes


def blob_counts(index: Index) -> array[int]:
    """Return how many blobs the index lists in each pack, by its number."""
    counts = array("Q", bytes(8 * index.pack_count()))
    for kind in Kind:
        for _id, number, _offset, _length, _size in index.rows(kind):
            counts[number] += 1
    return counts
