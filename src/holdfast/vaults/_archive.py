"""Trees as compressed archives, streams compressed, and back: what a plain vault keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from holdfast.errors import ArchiveUnsafe, BackupDamaged
from holdfast.model.artifact import Chunk, Chunks, Tree, TreeItems
from holdfast.model.manifest import Stored

from ._compress import DamagedError, Method, compress, decompress
from ._tar import TarWriter
from ._untar import TarDamagedError, TarReader, TarUnsafeError

ARCHIVES = {"tar.zst": Method.ZSTD, "tar.gz": Method.GZIP}
ENCODINGS = {"tar.zst": "tar+zstd", "tar.gz": "tar+gzip"}
_METHODS = {"tar+zstd": Method.ZSTD, "tar+gzip": Method.GZIP}


class Pack:
    """One tree on its way into an archive of a kind in `ARCHIVES`.

    ``content_size`` and ``entries`` are what `Stored` records of it; they are known when `chunks`
    was read to its end.
    """

    def __init__(self, tree: Tree, archive: str, count: Callable[[int], None]) -> None:
        """Touch nothing. ``count`` is called with the bytes of content that were dealt with."""
        self.encoding = ENCODINGS[archive]
        self._method = ARCHIVES[archive]
        self._tree = tree
        self._writer = TarWriter(count)

    @property
    def content_size(self) -> int:
        """How many bytes of content the entries had."""
        return self._writer.content_size

    @property
    def entries(self) -> int:
        """How many entries there were, the root included."""
        return self._writer.entries

    def chunks(self) -> Chunks:
        """Read the tree and give the archive. Errors of the source come through as they are."""
        with self._tree.open() as items:
            yield from compress(self._writer.pieces(items), self._method)


def unpack_stream(chunks: Iterable[Chunk], stored: Stored, backup: str) -> Chunks:
    """Give the content of a stored stream that is compressed; reads ``chunks`` to their end.

    Raises:
        BackupDamaged: it cannot be read, or has less in it than was recorded.
        ArchiveUnsafe: it has more in it than was recorded.

    """
    size = 0
    with _translated(stored, backup):
        for chunk in decompress(chunks, Method(stored.encoding)):
            size += len(chunk)
            if size > stored.content_size:
                reason = f"it unpacks to more than the {stored.content_size} bytes of its record"
                raise ArchiveUnsafe(backup=backup, path=stored.path, reason=reason)
            yield chunk
    if size < stored.content_size:
        reason = f"it unpacks to {size} bytes where {stored.content_size} were stored"
        raise BackupDamaged(backup=backup, path=stored.path, reason=reason)


def unpack(chunks: Iterable[Chunk], stored: Stored, backup: str) -> TreeItems:
    """Give the entries of a stored archive; ``chunks`` are its bytes, and are read to their end.

    Errors that ``chunks`` raises, for a wrong checksum for example, come through as they are.

    Raises:
        BackupDamaged: it cannot be read, or has less in it than was recorded.
        ArchiveUnsafe: it has more in it than was recorded, or a path that leads out of the tree.

    """
    with _translated(stored, backup):
        plain = decompress(chunks, _METHODS[stored.encoding])
        reader = TarReader(plain, content_size=stored.content_size, entries=stored.entries)
        for entry, content in reader.items():
            yield entry, _guarded(content, stored, backup)


def _guarded(content: Chunks, stored: Stored, backup: str) -> Chunks:
    """Translate errors where they surface: in the hands of whoever reads the content."""
    with _translated(stored, backup):
        yield from content


@contextmanager
def _translated(stored: Stored, backup: str) -> Iterator[None]:
    try:
        yield
    except (DamagedError, TarDamagedError) as error:
        raise BackupDamaged(backup=backup, path=stored.path, reason=str(error)) from error
    except TarUnsafeError as error:
        where = f"{stored.path}: {error.path}" if error.path else stored.path
        raise ArchiveUnsafe(backup=backup, path=where, reason=str(error)) from error
