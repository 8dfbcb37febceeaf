"""Whether what a backup needs is there at all, judged without reading it."""

from __future__ import annotations

from collections.abc import Iterator

from .blobs import Kind
from .damage import DamagedError, damage_in
from .index import Place, Places
from .nodes import Node
from .packs import PACKS, pack_name
from .repository import Repository
from .walk import pass_over, walk


class Presence:
    """The packs that there are, with their sizes."""

    def __init__(self, repository: Repository) -> None:
        """List them."""
        self._repository = repository
        self._sizes = dict(repository.store.sizes(PACKS))

    def demand(self, node: Node) -> None:
        """Raise `RepositoryDamaged` unless every blob of an artifact lies in a pack that is there.

        Its trees are read for that, its contents are not.
        """
        for places in self._needed(node):
            if not any(self._is_there(place) for place in places):
                name = pack_name(places[0].pack)
                with damage_in(self._repository.where, name):
                    raise DamagedError("this pack is missing, or ends too early")

    def _needed(self, node: Node) -> Iterator[Places]:
        for id_ in node.content:
            yield self._repository.places(Kind.DATA, id_)
        if node.subtree is not None:
            for found in walk(self._repository, node, pass_over):
                yield from found.content

    def _is_there(self, place: Place) -> bool:
        size = self._sizes.get(pack_name(place.pack), -1)
        return place.blob.offset + place.blob.length <= size
