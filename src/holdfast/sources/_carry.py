"""Taking what a backup leaves out of a folder along when the folder is replaced.

What is excluded from the backup of a folder is not the backup's to replace: a cache, an upload half
done, or the database of another component. It is moved from the old folder into the new one just
before the switch, and back if the switch is reverted, so it stays live all the time with everything
that was written to it. Moved, not linked: a database must keep its log, whichever way it goes.

What the backup itself has under an excluded name (a pattern may be younger than the backup) is
written down before anything is moved; all else that is excluded in the new folder goes back.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ._exclude import excluded_below
from ._folders import OPEN_FOLDER, Descent
from ._sync import sync_file_system
from ._walk import Exclude

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def carry_forward(live: Path, staged: Path, record: Path, exclude: Exclude) -> None:
    """Move what is excluded from the live folder into the staged one; durable on return.

    Where the backup has something under the same path, that one stays and the live one goes the way
    of the old content. Raises ``OSError``, also where a file is staged in the place of a folder
    that has something excluded in it: nothing was moved then.
    """
    if not (_is_folder(live) and _is_folder(staged)):
        return
    if _recorded(record) is None:
        _write(record, excluded_below(staged, exclude))
    paths = [path for path in excluded_below(live, exclude) if not _has(staged, path)]
    for path in paths:
        _demand_room(staged, path)
    if paths:
        _move_all(paths, live, staged)
        sync_file_system(staged)


def carry_back(new: Path, old: Path, record: Path, exclude: Exclude) -> None:
    """Move what is excluded, and not the backup's own, back into the old folder."""
    backups = _recorded(record)
    if backups is None or not (_is_folder(new) and _is_folder(old)):
        return
    paths = [
        path
        for path in excluded_below(new, exclude)
        if path not in backups and not _has(old, path) and _has(old, os.path.dirname(path))  # noqa: PTH120
    ]
    if paths:
        _move_all(paths, new, old)
        sync_file_system(old)


def _move_all(paths: list[str], source: Path, target: Path) -> None:
    for path in paths:
        folder, _slash, name = path.rpartition("/")
        with (
            _opened(source, folder) as here,
            _opened(target, folder, like=source) as there,
            _times_kept(here.fd),
            _times_kept(there.fd),
        ):
            os.rename(name, name, src_dir_fd=here.fd, dst_dir_fd=there.fd)


@contextmanager
def _opened(root: Path, folder: str, like: Path | None = None) -> Iterator[Descent]:
    """Open a folder below a root; one that is missing is made as it is below ``like``."""
    with Descent(os.open(root, OPEN_FOLDER)) as here:
        done = ""
        for part in folder.split("/") if folder else ():
            done = f"{done}/{part}" if done else part
            try:
                here.enter(part)
            except FileNotFoundError:
                if like is None:
                    raise
                _make_like(here, part, like, done)
        yield here


def _make_like(here: Descent, name: str, like: Path, path: str) -> None:
    with _opened(like, path) as model:
        status = os.fstat(model.fd)
    with _times_kept(here.fd):
        os.mkdir(name, 0o700, dir_fd=here.fd)
    made = here.enter(name)
    if os.geteuid() == 0:
        os.fchown(made, status.st_uid, status.st_gid)
    os.fchmod(made, stat.S_IMODE(status.st_mode))
    os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def _times_kept(fd: int) -> Iterator[None]:
    before = os.fstat(fd)
    yield
    os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _demand_room(root: Path, path: str) -> None:
    """Refuse a path whose way leads through a file."""
    folder = path.rpartition("/")[0]
    while folder:
        try:
            with _opened(root, folder):
                return
        except FileNotFoundError:
            folder = folder.rpartition("/")[0]
        except NotADirectoryError as error:
            problem = f"{path} is excluded from backups and has no place in the restored folder"
            raise NotADirectoryError(error.errno, problem) from error


def _has(root: Path, path: str) -> bool:
    folder, _slash, name = path.rpartition("/")
    try:
        with _opened(root, folder) as here:
            if name:
                os.stat(name, dir_fd=here.fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _recorded(record: Path) -> set[str] | None:
    """Return what was written down; None if nothing was, or a crash cut it short.

    It is on the disk before anything is moved, so with half a list nothing was.
    """
    try:
        return set(json.loads(record.read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def _write(record: Path, paths: list[str]) -> None:
    fd = os.open(record, _NEW_FILE, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(json.dumps(paths).encode())
        file.flush()
        os.fsync(fd)
    sync_file_system(record.parent)
