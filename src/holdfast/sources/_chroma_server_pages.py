"""Listing the ids of a collection, and asking for its records by them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ._chroma_server_api import EVERYTHING, Api, Collection, Gone, Page, TooMuch
from ._chroma_server_book import IdBook

FIRST_PAGE = 64  # records, until it is known how large they are
PAGE_BYTES = 12 << 20  # of JSON; as numbers they take five times that
GROW = SHRINK = 4


class Reader:
    """Reads collections of a server in pages of at most so many records."""

    def __init__(self, api: Api, page_size: int) -> None:
        self._api = api
        self._page_size = page_size

    def list(self, one: Collection, ids: IdBook, turn: int) -> None:
        """Note all ids of a collection; raises `Gone`."""

        def take(lists: Iterator[list[str]]) -> None:
            for texts in lists:
                ids.list(texts, turn)

        self._api.ids(one, take)

    def pages(
        self,
        one: Collection,
        ids: IdBook,
        turn: int,
        *,
        taken: bool = False,
        include: Sequence[str] = EVERYTHING,
    ) -> Iterator[Page]:
        """Give the records of ids that were listed in a turn, as far as they are there.

        Those that have no record yet, or with ``taken`` those that have one. The pages are as large
        as fits: raises `ServerFailed` where a single record is too large, and `Gone`.
        """
        size, place = min(FIRST_PAGE, self._page_size), 0
        while asked := ids.listed(turn, place, size, taken=taken):
            try:
                page = self._api.records(one, list(asked), include)
            except TooMuch:
                if len(asked) == 1:
                    raise self._api.failed(f"a record of {one.name} is too large") from None
                size = max(1, len(asked) // SHRINK)
                continue
            place = max(asked.values())
            yield page
            fitting = PAGE_BYTES * max(1, len(page.ids)) // max(1, page.size)
            size = max(1, min(fitting, size * GROW, self._page_size))

    def keys(self, one: Collection, ids: IdBook, metadata: str | None) -> Iterator[str]:
        """Give the ids of a collection, or one metadata value of each id that has it, as text."""
        ids.open(one.id)
        try:
            self.list(one, ids, 1)
            if metadata is None:
                yield from ids.all()
                return
            for page in self.pages(one, ids, 1, include=("metadatas",)):
                for values in page.columns["metadatas"]:
                    if values and metadata in values:
                        yield _text(values[metadata])
        except Gone:
            raise self._api.failed(f"{one.name} was deleted while it was read") from None


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
