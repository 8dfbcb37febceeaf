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
from holdfast.model.artifact import CHUNK, LARGE, Chunk, Chunks, Divided, Entry, TreeItems

from .blobs import Kind, unseal_blobs
from .damage import damage_in
from .index import Place, Places
from .line import Line, Outcome
from .nodes import Node
from .packs import pack_name
from .repository import Repository
from .runs import THREADS, is_near, longest_run, position, read_run, runs
from .stretches import stretches
from .walk import Note, walk

_CORES = os.cpu_count() or 1
BATCH = (32 << 20) // THREADS  # bytes of plaintext read together: as many, however many threads
MOST_IN_BATCH = 2000  # entries and blobs
ITEM = 1 << 10  # bytes that one of these takes, the plaintext aside


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is read at once, and ahead; both in bytes of plaintext."""

    threads: int
    batch: int
    ahead: int  # read before somebody takes it


FAR = Pace(THREADS, BATCH, 24 << 20)
# In a folder here nothing is won by reading much at once, and fresh memory takes its time.
NEAR = Pace(min(8, _CORES + 1), 2 << 20, 8 << 20)


@dataclass(frozen=True, slots=True)
class _Head:
    """An entry, and how many blobs of its follow; those of a large file are read on their own."""

    entry: Entry
    following: int
    apart: Sequence[Places] = ()


Wanted = _Head | Places
Result = _Head | Chunk | HoldfastError


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
            yield head.entry, _large(repository, head, threads)
            continue
        content = _Following(results, head.following)
        yield head.entry, content.chunks()
        content.pass_over()


def _large(repository: Repository, head: _Head, threads: ThreadPoolExecutor) -> Chunks:
    in_order = _content(repository, iter(head.apart), threads)
    if head.entry.extents is not None:
        return in_order
    return Divided(in_order, stretches(repository, head.apart))


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
    assert not isinstance(result, _Head)  # noqa: S101 - as many blobs follow a head as it says
    if len(result) <= CHUNK:
        yield result
        return
    view = memoryview(result)
    yield from (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


# --- ahead ---------------------------------------------------------------------------------------


@contextmanager
def _threads(repository: Repository) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(_pace(repository).threads, "read") as threads:
        try:
            yield threads
        finally:
            threads.shutdown(cancel_futures=True)


def _pace(repository: Repository) -> Pace:
    return NEAR if is_near(repository.store) else FAR


def _content(
    repository: Repository, wanted: Iterator[Places], threads: ThreadPoolExecutor
) -> Generator[Chunk, None, None]:
    """Give the content of one file; whoever takes it reads ahead, and nobody else."""
    coming: deque[Future[_Loaded]] = deque()
    pace = _pace(repository)
    for batch in _batches(wanted, pace.batch):
        coming.append(threads.submit(_load, repository, batch))
        if len(coming) > pace.ahead // pace.batch:
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
    outcome, pace = Outcome(), _pace(repository)
    line: Line[Future[_Loaded]] = Line(outcome, pace.ahead)

    def plan() -> None:
        try:
            for batch in _batches(wanted, pace.batch):
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
    def is_ready(self) -> bool:
        """Whether its last item waits for nothing: a file that is read apart can be begun."""
        last = self.items[-1]
        return isinstance(last, _Head) and bool(last.apart)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A batch that was read."""

    results: Sequence[Result]
    weight: int


def _batches(wanted: Iterable[Wanted], size: int) -> Iterator[_Batch]:
    batch = _Batch()
    try:
        for item in wanted:
            batch.add(item)
            if batch.size >= size or len(batch.items) >= MOST_IN_BATCH or batch.is_ready:
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
) -> dict[bytes, Chunk | HoldfastError]:
    """Return the plaintext of blobs of one kind by their ids, or what is wrong with them.

    What lies close together is read with one call. All are held at once.
    """
    by_id = {places[0].blob.id: places for places in wanted}
    plain: dict[bytes, Chunk | HoldfastError] = {}
    first = sorted((places[0] for places in by_id.values()), key=position)
    for run in runs(first, longest_run(repository)):
        try:
            plain.update(_run(repository, run))
        except HoldfastError:  # one of them: each on its own, and from other packs
            plain.update({place.blob.id: _alone(repository, by_id[place.blob.id]) for place in run})
    return plain


def _run(repository: Repository, run: Sequence[Place]) -> Iterator[tuple[bytes, Chunk]]:
    """Read a run with one call, and give its blobs."""
    sealed = [(place.blob, stored) for place, stored in read_run(repository, run)]
    with damage_in(repository.where, pack_name(run[0].pack)):
        yield from unseal_blobs(repository.key, sealed)


def _alone(repository: Repository, places: Places) -> bytes | HoldfastError:
    try:
        return repository.read(places)
    except HoldfastError as error:
        return error
