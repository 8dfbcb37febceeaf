"""Reading content: blobs in the order they are wanted, some of them ahead, many at once.

What is wanted next is gathered into batches. Threads take a batch each: they read what lies close
together in a pack with one call, unseal it and check it. Memory is bounded by the batches that are
read ahead, whatever the sizes; a blob that is larger than a batch is one of its own.

A blob that is damaged, and lies nowhere else, is an error for whoever reads that content, and for
nobody else: everything after it can still be read.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from holdfast.errors import HoldfastError
from holdfast.model.artifact import CHUNK, LARGE, Chunk, Chunks, Entry, TreeItems

from .blobs import Kind, unseal_blobs
from .damage import damage_in
from .index import Place
from .line import Line, Outcome
from .nodes import Node
from .packs import PACKS, pack_name
from .repository import Repository
from .walk import Note, walk

_CORES = os.cpu_count() or 1
THREADS = min(8, _CORES + 2)  # some wait for the store while others compute
NEAR_THREADS = min(8, _CORES + 1)  # where the store is a folder here
BATCH = (32 << 20) // THREADS  # bytes of plaintext read together: as many, however many threads
AHEAD = 24 << 20  # bytes of plaintext that are read before somebody takes them
MOST_IN_BATCH = 2000  # entries and blobs
ITEM = 1 << 10  # bytes that one of these takes, the plaintext aside
GAP = 64 << 10  # bytes not wanted that are read rather than asking once more
LONGEST_PART = 16 << 20
NEAR_PART = 4 << 20  # of a folder here: another call costs little, and memory used again less


@dataclass(frozen=True, slots=True)
class _Head:
    """An entry, and how many blobs of its follow; those of a large file are read on their own."""

    entry: Entry
    following: int
    apart: Sequence[Places] = ()


Places = list[Place]
Wanted = _Head | Places
Result = _Head | bytes | HoldfastError


def read_file(repository: Repository, node: Node) -> Generator[Chunk, None, None]:
    """Give the content of a file, holes as zeros."""
    wanted = (repository.places(Kind.DATA, id_) for id_ in node.content)
    with _threads(repository) as threads:
        yield from _content(repository, wanted, threads)


@contextmanager
def read_tree(repository: Repository, root: Node, note: Note) -> Iterator[TreeItems]:
    """Give a node and everything below it with its contents; see `walk` for ``note``.

    The content of large files may be taken apart from the rest, as `Tree.apart` has it.
    """
    with (
        _threads(repository) as threads,
        _planned(repository, _wanted(repository, root, note), threads) as results,
    ):
        yield _items(repository, results, threads)


def _wanted(repository: Repository, root: Node, note: Note) -> Iterator[Wanted]:
    for found in walk(repository, root, note):
        if found.entry.stored_size >= LARGE:
            yield _Head(found.entry, 0, found.content)
        else:
            yield _Head(found.entry, len(found.content))
            yield from found.content


def _items(
    repository: Repository, results: Iterator[Result], threads: ThreadPoolExecutor
) -> TreeItems:
    for head in results:
        if isinstance(head, HoldfastError):  # of a folder that could not be read
            raise head
        assert isinstance(head, _Head)  # noqa: S101 - all blobs were taken
        if head.apart:
            yield head.entry, _content(repository, iter(head.apart), threads)
            continue
        content = _Following(results, head.following)
        yield head.entry, content.chunks()
        content.pass_over()


class _Following:
    """The blobs that follow an entry."""

    def __init__(self, results: Iterator[Result], blobs: int) -> None:
        self._results = results
        self._blobs = blobs

    def chunks(self) -> Chunks:
        """Give what was not given yet."""
        while self._blobs:
            self._blobs -= 1
            yield from _chunks(next(self._results))

    def pass_over(self) -> None:
        """Go on to what comes after them."""
        while self._blobs:
            self._blobs -= 1
            next(self._results)


def _chunks(result: Result) -> Chunks:
    if isinstance(result, HoldfastError):
        raise result
    assert isinstance(result, bytes)  # noqa: S101 - as many blobs follow a head as it says
    if len(result) <= CHUNK:
        yield result
        return
    view = memoryview(result)
    yield from (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


# --- ahead ---------------------------------------------------------------------------------------


@contextmanager
def _threads(repository: Repository) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(NEAR_THREADS if _near(repository) else THREADS, "read") as threads:
        try:
            yield threads
        finally:
            threads.shutdown(cancel_futures=True)


def _content(
    repository: Repository, wanted: Iterator[Places], threads: ThreadPoolExecutor
) -> Generator[Chunk, None, None]:
    """Give the content of one file; whoever takes it reads ahead, and nobody else."""
    coming: deque[Future[_Loaded]] = deque()
    for batch in _batches(wanted):
        coming.append(threads.submit(_load, repository, batch))
        if len(coming) > AHEAD // BATCH:
            yield from _all_chunks(coming.popleft().result())
    while coming:
        yield from _all_chunks(coming.popleft().result())


def _all_chunks(loaded: _Loaded) -> Chunks:
    for result in loaded.results:
        yield from _chunks(result)


@contextmanager
def _planned(
    repository: Repository, wanted: Iterator[Wanted], threads: ThreadPoolExecutor
) -> Iterator[Iterator[Result]]:
    """Give what is wanted; a thread of its own finds out what that is."""
    outcome = Outcome()
    line: Line[Future[_Loaded]] = Line(outcome, AHEAD)

    def plan() -> None:
        try:
            for batch in _batches(wanted):
                line.put(threads.submit(_load, repository, batch), batch.weight)
            line.end()
        except BaseException as error:  # noqa: BLE001 - raised again where the results are taken
            outcome.fail(error)

    planner = Thread(target=plan, name="plan")
    planner.start()
    try:
        yield _results(line, outcome)
    finally:
        outcome.fail(_NobodyWaits())
        planner.join()


class _NobodyWaits(Exception):
    """What is read ahead is not wanted any more."""


def _results(line: Line[Future[_Loaded]], outcome: Outcome) -> Iterator[Result]:
    while (coming := line.take()) is not None:
        loaded = coming.result()
        yield from loaded.results
        line.done(loaded.weight)
    outcome.check()


@dataclass(slots=True)
class _Batch:
    """What is read together; an error in finding that out comes in its place, and is the last."""

    items: list[Wanted | HoldfastError] = field(default_factory=list)
    size: int = 0  # of the plaintext, in bytes

    def add(self, item: Wanted | HoldfastError) -> None:
        self.items.append(item)
        if isinstance(item, list):
            self.size += item[0].blob.size

    @property
    def weight(self) -> int:
        """About how much memory it takes."""
        return self.size + len(self.items) * ITEM

    @property
    def full(self) -> bool:
        return self.size >= BATCH or len(self.items) >= MOST_IN_BATCH


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A batch that was read."""

    results: Sequence[Result]
    weight: int


