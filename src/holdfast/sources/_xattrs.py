"""Extended attributes of files: those in ``user.`` are kept, others noted where they matter."""

from __future__ import annotations

import errno
import os

from ._survey import Survey

KEPT = "user."
MOST_BYTES = 1 << 19  # of one file's attributes: more than any usual file system allows
_MATTERS = {
    "system.posix_acl_access": "an access control list",
    "system.posix_acl_default": "an access control list",
    "security.capability": "file capabilities",
}
_NONE_HERE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class AttributeReader:
    """Reads attributes, and asks no more on file systems that have none."""

    def __init__(self, survey: Survey) -> None:
        self._survey = survey
        self._without: set[int] = set()

    def of(self, fd: int, status: os.stat_result, path: str) -> dict[str, bytes]:
        """Return the attributes of an open file or folder that are kept."""
        if status.st_dev in self._without:
            return {}
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno in _NONE_HERE:
                self._without.add(status.st_dev)
            else:
                self._survey.note(path, f"its extended attributes cannot be read: {error.strerror}")
            return {}
        return self._values(fd, names, path) if names else {}

    def _values(self, fd: int, names: list[str], path: str) -> dict[str, bytes]:
        values: dict[str, bytes] = {}
        room = MOST_BYTES
        for name in sorted(names):
            if name.startswith(KEPT):
                try:
                    value = os.getxattr(fd, name)
                except OSError as error:
                    self._survey.change(path, f"attribute {name} was not read: {error.strerror}")
                    continue
                size = len(name) + len(value)
                if size <= room:
                    values[name] = value
                    room -= size
                else:
                    self._survey.note(path, f"attribute {name} is not kept: too many bytes of them")
            elif name in _MATTERS:
                self._survey.note(path, f"has {_MATTERS[name]}, which is not kept")
        return values
