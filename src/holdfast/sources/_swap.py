"""Replacing live files and folders by renames, so that every state in between can be put back.

For each target there are at most three names beside it, all hidden and carrying the restore's tag:

=========  =======================================================================
``….new``  the staged content, until it takes the target's place
``….old``  what was there before, from the switch until it is settled
``….none`` an empty marker in place of ``….old`` where nothing was there before
=========  =======================================================================

Which of them exist tells exactly how far a switch got; nothing else has to be remembered. Each step
is one rename followed by an fsync of the folder, so a crash falls between two steps, and `revert`
starts from what it finds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from holdfast.errors import NoSpace, TargetUnfit
from holdfast.ports import Token

from ._remove import remove_folder

LONGEST_NAME = 255  # bytes, of ext4, xfs and most others
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def no_companions(target: Path) -> Sequence[Path]:  # noqa: ARG001 - the shape is the caller's
    """Companions of a target that stands alone."""
    return ()


class Swap:
    """The switch of one component's targets from their old content to the staged one.

    ``companions`` names the files that belong to a target and must go aside with it, before the new
    content appears: the write-ahead log of a database must never meet another database.
    """

    def __init__(
        self,
        component: str,
        targets: Sequence[Path],
        tag: str,
        companions: Callable[[Path], Sequence[Path]] = no_companions,
    ) -> None:
        """Touch nothing. A target that is a symbolic link is replaced where it points."""
        self.component = component
        self.tag = tag
        self.targets = [Path(os.path.realpath(target)) for target in targets]
        self._companions = companions
        self._made = [str(folder) for folder in _missing_parents(self.targets)]

    @classmethod
    def reopened(
        cls,
        component: str,
        token: Token,
        companions: Callable[[Path], Sequence[Path]] = no_companions,
    ) -> Swap:
        """Return the switch that `token` described, in another process."""
        swap = cls(component, [], str(token["tag"]), companions)
        swap.targets = [Path(target) for target in cast("list[str]", token["targets"])]
        swap._made = list(cast("list[str]", token["made"]))
        return swap

    @property
    def token(self) -> Token:
        """What `reopened` needs: plain JSON."""
        return {
            "tag": self.tag,
            "targets": [str(target) for target in self.targets],
            "made": list(self._made),
        }

    def new(self, target: Path) -> Path:
        """Return where the staged content of a target is to be written."""
        return self._beside(Path(os.path.realpath(target)), "new")

    def prepare(self) -> None:
        """Make the folders that the targets lie in, and refuse targets that cannot be switched.

        Raises:
            TargetUnfit: a target is a mount point, or its folder may not be written.

        """
        for target in self.targets:
            with self._foreseen(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.exists() and target.is_mount():
                    raise OSError(errno.EBUSY, "it is a mount point and cannot be renamed")
                if not os.access(target.parent, os.W_OK | os.X_OK):
                    raise OSError(errno.EACCES, f"{target.parent} may not be written")
                self._remove(self._beside(target, "new"))

    def activate(self) -> None:
        """Switch every target; doing it again does nothing."""
        for target in self.targets:
            with self._foreseen(target):
                self._activate(target)

    def _activate(self, target: Path) -> None:
        new, old, none = (self._beside(target, kind) for kind in ("new", "old", "none"))
        if not _present(new):
            if _present(old) or _present(none):
                return
            raise OSError(errno.ENOENT, "nothing is staged beside it")
        for companion in self._companions(target):
            if _present(companion):
                _rename(companion, self._beside(companion, "old"))
        if _present(target):
            _rename(target, old)
        elif not _present(old):
            none.touch()
            _sync_folder(none.parent)
        _rename(new, target)

    def revert(self) -> None:
        """Put back what was there before, from whatever state a crash left."""
        for target in reversed(self.targets):
            with self._foreseen(target):
                self._revert(target)
        for folder in reversed(self._made):
            _remove_if_empty(Path(folder))

    def _revert(self, target: Path) -> None:
        new, old, none = (self._beside(target, kind) for kind in ("new", "old", "none"))
        if not target.parent.is_dir():
            return
        if _present(old) or _present(none):
            self._put_aside(target, new)
        if _present(old):
            _rename(old, target)
        for companion in self._companions(target):
            if _present(self._beside(companion, "old")):
                _rename(self._beside(companion, "old"), companion)
        self._remove(none)
        self._remove(new)

    def _put_aside(self, target: Path, new: Path) -> None:
        """Take the new content out of the target's place, and what was made beside it since."""
        if _present(target):
            if _present(new):
                raise OSError(errno.EEXIST, "something else was put there during the restore")
            _rename(target, new)
        for companion in self._companions(target):
            if _present(companion):
                self._remove(companion)

    def settle(self, attic: Path | None) -> str | None:
        """Let the old content go: into ``attic``, or away. Returns where it is, if it was kept."""
        kept: list[Path] = []
        for index, target in enumerate(self.targets):
            with self._foreseen(target):
                home = attic if attic is None or index == 0 else attic / str(index)
                kept += self._settle(target, home)
        if attic is not None and not kept and attic.is_dir():
            return str(attic)
        return str(kept[0].parent) if kept else None

    def _settle(self, target: Path, attic: Path | None) -> Iterator[Path]:
        # Renamed last: while `….old` is there, settling again finds the rest.
        for member in [*self._companions(target), target]:
            old = self._beside(member, "old")
            if not _present(old):
                continue
            if attic is None:
                self._remove(old)
            else:
                yield _move(old, attic / member.name)
        self._remove(self._beside(target, "none"))

    def _beside(self, target: Path, kind: str) -> Path:
        name = f".{target.name}.holdfast-{self.tag}.{kind}"
        if len(os.fsencode(name)) > LONGEST_NAME:
            short = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
            name = f".{short}.holdfast-{self.tag}.{kind}"
        return target.parent / name

    def _remove(self, path: Path) -> None:
        remove(path)

    @contextmanager
    def _foreseen(self, target: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=target) from error
            reason = error.strerror or str(error)
            raise TargetUnfit(component=self.component, path=target, reason=reason) from error


def remove(path: Path) -> None:
    """Remove a file, link or whole folder durably; nothing happens where there is none."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        remove_folder(path)
    else:
        path.unlink()
    _sync_folder(path.parent)


def _move(old: Path, home: Path) -> Path:
    """Rename into another folder; stay where it is if that lies on another file system."""
    home.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        os.rename(old, home)  # noqa: PTH104 - Path.rename is the same call; this one pairs with fsync
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return old
    _sync_folder(home.parent)
    _sync_folder(old.parent)
    return home


def _rename(source: Path, target: Path) -> None:
    if _present(target):
        raise OSError(errno.EEXIST, f"{target.name} is in the way")
    source.rename(target)
    _sync_folder(target.parent)


def _present(path: Path) -> bool:
    return os.path.lexists(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _missing_parents(targets: Iterable[Path]) -> list[Path]:
    """Return the folders that must be made for the targets, outermost first."""
    missing: list[Path] = []
    for target in targets:
        chain = [parent for parent in target.parents if not parent.exists()]
        missing += [parent for parent in reversed(chain) if parent not in missing]
    return missing


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.EEXIST}:
            raise
