"""A kind of store that stands in for a server: a password, an address, nothing beside its content.

It is no test of any adapter: it lets the tests of the command line see what every server has in
common, where no server is at hand.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from holdfast.errors import AccessRefused, NoScratch, ServerUnreachable, UsageInvalid
from holdfast.model.artifact import Artifact, Chunks, Stream
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Field, Options
from holdfast.ports import Frozen, Role, Source, Token
from holdfast.sources._laid_out import LaidOut

KIND = {"ledger": "tests.ledger_world:LedgerSource"}
PASSWORD = "ledger-hunter2"


class LedgerOptions(Options):
    """Options of a ledger."""

    url: str = Field(description="ledger:// and the absolute path of its file.")
    password: str = Field(default="", description="The password.")


class LedgerSource:
    """Lines of text at an address. Whoever does not know the password is refused."""

    kind: ClassVar[str] = "ledger"
    role: ClassVar[Role] = Role.ROWS
    options_model: ClassVar[type[Options]] = LedgerOptions

    def __init__(self, name: str, options: Options) -> None:
        assert isinstance(options, LedgerOptions)
        self.name = name
        self.options = options

    @property
    def where(self) -> str:
        return self.options.url

    @property
    def path(self) -> Path:
        return Path(urlsplit(self.options.url).path)

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        del folder
        return ()

    def probe(self) -> Probe:
        try:
            size = len(self.read())
        except (AccessRefused, ServerUnreachable) as error:
            return Probe(reachable=False, problems=(str(error),))
        problems = ("it is slow today",) if (self.path.parent / "slow").exists() else ()
        tools = {"ledger_dump": "1.2", "ledger_load": ""}
        return Probe(
            reachable=True,
            version="7.1",
            size=size,
            tools=tools,
            rights="read and write",
            problems=problems,
        )

    def read(self) -> bytes:
        """Return the live lines; empty where there are none."""
        if not self.path.parent.is_dir():
            reason = "nobody is there"
            raise ServerUnreachable(component=self.name, where=self.where, reason=reason)
        if self.options.password != PASSWORD:
            raise AccessRefused(component=self.name, where=self.where, reason="wrong password")
        return self.path.read_bytes() if self.path.exists() else b""

    def facts(self) -> Facts:
        return lines_of(self.read())

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        del workspace, evidence
        held = self.read()

        @contextmanager
        def opened() -> Iterator[Chunks]:
            yield iter([held[:10], held[10:]])

        stream = Stream(f"{self.name}.txt", opened, compressible=True)
        yield Frozen([stream], datetime.now(UTC), lambda: lines_of(held))

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        del workspace
        return Inspection(lines_of(content_of(artifacts)))

    def staging(self, tag: str, workspace: Path) -> LedgerStaged:
        return LedgerStaged(self, tag, workspace)

    def reopen(self, token: Token) -> LedgerStaged:
        assert token["url"] == self.options.url, "recovered at another place"
        return LedgerStaged(self, str(token["tag"]), Path(str(token["workspace"])))

    def at(self, folder: Path) -> Source:
        return cast("Source", LaidOut(self, folder))

    def elsewhere(self, url: str) -> LedgerSource:
        if urlsplit(url).scheme != "ledger":
            raise UsageInvalid(problem=f"{self.name} is restored to ledger://…")
        options = LedgerOptions(url=url, password=self.options.password)
        return LedgerSource(self.name, options)

    def scratch(self, workspace: Path) -> AbstractContextManager[Source]:
        del workspace
        raise NoScratch(component=self.name, reason="there is one ledger")

    def occupants(self) -> Sequence[str]:
        return ()

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        return [f'cp {path} "$TARGET"' for path in paths.values()]


class LedgerStaged:
    """New lines on this machine until they are loaded."""

    def __init__(self, source: LedgerSource, tag: str, workspace: Path) -> None:
        self.token: Token = {"url": source.options.url, "tag": tag, "workspace": str(workspace)}
        self._source = source
        self._workspace = workspace
        self._new = workspace / "new"
        self._old = source.path.with_name(f"{source.path.name}.{tag}.old")

    @property
    def view(self) -> Any:
        url = f"ledger://h{self._new}"
        return LedgerSource(self._source.name, LedgerOptions(url=url, password=PASSWORD))

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        self._source.read()
        self._workspace.mkdir(parents=True, mode=0o700)
        self._new.write_bytes(content_of(artifacts))

    def activate(self) -> None:
        fail("activate")
        self._old.write_bytes(self._source.read())
        self._source.path.write_bytes(self._new.read_bytes())

    def revert(self) -> None:
        fail("revert")
        assert self._workspace.exists() or not self._old.exists()
        if self._old.exists():
            self._source.path.write_bytes(self._old.read_bytes())
            self._old.unlink()

    def settle(self, attic: Path | None) -> str | None:
        fail("settle")
        kept = None
        if attic is not None and self._old.exists():
            attic.parent.mkdir(parents=True, exist_ok=True)
            attic.write_bytes(self._old.read_bytes())
            kept = str(attic)
        self._old.unlink(missing_ok=True)
        return kept


def fail(step: str) -> None:
    """Fail, or die, where the environment says so."""
    if os.environ.get("LEDGER_DIES") == step:
        os._exit(9)
    if step in os.environ.get("LEDGER_FAILS", ""):
        raise ServerUnreachable(component="ledger", where="ledger://h", reason=f"no {step}")


def content_of(artifacts: Sequence[Artifact]) -> bytes:
    """Return the lines in what was backed up."""
    [artifact] = artifacts
    assert isinstance(artifact, Stream)
    with artifact.open() as chunks:
        return b"".join(bytes(chunk) for chunk in chunks)


def lines_of(content: bytes) -> Facts:
    """Count lines."""
    digest = hashlib.sha256(content).hexdigest()[:8]
    return Facts({"lines": content.count(b"\n")} if content else {}, {"digest": json.dumps(digest)})
