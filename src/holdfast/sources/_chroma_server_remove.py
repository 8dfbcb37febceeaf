"""Removing collections so that nothing of them comes back.

Servers up to 1.5.9 at least do not remove lists in metadata together with a collection; records
that are written later then take them over, in whatever collection (chroma-core/chroma#7594). With a
record they are removed. So the records that have such lists go first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ._chroma_server_api import Api, Collection, Gone, Page
from ._chroma_server_book import IdBook
from ._chroma_server_pages import Reader

PAGE = 1000


def remove(api: Api, one: Collection) -> None:
    """Remove a collection, if it is there."""
    with (
        TemporaryDirectory(prefix="holdfast-ids-") as folder,
        closing(IdBook(Path(folder) / "ids.db")) as ids,
    ):
        ids.open(one.id)
        reader = Reader(api, PAGE)
        try:
            reader.list(one, ids, 1)
            for page in reader.pages(one, ids, 1, include=("metadatas",)):
                if listed := list(_with_lists(page)):
                    api.delete_records(one, listed)
        except Gone:
            return
    api.delete_collection(one.place, one.name)


def _with_lists(page: Page) -> Iterator[str]:
    for name, metadata in zip(page.ids, page.columns["metadatas"], strict=True):
        if any(isinstance(value, list) for value in (metadata or {}).values()):
            yield name
