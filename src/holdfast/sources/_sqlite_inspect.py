"""Reading stored databases with SQLite's own eyes."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from holdfast.errors import NoSpace, SourceCorrupt, SourceUnfit, SourceUnreadable
from holdfast.model.artifact import Artifact, Stream
from holdfast.model.facts import Facts, Inspection

from ._sqlite_holder import EXPECTED, Holder
from ._sqlite_staged import EVIDENCE
from ._swap import FULL


class Inspector:
    """Inspects the artifacts of one component."""

    def __init__(self, component: str, *, foreign_keys: bool) -> None:
        """``foreign_keys`` tells whether rows that refer to missing rows are a problem."""
        self._component = component
        self._foreign_keys = foreign_keys

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Check and count; each artifact is read to its end exactly once."""
        streams = [artifact for artifact in artifacts if isinstance(artifact, Stream)]
        if any(EVIDENCE in stream.labels for stream in streams):
            return self._evidence(streams, workspace)
        if len(artifacts) != 1 or not streams:
            return Inspection(Facts(), ("it does not hold one database file",))
        (stream,) = streams
        if stream.path is None:
            copy = workspace / "inspected"
            _write(stream, copy)
            return self._file(copy)
        with ThreadPoolExecutor(1, "inspect") as thread:
            # Read in place by SQLite and to its end by us, side by side.
            inspecting = thread.submit(self._file, stream.path)
            with stream.open() as chunks:
                for _chunk in chunks:
                    pass
            return inspecting.result()

    def _file(self, path: Path, *, recovering: bool = False) -> Inspection:
        with Holder(self._component, path, 0) as holder:
            try:
                holder.ask("still", path=str(path), recovering=recovering)
            except (SourceCorrupt, SourceUnfit) as error:
                return Inspection(Facts(), (str(error),))
            facts, problems = counted(holder, "full", foreign_keys=self._foreign_keys)
        return Inspection(facts, tuple(problems))

    def _evidence(self, streams: Sequence[Stream], workspace: Path) -> Inspection:
        """Say what is wrong with what was kept because it is damaged; count no more than bytes."""
        total = 0
        for stream in streams:
            suffix = f"-{stream.part}" if stream.part else ""
            total += _write(stream, workspace / f"inspected{suffix}")
        damage = next(stream.labels[EVIDENCE] for stream in streams if EVIDENCE in stream.labels)
        try:
            problems = self._file(workspace / "inspected", recovering=True).problems
        except SourceUnreadable as error:
            problems = (str(error),)
        return Inspection(facts_of_evidence(total, damage), problems)


def _write(stream: Stream, target: Path) -> int:
    size = 0
    try:
        with target.open("wb") as file, stream.open() as chunks:
            for chunk in chunks:
                size += file.write(chunk)
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(path=target) from error
        raise
    return size


def counted(holder: Holder, check: str, *, foreign_keys: bool = False) -> tuple[Facts, list[str]]:
    """Return what is counted of a held database, and the problems that checking it showed."""
    found = holder.ask("survey", check=check, foreign_keys=foreign_keys)
    return Facts(found["counts"], found["details"], tuple(found["notes"])), found["problems"]


def facts_of_evidence(size: int, damage: str) -> Facts:
    """Return what can be said of damaged files, the same whenever it is asked."""
    return Facts({"bytes": size}, {"expected": EXPECTED}, (damage,))
