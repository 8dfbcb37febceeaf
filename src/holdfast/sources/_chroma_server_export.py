"""Reading a server that is written to all the while, so that nothing that stayed is missed.

Pages by offset shift when records before them are deleted, and what moved over the edge is missed.
So the ids of a collection are listed first, and the records then asked for by their ids; after
that the ids are listed again, and what is new is asked for too, until there is nothing new. What
was there from the beginning to the end is then in the export, and nothing that never was.

It is not the state of one instant, because Chroma has no call that holds one: a record that was
changed meanwhile is there as it was when it was read. Reading everything a second time can show
that nothing was changed: a record that was the same before the first reading ended and after the
second began, was the same in between. (Unless it was changed and changed back.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from holdfast.errors import SourceMissing, SourceUnstable
from holdfast.model.facts import Facts, Json

from ._chroma_server_api import Api, Collection, Gone, Page, Place
from ._chroma_server_book import IdBook
from ._chroma_server_format import begin_line, end_line, head_line, last_line, record_lines
from ._chroma_server_pages import Reader
from ._chroma_server_scope import Scope, counted

ROUNDS = 8  # of listing and asking for what is new: applications may never pause
PATIENCE = 3  # rounds in which an id may be listed without its record being given


@dataclass(slots=True)
class Movement:
    """What was seen to change while it was read."""

    came: int = 0
    went: int = 0
    busy: list[str] = field(default_factory=list)  # collections that never came to rest
    gone: list[str] = field(default_factory=list)  # collections that were deleted
    changed: bool | None = None  # whether a second reading found a difference; None: there was none

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing that a person should know."""
        lines = [f"collection {title} was deleted while it was read" for title in self.gone]
        lines += [f"collection {title} grew as fast as it was read" for title in self.busy]
        if self.came or self.went:
            lines.append(f"{self.came} ids came and {self.went} went while they were read")
        if self.changed:
            lines.append("a second reading found changes")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what is known of it."""

    facts: Facts
    instant: datetime
    exact: bool


class Exporter:
    """One reading of everything in a scope into a file."""

    def __init__(self, api: Api, component: str, scope: Scope, *, page_size: int) -> None:
        self._api = api
        self._component = component
        self._scope = scope
        self._reader = Reader(api, page_size)
        self._movement = Movement()
        self._copied: dict[str, tuple[Collection, int]] = {}  # by title
        self._counts: dict[str, int] = {}  # by id; also of those that are gone

    def run(self, file: BinaryIO, book: Path, version: str, *, twice: bool) -> Exported:
        """Write the export. ``book`` is a file for what must be remembered of each id.

        Raises:
            SourceUnstable: a collection was replaced by another of the same name.
            SourceMissing: a collection that the options name was deleted meanwhile.

        """
        began = datetime.now(UTC)
        places = self._scope.places(self._api)
        file.write(head_line(places, version, began))
        with closing(IdBook(book)) as ids:
            for _round in range(ROUNDS):
                found = self._scope.collections(self._api, places)
                if not (fresh := [one for one in found if one.id not in self._counts]):
                    break
                for one in fresh:
                    self._copy(one, file, ids, twice=twice)
            read = datetime.now(UTC)
            if twice:
                self._movement.changed = self._changed(places, ids)
        records = sum(count for _one, count in self._copied.values())
        file.write(last_line(len(self._copied), records, read))
        exact = self._movement.changed is False
        return Exported(self._facts(began, read), read if exact else began, exact)

    def _facts(self, began: datetime, read: datetime) -> Facts:
        facts = counted(self._copied)
        window: dict[str, Json] = {
            "began": began.isoformat(timespec="milliseconds"),
            "ended": read.isoformat(timespec="milliseconds"),
            "read_twice": self._movement.changed is not None,
        }
        return Facts(facts.counts, {**facts.details, "export": window}, self._notes(began, read))

    def _notes(self, began: datetime, read: datetime) -> tuple[str, ...]:
        seconds = (read - began).total_seconds()
        moved = self._movement
        if moved.changed is False:
            return ("read twice without a difference: the state of one instant", *moved.notes)
        window = f"read over {seconds:.1f} s, from {began.isoformat(timespec='seconds')}"
        if moved.notes:
            return (window, *moved.notes)
        return (f"{window}: no id came or went; changes to what is there would not show",)

    # --- one collection ---

    def _copy(self, one: Collection, file: BinaryIO, ids: IdBook, *, twice: bool) -> None:
        title = self._scope.title(one.place, one.name)
        if title in self._copied:
            reason = f"collection {title} was replaced by another"
            raise SourceUnstable(component=self._component, path=one.place, reason=reason)
        self._counts[one.id] = 0
        start = file.tell()
        file.write(begin_line(one, title))
        ids.open(one.id)
        try:
            count = self._records(one, title, file, ids, twice=twice)
        except Gone:
            if self._scope.names is not None:
                raise SourceMissing(component=self._component, path=f"collection {title}") from None
            file.seek(start)
            file.truncate()
            self._movement.gone.append(title)
            return
        file.write(end_line(count))
        self._counts[one.id] = count
        self._copied[title] = (one, count)

    def _records(
        self, one: Collection, title: str, file: BinaryIO, ids: IdBook, *, twice: bool
    ) -> int:
        count = 0
        for turn in range(1, ROUNDS + 1):
            self._reader.list(one, ids, turn)
            if not ids.missing(turn):
                break
            if ids.withheld(turn, PATIENCE):
                raise self._api.failed(f"it lists ids of {title} whose records it does not give")
            for page in self._reader.pages(one, ids, turn):
                lines = self._lines(title, page)
                file.writelines(lines)
                ids.take(page.ids, turn, [_digest(line) for line in lines] if twice else None)
                count += len(lines)
        else:
            self._movement.busy.append(title)
        self._movement.came += ids.came()
        self._movement.went += ids.went(turn)
        return count

    def _lines(self, title: str, page: Page) -> list[bytes]:
        try:
            return record_lines(page)
        except ValueError as error:
            raise self._api.failed(f"collection {title}: {error}") from error

    # --- the second reading ---

    def _changed(self, places: Sequence[Place], ids: IdBook) -> bool:
        """Read everything again, until something is different."""
        before = [one for one, _count in self._copied.values()]
        now = self._scope.collections(self._api, places)
        if [one for one in before if one not in now] or [one for one in now if one not in before]:
            return True
        return any(self._changed_within(one, ids) for one in now)

    def _changed_within(self, one: Collection, ids: IdBook) -> bool:
        ids.open(one.id)
        turn, seen = ROUNDS + 1, 0
        try:
            self._reader.list(one, ids, turn)
            if ids.missing(turn) or ids.went(turn):
                return True
            for page in self._reader.pages(one, ids, turn, taken=True):
                if ids.differ(page.ids, [_digest(line) for line in self._lines(one.name, page)]):
                    return True
                seen += len(page.ids)
        except Gone:
            return True
        return seen != self._counts[one.id]  # one that was deleted since may have been another


def _digest(line: bytes) -> bytes:
    return hashlib.blake2b(line, digest_size=16).digest()
