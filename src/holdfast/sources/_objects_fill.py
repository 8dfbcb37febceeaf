"""Filling a restore: what a bucket lacks is uploaded beside its live objects, many at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from holdfast.errors import TreeUnsafe
from holdfast.model.artifact import Chunks, Entry, EntryKind, Tree
from holdfast.s3.xml import Listed

from ._objects_ahead import Work, ahead
from ._objects_bucket import Bucket, Upload
from ._objects_entry import Described
from ._objects_keys import NotAKeyError, key_of, versioned_key
from ._objects_plan import Plan

PART = 8 << 20  # bytes of an upload's part, unless the object was uploaded by others
LARGEST_PART = 32 << 20  # of which several are in memory
SINGLE = 32 << 20  # bytes of an object that is uploaded whole, if it was so before
MOST_PARTS = 10_000
ROOM = 48 << 20  # bytes that wait to be uploaded

Outcome = Callable[[], None]
"""What is to be written down of a piece of work when all before it is done."""


@dataclass(slots=True)
class Filler:
    """Stages the objects of one tree."""

    live: Bucket
    prefix: str  # of the live objects
    aside: Bucket  # where objects are staged; it may be the same one
    staging: str  # the prefix of the staged ones
    component: str
    concurrency: int
    plan: Plan
    keeps_versions: bool  # whether the live bucket does

    def fill(self, tree: Tree) -> None:
        """Read the tree to its end; every byte of it is staged, or found to be there already.

        Raises:
            TreeUnsafe: the tree does not hold objects as we write them.
            HoldfastError: the vault cannot be read, or the bucket cannot be written.

        """
        threads = ThreadPoolExecutor(self.concurrency, "objects")
        try:
            with (
                tree.open() as items,
                closing(ahead(threads, self._works(items), ROOM)) as outcomes,
            ):
                for outcome in outcomes:
                    outcome.result()()
        except BaseException:
            self.live.client.abandon()
            self.aside.client.abandon()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _works(self, items: Iterator[tuple[Entry, Chunks]]) -> Iterator[Work[Outcome]]:
        for entry, chunks in items:
            if entry.kind is EntryKind.FOLDER:
                continue
            if entry.kind is not EntryKind.FILE or entry.extents is not None:
                raise self._unsafe(entry, "it is not a plain file, as objects are")
            described = Described.from_entry(entry, self.component)
            try:
                old = versioned_key(entry.path)
                key = key_of(entry.path) if old is None else old
            except NotAKeyError as error:
                raise self._unsafe(entry, "no object has this path") from error
            if old is None:
                yield from self._object(entry, key, described, chunks)
            else:
                yield from self._version(entry, key, described, chunks)

    # --- objects ---

    def _object(
        self, entry: Entry, key: str, described: Described, chunks: Chunks
    ) -> Iterator[Work[Outcome]]:
        number = self.plan.want(key, described.size)
        if number is None:
            raise self._unsafe(entry, "it comes twice")
        live = self.plan.there(key)
        stage = f"{self.staging}new/{number}"
        done = partial(self.plan.staged, "wanted", number)
        if _single(described):
            body = _whole(chunks, described.size)
            self._demand(entry, len(body))
            known = live is not None and _same(live, described, body)
            if not known:
                yield Work(partial(self._put, stage, body, described, done), described.size)
        else:
            known = live is not None and _same(live, described)
            if known:
                self._demand(entry, sum(len(chunk) for chunk in chunks))
            else:
                yield from self._parts(entry, stage, described, chunks, done)
        if known and live is not None:
            dressed = partial(self.plan.staged, "wanted", number, dressed=True)
            yield Work(partial(self._dress, key, live, stage, described, dressed), 0)

    def _put(self, stage: str, body: bytes, described: Described, done: Outcome) -> Outcome:
        self.aside.put(stage, body, described.attributes)
        return done

    def _dress(
        self, key: str, live: Listed, stage: str, described: Described, done: Outcome
    ) -> Outcome:
        """Stage an object whose content is there already, unless all of it is as it should be."""
        whole = self.prefix + key
        head = self.live.head(whole)
        if head is not None and head.etag == live.etag:  # noqa: SIM102 - tags cost a request
            if self.live.described(whole, head) == described.attributes:
                return _nothing
        self.live.dress(
            whole, self.aside, stage, described.size, described.attributes, etag=live.etag
        )
        return done

    def _parts(
        self, entry: Entry, stage: str, described: Described, chunks: Chunks, done: Outcome
    ) -> Iterator[Work[Outcome]]:
        upload = Upload(self.aside, stage, described.attributes)
        size = 0
        for number, part in enumerate(_cut(chunks, _part_size(described)), 1):
            size += len(part)
            yield Work(partial(_part, upload, number, part), len(part))
        self._demand(entry, size)
        yield Work(lambda: partial(_complete, upload, done), 0)

    # --- old versions ---

    def _version(
        self, entry: Entry, key: str, described: Described, chunks: Chunks
    ) -> Iterator[Work[Outcome]]:
        """Stage what a key was once, if the bucket keeps versions and has none of this key."""
        number = self.plan.want_version(key, described.size, deleted=described.deleted)
        done = partial(self.plan.staged, "versions", number)
        stage = f"{self.staging}versions/{number}"
        if not self.keeps_versions or self.plan.has_history(key):
            self._demand(entry, sum(len(chunk) for chunk in chunks))
        elif described.deleted:
            yield Work(lambda: done, 0)
        elif _single(described):
            body = _whole(chunks, described.size)
            self._demand(entry, len(body))
            yield Work(partial(self._put, stage, body, described, done), described.size)
        else:
            yield from self._parts(entry, stage, described, chunks, done)

    def _demand(self, entry: Entry, size: int) -> None:
        if size != entry.size:
            raise self._unsafe(entry, f"it has {size} bytes of data instead of {entry.size}")

    def _unsafe(self, entry: Entry, reason: str) -> TreeUnsafe:
        return TreeUnsafe(component=self.component, path=entry.path, reason=reason)


def _nothing() -> None:
    """Write down nothing: it is there already."""


def _part(upload: Upload, number: int, part: bytearray) -> Outcome:
    upload.put(number, part)
    return _nothing


def _complete(upload: Upload, done: Outcome) -> None:
    upload.complete()
    done()


def _single(described: Described) -> bool:
    """Tell whether an object is uploaded whole: then its entity tag is its checksum, as before."""
    if described.part_size:
        return False
    return described.size <= (PART if "-" in described.etag else SINGLE)


def _part_size(described: Described) -> int:
    """Return the size of the parts: the same as before where that can be, for the same tag."""
    size = described.part_size or PART
    if size > LARGEST_PART:
        size = PART
    return max(size, -(-described.size // MOST_PARTS))


def _same(live: Listed, described: Described, body: bytes | None = None) -> bool:
    """Tell whether a live object has this content, without reading it.

    Equal entity tags of equally large objects are made of equal contents. Where a server copied an
    object that was uploaded in parts, its tag has become the checksum of the content.
    """
    if not live.etag or live.size != described.size:
        return False
    if live.etag == described.etag:
        return True
    return body is not None and (
        live.etag == f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
    )


def _whole(chunks: Chunks, size: int) -> bytes:
    """Return a content; of one that is longer than announced only as much as shows that."""
    parts = []
    got = 0
    for chunk in chunks:
        parts.append(bytes(chunk) if got + len(chunk) <= size else bytes(chunk[: size + 1 - got]))
        got += len(chunk)
        if got > size:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _cut(chunks: Chunks, size: int) -> Iterator[bytearray]:
    """Give a content in parts of one size; the last one may be smaller."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= size:
            part, waiting = waiting[:size], waiting[size:]
            yield part
    if waiting:
        yield waiting
