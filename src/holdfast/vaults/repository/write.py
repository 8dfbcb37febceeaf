"""Writing blobs: a bounded pipeline from streams to packs in a store.

Whoever calls reads, cuts and hashes in its own thread, and so knows at once what is new. New blobs
go in batches to threads that compress and seal them; sealed blobs gather into packs, which other
threads store, several at once. Every so often the index of what is stored so far is saved, so that
a run after a crash finds most of it.

Nothing may refer to a blob before `Writer.finish` has returned: then all are stored, durably, and
listed in the index. Packs that a run leaves behind when it dies are in nobody's way.

Memory, whatever the sizes: three times `PLAIN_WAITING`, for what is compressed and sealed from it;
`PACKS_WAITING`, and the two packs that are not full; in each caller 25 MiB at worst, a chunk and
what it is cut from; and what the store needs for `UPLOADS` packs. A folder's tree is one blob,
however large: it comes on top.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Self

from holdfast.errors import BackupExists, Cancelled, HoldfastError
from holdfast.model.artifact import Chunk, Chunks

from .blobs import Kind, Sealed, blob_id, seal_blobs
from .chunks import Chunker
from .line import Line, Outcome
from .packs import TARGET_SIZE, FinishedPack, PackWriter, finish
from .repository import Repository

BATCH = 1 << 20  # bytes of small blobs that are handed over together
PLAIN_WAITING = 16 << 20  # bytes of blobs that were read and are not sealed yet
PACKS_WAITING = 64 << 20  # bytes of packs that are full and not stored yet
UPLOADS = 4  # packs stored at once
MOST_SEALERS = 8
SAVED_EVERY = 120.0  # seconds of work, at most, that a run after a crash must do again

_Batch = list[tuple[Kind, bytes, Chunk]]


@dataclass(slots=True)
class Written:
    """What a writer added to the repository."""

    data_blobs: int = 0
    tree_blobs: int = 0
    size: int = 0  # bytes of blobs, before they were compressed
    stored: int = 0  # bytes of packs


class Writer:
    """Stores files and trees as blobs, each once. To be used as a context, by any threads.

    Leaving the context without `finish` stops everything. The first error, in whatever thread, is
    raised by every call from then on.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        pack_size: int = TARGET_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take a repository whose index is loaded, or everything is stored again.

        Raises `ConfigInvalid` for a repository of a version that is only read.
        """
        repository.check_writable()
        self.written = Written()
        self._repository = repository
        self._index = repository.index
        self._chunker = Chunker(repository.config.polynomial)
        self._outcome = Outcome()
        self._abandoned = False

        self._gathering = threading.Lock()
        self._batch: _Batch = []
        self._batch_size = 0
        self._finishing = False
        self._batches: Line[_Batch] = Line(self._outcome, PLAIN_WAITING)

        self._packing = threading.Lock()
        self._unfinished = {kind: PackWriter(pack_size) for kind in Kind}
        self._packs: Line[list[Sealed]] = Line(self._outcome, PACKS_WAITING)

        self._saving = threading.Lock()
        self._clock = clock
        self._saved = clock()

        sealers = min(MOST_SEALERS, len(os.sched_getaffinity(0)))
        self._sealers = [self._thread(self._seal_batches, "seal") for _ in range(sealers)]
        self._uploaders = [self._thread(self._store_packs, "store") for _ in range(UPLOADS)]

    def __enter__(self) -> Self:
        self._index = self._repository.index  # this one for good, whoever loads another meanwhile
        try:
            for thread in self._threads():
                thread.start()
        except BaseException as error:
            self._stop(error)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what still runs; list what was stored, so that it need not be stored again."""
        self._stop(error or Cancelled())
        if not self._abandoned:
            with suppress(HoldfastError):  # not what went wrong, and only work that is done again
                self._save_index()

    # --- for any thread ---

    def file(self, chunks: Chunks) -> tuple[list[bytes], int]:
        """Store a stream as one file; returns the ids of its blobs, and its size."""
        ids, size = [], 0
        for chunk in self._chunker.cut(chunks):
            ids.append(self._blob(Kind.DATA, chunk))
            size += len(chunk)
        return ids, size

    def tree(self, document: bytes) -> bytes:
        """Store the nodes of a folder; returns the id of the blob."""
        return self._blob(Kind.TREE, document)

    def holds(self, ids: Iterable[bytes]) -> bool:
        """Tell whether a file of an earlier backup need not be read: all its blobs are stored."""
        has = self._index.has
        return all(has(Kind.DATA, id_) for id_ in ids)

    def abandon(self, error: BaseException) -> None:
        """Stop, and store nothing more, not even an index: the repository may be another's now."""
        self._abandoned = True
        self._outcome.fail(error)

    def finish(self) -> None:
        """Wait until everything is stored, and list it. Nothing may be stored afterwards."""
        with self._gathering:
            self._finishing = True
            batch, size = self._taken()
        if batch:
            self._batches.put(batch, size)
        self._batches.end()
        _join(self._sealers)
        with self._packing:
            rest = [(pack.size, pack.take()) for pack in self._unfinished.values() if pack.size]
        for size, blobs in rest:
            self._packs.put(blobs, size)
        self._packs.end()
        _join(self._uploaders)
        self._outcome.check()
        self._save_index()

    # --- how: from blobs to batches ---

    def _blob(self, kind: Kind, plain: Chunk) -> bytes:
        self._outcome.check()
        id_ = blob_id(plain)
        if not self._index.claim(kind, id_):
            return id_
        with self._gathering:
            if self._finishing:
                raise RuntimeError("a blob came after the end, and would never be stored")
            self._batch.append((kind, id_, plain))
            self._batch_size += len(plain)
            if self._batch_size < BATCH:
                return id_
            batch, size = self._taken()
        self._batches.put(batch, size)
        return id_

    def _taken(self) -> tuple[_Batch, int]:
        taken = self._batch, self._batch_size
        self._batch, self._batch_size = [], 0
        return taken

    # --- from batches to packs ---

    def _seal_batches(self) -> None:
        while batch := self._batches.take():
            size = sum(len(plain) for _kind, _id, plain in batch)
            self._pack(seal_blobs(self._repository.key, batch))
            del batch
            self._batches.done(size)

    def _pack(self, sealed: list[Sealed]) -> None:
        full: list[tuple[int, list[Sealed]]] = []
        with self._packing:
            for blob in sealed:
                pack = self._unfinished[blob.kind]
                pack.add(blob)
                if pack.full:
                    full.append((pack.size, pack.take()))
                self._count(blob)
        for size, blobs in full:
            self._packs.put(blobs, size)

    def _count(self, blob: Sealed) -> None:
        self.written.size += blob.size
        if blob.kind is Kind.TREE:
            self.written.tree_blobs += 1
        else:
            self.written.data_blobs += 1

    # --- from packs to the store ---

    def _store_packs(self) -> None:
        while blobs := self._packs.take():
            size = sum(len(blob.data) for blob in blobs)
            pack = finish(self._repository.key, blobs)
            del blobs  # the pack has its own copy
            self._put(pack)
            self._repository.copy_stored(pack)
            self._index.add(pack.pack)
            with self._saving:
                self.written.stored += pack.size
            del pack
            self._packs.done(size)
            self._save_if_due()

    def _put(self, pack: FinishedPack) -> None:
        try:
            self._repository.store.put(pack.name, self._unless_failed(pack.chunks()))
        except BackupExists:  # a first attempt went through whose answer was lost
            if not self._is_stored(pack):
                raise

    def _unless_failed(self, chunks: Chunks) -> Chunks:
        for chunk in chunks:
            self._outcome.check()
            yield chunk

    def _is_stored(self, pack: FinishedPack) -> bool:
        digest = sha256()
        with self._repository.store.get(pack.name) as chunks:
            for chunk in chunks:
                digest.update(chunk)
        return digest.digest() == pack.pack.id

    def _save_if_due(self) -> None:
        with self._saving:
            due = self._clock() - self._saved >= SAVED_EVERY
            if due:
                self._saved = self._clock()
        if due:
            self._save_index()

    def _save_index(self) -> None:
        self._index.save(self._repository.save_index_file, everything=True)

    # --- threads ---

    def _threads(self) -> list[threading.Thread]:
        return [*self._sealers, *self._uploaders]

    def _stop(self, error: BaseException) -> None:
        self._outcome.fail(error)
        _join(thread for thread in self._threads() if thread.ident is not None)

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in whoever calls
                self._outcome.fail(error)

        return threading.Thread(target=run, name=name)


def _join(threads: Iterable[threading.Thread]) -> None:
    for thread in threads:
        thread.join()
