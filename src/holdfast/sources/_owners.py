"""Whose files are: by name first, and by number where a system does not know the name."""

from __future__ import annotations

import grp
import os
import pwd

from holdfast.model.artifact import Entry

from ._survey import Survey


class People:
    """The names of users and groups; each is looked up once, for that may ask a server."""

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}

    def user(self, uid: int) -> str:
        """Return the name of a user, or nothing if it has none here."""
        if uid not in self._users:
            try:
                self._users[uid] = pwd.getpwuid(uid).pw_name
            except KeyError:
                self._users[uid] = ""
        return self._users[uid]

    def group(self, gid: int) -> str:
        """Return the name of a group, or nothing if it has none here."""
        if gid not in self._groups:
            try:
                self._groups[gid] = grp.getgrgid(gid).gr_name
            except KeyError:
                self._groups[gid] = ""
        return self._groups[gid]


class Owners:
    """Finds the user and group of entries. Only root can give files away."""

    def __init__(self, survey: Survey) -> None:
        self._root = os.geteuid() == 0
        self._own = (os.geteuid(), os.getegid())
        self._survey = survey
        self._noted = False
        self._found: dict[tuple[str, int, str, int], tuple[int, int]] = {}

    def of(self, entry: Entry) -> tuple[int, int] | None:
        """Return the ids to set, or None where this process cannot give files away."""
        if self._root:
            return self._ids(entry)
        if not self._noted and not self.kept(entry):
            self._noted = True
            self._survey.note(entry.path, "owners were not restored: only root can do that")
        return None

    def kept(self, entry: Entry) -> bool:
        """Tell whether the entry gets back the user and group that it had."""
        return self._root or self._ids(entry) == self._own

    def _ids(self, entry: Entry) -> tuple[int, int]:
        key = (entry.owner, entry.uid, entry.group, entry.gid)
        if key not in self._found:
            self._found[key] = _uid(entry), _gid(entry)
        return self._found[key]


def _uid(entry: Entry) -> int:
    try:
        return pwd.getpwnam(entry.owner).pw_uid if entry.owner else entry.uid
    except (KeyError, ValueError):
        return entry.uid


def _gid(entry: Entry) -> int:
    try:
        return grp.getgrnam(entry.group).gr_gid if entry.group else entry.gid
    except (KeyError, ValueError):
        return entry.gid
