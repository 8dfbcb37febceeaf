"""Reading a bucket as a tree: many requests at once, results in the order of the keys.

What is read is always one whole version of an object. Small ones are read by one request, large
ones in pieces, each of which is refused by the server if the object is another one by then. Memory
is bounded by `ROOM`, whatever the objects.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice

from holdfast.errors import HoldfastError, ServerFailed, SourceUnstable
from holdfast.model.artifact import CHUNK, Chunks, Entry, EntryKind, TreeItems
from holdfast.s3.http import Answer
from holdfast.s3.xml import Listed, nanoseconds

from ._objects_ahead import Work, ahead
from ._objects_bucket import CHANGED, GONE, Bucket
from ._objects_entry import Attributes, Described, http_time
from ._objects_keys import Places, version_folder
from ._objects_tally import Tally

PIECE = 8 << 20  # bytes of an object that one request reads
ROOM = 24 << 20  # bytes that are read ahead
CHANGES = 4  # how often an object is read again that changes each time
_MD5 = re.compile(r'"[0-9a-f]{32}"')
PARTS = "x-amz-mp-parts-count"


@dataclass(frozen=True, slots=True)
class Got:
    """A small object, or what is known of a large one."""

    described: Described
    body: bytes | bytearray | None  # None: it is read in pieces


Result = Got | bytes | bytearray | None
"""What one request gives: an object, a piece of one, or None where there is not what was asked."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How a bucket is read."""

    bucket: Bucket
    prefix: str
    concurrency: int
    belongs: Callable[[str], bool]  # whether a key, without the prefix, is backed up
    versions: bool = False
    tags: str = "auto"  # or always, or never
    checksums: bool = True

    # --- listing ---

    def listed(self) -> Iterator[Listed]:
        """Give what is there: with old versions those of one key together, the oldest first."""
        if not self.versions:
            yield from filter(self._ours, self.bucket.objects(self.prefix))
            return
        every = filter(self._ours, self.bucket.versions(self.prefix))
        for _key, group in groupby(every, lambda one: one.key):
            yield from reversed(list(group))

    def _ours(self, one: Listed) -> bool:
        return self.belongs(one.key.removeprefix(self.prefix))

    def count(self, tally: Tally) -> None:
        """Count what is there, without reading it."""
        for one in self.listed():
            if one.latest and not one.deleted:
                tally.add(one.size)
            else:
                tally.add_version()

    # --- reading ---

    def items(self, tally: Tally, made_ns: int) -> TreeItems:
        """Give the objects as files of a tree, each after the folders it lies in.

        Raises:
            SourceUnstable: a large object was replaced while it was read.
            ServerFailed: the bytes of an object are not those that the server says they are.
            HoldfastError: as the server cannot be asked, or refuses.

        """
        tally.tagged = 0
        yield _folder(".", made_ns), iter(())
        places = _Places(self.prefix)
        with self._threads() as threads:
            for one, described, content in self._contents(threads, tally):
                path, folders = places.of(one)
                for folder in folders:
                    yield _folder(folder, made_ns), iter(())
                yield described.entry(path), content
                if one.latest and not one.deleted:
                    tally.add(described.size, tagged=bool(described.attributes.tags))
                else:
                    tally.add_version()

    @contextmanager
    def _threads(self) -> Iterator[ThreadPoolExecutor]:
        threads = ThreadPoolExecutor(self.concurrency, "objects")
        try:
            yield threads
        except BaseException:
            self.bucket.client.abandon()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _contents(
        self, threads: ThreadPoolExecutor, tally: Tally
    ) -> Iterator[tuple[Listed, Described, Chunks]]:
        asked: deque[tuple[Listed, int]] = deque()  # what, and in how many pieces after the first
        with closing(ahead(threads, self._works(asked), ROOM)) as results:
            for first in results:
                one, count = asked.popleft()
                pieces = islice(results, count)
                got = first.result()
                if isinstance(got, Got):
                    if one.etag and got.described.etag != one.etag:
                        tally.change(one.key, "it was replaced between listing and reading")
                    yield one, got.described, self._content(one, got, pieces)
                else:
                    tally.change(one.key, "it vanished between listing and reading")
                for unused in pieces:
                    unused.cancel()

    def _works(self, asked: deque[tuple[Listed, int]]) -> Iterator[Work[Result]]:
        """Give the requests that read everything, in order; ``asked`` remembers what they are."""
        for one in self.listed():
            if one.size <= PIECE:
                asked.append((one, 0))
                yield Work(partial(self._small, one), one.size)
                continue
            starts = range(0, one.size, PIECE)
            asked.append((one, len(starts)))
            yield Work(partial(self._large, one), 0)
            for start in starts:
                length = min(PIECE, one.size - start)
                read = partial(self._piece, one.key, one.version, one.etag, start, length)
                yield Work(read, length)

    # --- in the threads ---

    def _small(self, one: Listed) -> Got | None:
        if one.deleted:
            changed = nanoseconds(one.changed)
            return Got(Described(0, changed_ns=changed, version=one.version, deleted=True), b"")
        for _time in range(CHANGES):
            answer = self.bucket.read(one.key, one.version, limit=PIECE)
            if answer.status == GONE:
                return None
            if answer.longer:
                return self._large(one)
            if answer.status == CHANGED:
                reason = f"{one.key} was replaced each time it was read"
                problem: HoldfastError = self._unstable(reason)
            elif self.checksums and _plain_md5(answer) and _md5(answer.body) != answer.etag:
                problem = self._rotten(one.key)
            else:
                return Got(self._described(one, answer, len(answer.body)), answer.body)
        raise problem

    def _large(self, one: Listed) -> Got | None:
        """Return what is known of an object that is read in pieces."""
        head = self.bucket.head(one.key, one.version)
        if head is None:
            return None
        part_size = 0
        if _several_parts(head.etag):
            first = self.bucket.head(one.key, one.version, part=1)
            if first is not None and first.etag == head.etag and PARTS in first.headers:
                part_size = int(first.headers["content-length"])
        size = int(head.headers["content-length"])
        return Got(replace(self._described(one, head, size), part_size=part_size), None)

    def _piece(self, key: str, version: str, etag: str, start: int, length: int) -> Result:
        """Read a piece of exactly that object; None where it is another one now, or gone."""
        answer = self.bucket.read(key, version, start=start, length=length, etag=etag, limit=length)
        if answer.status in {GONE, CHANGED} or len(answer.body) != length:
            return None
        return answer.body

    def _described(self, one: Listed, answer: Answer, size: int) -> Described:
        version = one.version or answer.headers.get("x-amz-version-id", "")
        counted = answer.headers.get("x-amz-tagging-count", "0") != "0"
        wanted = self.tags == "always" or (self.tags == "auto" and counted)
        tags = self.bucket.tags(one.key, version) if wanted else {}
        listed = answer.etag == one.etag
        changed = nanoseconds(one.changed) if listed else http_time(answer.headers)
        return Described(
            size=size,
            etag=answer.etag,
            changed_ns=changed,
            attributes=Attributes.of(answer.headers, tags),
            version="" if version == "null" else version,
        )

    # --- in order ---

    def _content(self, one: Listed, got: Got, pieces: Iterator[Future[Result]]) -> Chunks:
        if got.body is not None:
            yield from _chunks(got.body)
            return
        described = got.described
        digest = hashlib.md5(usedforsecurity=False)
        checked = self.checksums and _MD5.fullmatch(described.etag) is not None
        for start in range(0, described.size, PIECE):
            length = min(PIECE, described.size - start)
            ready = next(pieces, None)
            piece = ready.result() if ready is not None and described.etag == one.etag else None
            if piece is None:
                piece = self._piece(one.key, described.version, described.etag, start, length)
            if piece is None or isinstance(piece, Got):
                raise self._unstable(f"{one.key} was replaced while it was read")
            if checked:
                digest.update(piece)
            yield from _chunks(piece)
        if checked and f'"{digest.hexdigest()}"' != described.etag:
            raise self._rotten(one.key)

    def _unstable(self, reason: str) -> HoldfastError:
        client = self.bucket.client
        return SourceUnstable(component=client.component, path=client.where, reason=reason)

    def _rotten(self, key: str) -> HoldfastError:
        client = self.bucket.client
        reason = f"{key}: the bytes it sends do not have the checksum that it says (ETag)"
        return ServerFailed(component=client.component, where=client.where, reason=reason)


