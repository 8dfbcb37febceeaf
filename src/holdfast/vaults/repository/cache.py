"""Copies on this machine of what is read from a distant repository again and again.

Index files, snapshots, marks, packs of trees, and the blobs that manifests are made of: each as it
lies in the repository, sealed. So nothing can be read here that could not be read there, and
whoever reads a copy checks it as if it came from there. One that is damaged is dropped, and the
repository read.

The folder is private to the user, and may be deleted at any time. Several processes share it: a
copy appears whole or not at all. Where it cannot be made, or is full, everything is only slower.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from holdfast.model.artifact import Chunk
from holdfast.ports import Store

INDEX, SNAPSHOTS, MARKS, PACKS, BLOBS = "index", "snapshots", "marks", "packs", "blobs"
MOST = 4 << 30  # bytes of all copies of one repository; what was not used for longest goes first
MOST_FOR_NOW = 1 << 30  # bytes of copies that end with what they were made for
LEFT_FREE = 1 << 30  # bytes that stay free on the disk, whatever could be kept
LARGEST = 32 << 20  # bytes of one copy
UNUSED = 60 * 86400.0  # seconds after which all copies of a repository go, when another is opened

_KEPT_OF_MOST = 3 / 4  # that stay when room is made, so that it is not made for each copy
_ID = re.compile(r"[0-9a-f]{64}\Z")  # of a repository, or a copy; not what is just being written
_TAG = """\
Signature: 8a477f597d28d172789f06886806bc55
# Copies of what lies in repositories of Holdfast: they may be deleted at any time.
"""


class Cache:
    """The copies of one repository. May be used by several threads; no method raises `OSError`.

    A copy is known by its folder and its name there. None for the place: nothing is kept.
    """

    def __init__(self, place: Path | None, *, most: int = MOST, left_free: int = LEFT_FREE) -> None:
        """Touch nothing."""
        self._place = place
        self._most = most
        self._left_free = left_free
        self._names: dict[str, set[str]] = {}  # of the folders that were looked at
        self._size = -1  # bytes of all copies; negative: not counted yet
        self._changing = threading.Lock()

    @property
    def keeps(self) -> bool:
        """Whether it may keep anything at all."""
        return self._place is not None

    # --- reading ---

    def has(self, folder: str, name: str) -> bool:
        """Tell whether there was a copy when the folder was looked at first, or made since."""
        return name in self._known(folder)

    def read(self, folder: str, name: str) -> bytes | None:
        """Return a copy whole; None where there is none."""
        return self._read(
            folder, name, lambda file: os.pread(file, min(os.fstat(file).st_size, LARGEST), 0)
        )

    def part(self, folder: str, name: str, start: int, length: int) -> bytes | None:
        """Return bytes of a copy; None where there is none, or it ends before."""
        found = self._read(folder, name, lambda file: os.pread(file, length, start))
        return found if found is not None and len(found) == length else None

    def _read(self, folder: str, name: str, read: Callable[[int], bytes]) -> bytes | None:
        if self._place is None or not self.has(folder, name):
            return None
        try:
            file = os.open(self._place / folder / name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                found = read(file)
                with suppress(OSError):
                    os.utime(file)  # it was used: others go first
            finally:
                os.close(file)
        except OSError:
            self.drop(folder, name)
            return None
        return found

    # --- keeping ---

    def keep(self, folder: str, name: str, data: Chunk) -> None:
        """Make a copy, if there is room for it."""
        if self._place is None or len(data) > min(LARGEST, self._most):
            return
        with suppress(OSError), self._changing:
            self._make_place(self._place, folder)
            self._make_room(self._place, len(data))
            if _free(self._place) - len(data) < self._left_free:
                return
            _write(self._place / folder / name, data)
            self._size += len(data)
        self._known(folder).add(name)

    def drop(self, folder: str, name: str) -> None:
        """Remove a copy, if there is one."""
        if self._place is None:
            return
        self._known(folder).discard(name)
        with suppress(OSError):
            (self._place / folder / name).unlink()

    def retain(self, folder: str, stays: Callable[[str], bool]) -> None:
        """Remove the copies of what is not in the repository any more."""
        for name in list(self._known(folder)):
            if not stays(name):
                self.drop(folder, name)

    # --- how ---

    def _known(self, folder: str) -> set[str]:
        found = self._names.get(folder)
        if found is None:
            found = set()
            if self._place is not None:
                with suppress(OSError):
                    names = (path.name for path in (self._place / folder).iterdir())
                    found = set(filter(_ID.match, names))
            found = self._names.setdefault(folder, found)
        return found

    def _make_place(self, place: Path, folder: str) -> None:
        try:
            (place / folder).mkdir(mode=0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                (place.parent / "CACHEDIR.TAG").write_text(_TAG, "utf-8")  # backups pass over it
            place.mkdir(mode=0o700, exist_ok=True)
            (place / folder).mkdir(mode=0o700, exist_ok=True)

    def _make_room(self, place: Path, wanted: int) -> None:
        """Count what there is, once; then, if it would be too much, remove what is oldest."""
        if 0 <= self._size <= self._most - wanted:
            return
        copies = sorted(_copies(place))
        self._size = sum(size for _used, size, _path in copies)
        if self._size + wanted <= self._most:
            return
        for _used, size, path in copies:
            if self._size + wanted <= self._most * _KEPT_OF_MOST:
                return
            path.unlink(missing_ok=True)
            self._size -= size


NOTHING = Cache(None)  # where everything is read from the repository itself


def cache_of(repository_id: str, store: Store) -> Cache:
    """Return the copies of a repository; none are kept of one that lies on this machine itself.

    ``repository_id`` is that of its config.
    """
    if store.path("config") is not None:
        return NOTHING
    above = _above()
    if above is None:
        return NOTHING
    _remove_unused(above, repository_id)
    return Cache(above / repository_id)


@contextmanager
def copies_for_now(store: Store) -> Iterator[Cache]:
    """Give a place for copies that are made now and end with the context.

    For whoever walks through all folders of a distant tree, and must see what lies there now: one
    request for each pack of them, not one for each.
    """
    with ExitStack() as ending:
        place = None
        if store.path("config") is None:
            with suppress(OSError):
                folder = tempfile.TemporaryDirectory(prefix="holdfast-", ignore_cleanup_errors=True)
                place = Path(ending.enter_context(folder))
        yield Cache(place, most=MOST_FOR_NOW)


def _above() -> Path | None:
    """Return where the copies of all repositories lie; None for a user who has no such place."""
    place = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not place.is_absolute():  # which the XDG specification tells to pass over
        try:
            place = Path.home() / ".cache"
        except RuntimeError:
            return None
    return place / "holdfast"


def _remove_unused(above: Path, but: str) -> None:
    """Remove the copies of repositories that nobody has used here for long."""
    with suppress(OSError):
        for found in above.iterdir():
            if found.name == but or not _ID.match(found.name):
                continue
            if all(time.time() - used > UNUSED for used, _size, _path in _copies(found)):
                _remove(found)


def _remove(place: Path) -> None:
    for folder in place.iterdir():
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()
    place.rmdir()


def _copies(place: Path) -> Iterator[tuple[float, int, Path]]:
    """Give when each copy was used last, its bytes, and where it is."""
    for folder in place.iterdir():
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _write(path: Path, data: Chunk) -> None:
    """Write a file that appears whole. It need not survive a crash: who reads it checks it."""
    file, name = tempfile.mkstemp(prefix="new-", dir=path.parent)
    aside = Path(name)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