def _batches(wanted: Iterable[Wanted]) -> Iterator[_Batch]:
    batch = _Batch()
    try:
        for item in wanted:
            batch.add(item)
            if batch.full:
                yield batch
                batch = _Batch()
    except HoldfastError as error:
        batch.add(error)
    if batch.items:
        yield batch


def _load(repository: Repository, batch: _Batch) -> _Loaded:
    wanted = [item for item in batch.items if isinstance(item, list)]
    plain = read_blobs(repository, wanted)
    results = [plain[item[0].blob.id] if isinstance(item, list) else item for item in batch.items]
    return _Loaded(results, batch.weight)


def read_blobs(
    repository: Repository, wanted: Iterable[Places]
) -> dict[bytes, bytes | HoldfastError]:
    """Return the plaintext of blobs of one kind by their ids, or what is wrong with them.

    What lies close together is read with one call. All are held at once.
    """
    by_id = {places[0].blob.id: places for places in wanted}
    plain: dict[bytes, bytes | HoldfastError] = {}
    first = sorted((places[0] for places in by_id.values()), key=_position)
    for run in runs(first, NEAR_PART if _near(repository) else LONGEST_PART):
        try:
            plain.update(_run(repository, run))
        except HoldfastError:  # one of them: each on its own, and from other packs
            plain.update({place.blob.id: _alone(repository, by_id[place.blob.id]) for place in run})
    return plain


def _near(repository: Repository) -> bool:
    return repository.store.path(PACKS) is not None


def _position(place: Place) -> tuple[bytes, int]:
    return place.pack, place.blob.offset


def runs(places: Iterable[Place], longest: int = LONGEST_PART) -> Iterator[list[Place]]:
    """Give blobs that lie close together in one pack as one run, given in the order they lie in."""
    run: list[Place] = []
    start = end = 0
    for place in places:
        blob = place.blob
        far = blob.offset - end > GAP or blob.offset + blob.length - start > longest
        if run and (far or place.pack != run[0].pack):
            yield run
            run = []
        if not run:
            start = blob.offset
        run.append(place)
        end = blob.offset + blob.length
    if run:
        yield run


def _run(repository: Repository, run: Sequence[Place]) -> Iterator[tuple[bytes, bytes]]:
    """Read a run with one call, and give its blobs."""
    sealed = [(place.blob, stored) for place, stored in read_run(repository, run)]
    with damage_in(repository.where, pack_name(run[0].pack)):
        yield from unseal_blobs(repository.key, sealed)


def read_run(repository: Repository, run: Sequence[Place]) -> Iterator[tuple[Place, memoryview]]:
    """Read a run with one call, and give its blobs sealed, as they lie there."""
    start, last = run[0].blob.offset, run[-1].blob
    read = memoryview(repository.part(run[0].pack, start, last.offset + last.length - start))
    for place in run:
        at = place.blob.offset - start
        yield place, read[at : at + place.blob.length]


def _alone(repository: Repository, places: Places) -> bytes | HoldfastError:
    try:
        return repository.read(places)
    except HoldfastError as error:
        return error
