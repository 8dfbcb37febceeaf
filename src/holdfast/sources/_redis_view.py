"""A staged RDB as a source: to be counted, and to have its keys listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

from holdfast.errors import NoScratch, SourceUnfit, TargetUnfit
from holdfast.model.artifact import Artifact
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Options
from holdfast.ports import Frozen, Role, Source, Staged, Token

from ._redis_check import counted, listed, read_file
from ._redis_choice import Choice
from ._redis_rdb import FUNCTION2, Summary
from ._redis_users import parsed


class RdbView:
    """The content that a live server will have. ``summary`` is what was found in it already."""

    kind: ClassVar[str] = "redis"
    role: ClassVar[Role] = Role.CACHE
    options_model: ClassVar[type[Options]] = Options

    def __init__(self, owner: Source, rdb: Path, acl: Path | None, summary: Summary | None) -> None:
        """Touch nothing."""
        self.owner = owner
        self.name = owner.name
        self._rdb = rdb
        self._acl = acl
        self._summary = summary

    @property
    def where(self) -> str:
        """Say which file it is."""
        return str(self._rdb)

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find nothing: this is no live store."""
        del folder
        return ()

    def probe(self) -> Probe:
        """Look whether the file is there."""
        if not self._rdb.is_file():
            return Probe(reachable=False, problems=(f"{self._rdb} does not exist",))
        return Probe(reachable=True, size=self._rdb.stat().st_size)

    def facts(self) -> Facts:
        """Count what is staged.

        Raises:
            SourceCorrupt: it is damaged.

        """
        summary = self._summary or read_file(self.name, self._rdb)
        users = None
        if self._acl is not None:
            users = len(parsed(self._acl.read_text("utf-8").splitlines()))
        return counted(summary, users)

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the keys that match, as the live server would."""
        choice = Choice.of(self.name, options)
        match = matcher(choice.pattern).fullmatch
        yield (
            item.key.decode("utf-8", "backslashreplace")
            for item in listed(self.name, self._rdb)
            if item.kind != FUNCTION2 and item.database == choice.database and match(item.key)
        )

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Let the owner read them."""
        return self.owner.inspect(artifacts, workspace)

    def freeze(self, workspace: Path, *, evidence: bool = False) -> AbstractContextManager[Frozen]:
        """Refuse: only the live store is backed up."""
        del workspace, evidence
        reason = "it is what is about to be restored"
        raise SourceUnfit(component=self.name, path=self._rdb, expected="live", reason=reason)

    def staging(self, tag: str, workspace: Path) -> Staged:
        """Refuse: it is staged already."""
        del tag, workspace
        raise self._unfit()

    def reopen(self, token: Token) -> Staged:
        """Refuse: nothing was ever staged here."""
        del token
        raise self._unfit()

    def _unfit(self) -> TargetUnfit:
        reason = "it is what is about to be restored"
        return TargetUnfit(component=self.name, path=self._rdb, reason=reason)

    def at(self, folder: Path) -> Source:
        """Return what the owner does."""
        return self.owner.at(folder)

    def elsewhere(self, url: str) -> Source:
        """Return what the owner does."""
        return self.owner.elsewhere(url)

    def scratch(self, workspace: Path) -> AbstractContextManager[Source]:
        """Refuse: the owner has twins."""
        del workspace
        raise NoScratch(component=self.name, reason="it is what is about to be restored")

    def occupants(self) -> Sequence[str]:
        """Name nobody: it is a file of ours."""
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Give what the owner gives."""
        return self.owner.guide(paths)


def matcher(pattern: str) -> re.Pattern[bytes]:
    """Return a pattern of Redis' ``KEYS`` and ``SCAN`` as a regular expression.

    ``*`` and ``?`` are any bytes, ``[abc]``, ``[a-z]`` and ``[^a]`` one of some, and a backslash
    takes its meaning from what follows.
    """
    raw = pattern.encode("utf-8", "surrogateescape")
    out, place = [], 0
    while place < len(raw):
        one = raw[place : place + 1]
        place += 1
        if one == b"*":
            out.append(b".*")
        elif one == b"?":
            out.append(b".")
        elif one == b"[":
            chosen, place = _class(raw, place)
            out.append(chosen)
        else:
            if one == b"\\" and place < len(raw):
                one = raw[place : place + 1]
                place += 1
            out.append(re.escape(one))
    return re.compile(b"".join(out), re.DOTALL)


def _class(raw: bytes, place: int) -> tuple[bytes, int]:
    """Return the expression of what stands in brackets, and where it ends."""
    negated = raw[place : place + 1] == b"^"
    place += negated
    members = []
    while place < len(raw) and raw[place : place + 1] != b"]":
        if raw[place : place + 1] == b"\\" and place + 1 < len(raw):
            place += 1
            members.append(re.escape(raw[place : place + 1]))
        elif raw[place + 1 : place + 2] == b"-" and place + 2 < len(raw):
            ends = sorted((raw[place], raw[place + 2]))
            members.append(b"\\x%02x-\\x%02x" % (ends[0], ends[1]))
            place += 2
        else:
            members.append(re.escape(raw[place : place + 1]))
        place += 1
    if not members:
        return (b"." if negated else b"(?!)"), place + 1
    return b"[" + b"^" * negated + b"".join(members) + b"]", place + 1