class _Places:
    """Where the objects, and apart from them their old versions, lie in the tree."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._current = Places()
        self._folders: set[str] = set()
        self._numbered = ("", 0)

    def of(self, one: Listed) -> tuple[str, list[str]]:
        """Return the path of an object, and the folders that it is the first to need."""
        key = one.key.removeprefix(self._prefix)
        if one.latest and not one.deleted:
            return self._current.add(key)
        last, number = self._numbered
        number = number + 1 if last == key else 1
        self._numbered = key, number
        folder = version_folder(key)
        parts = folder.split("/")
        above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        new = [path for path in above if path not in self._folders]
        self._folders.update(new)
        return f"{folder}/{number:06}", new


def _folder(path: str, made_ns: int) -> Entry:
    return Entry(path, EntryKind.FOLDER, 0o755, made_ns, uid=os.geteuid(), gid=os.getegid())


def _chunks(body: bytes | bytearray) -> Chunks:
    view = memoryview(body)
    return (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


def _md5(body: bytes | bytearray) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _plain_md5(answer: Answer) -> bool:
    """Tell whether an entity tag is the checksum of the content: not if the server encrypts."""
    if answer.headers.get("x-amz-server-side-encryption", "AES256") != "AES256":
        return False
    return "x-amz-server-side-encryption-customer-algorithm" not in answer.headers and (
        _MD5.fullmatch(answer.etag) is not None
    )


def _several_parts(etag: str) -> bool:
    found = re.search(r"-(\d+)\"?$", etag)
    return found is not None and int(found[1]) > 1
