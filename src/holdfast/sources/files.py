"""Folders and files: uploads, attachments, settings. Read where they lie, without a copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from holdfast.errors import HoldfastError, SourceMissing, SourceUnreadable, UsageInvalid
from holdfast.model.artifact import Artifact, EntryKind, Known, Tree, TreeItems
from holdfast.model.facts import Discovery, Facts, Inspection, Probe
from holdfast.model.options import Field, LocalPath, Options
from holdfast.ports import Frozen, Role, Token

from ._elsewhere import local_path
from ._exclude import excluder
from ._files_find import find
from ._files_staged import FilesStaged
from ._guide import unpacking
from ._inspect_tree import inspect_tree
from ._occupants import open_by
from ._places import ROOT, Places, name_of, overlapping, read_places
from ._reading import Reading
from ._survey import Survey
from ._swap import Swap


class FilesOptions(Options):
    """Options of a component of kind ``files``."""

    path: LocalPath | None = Field(
        default=None,
        description="The folder to back up with everything in it, or a single file. A symbolic"
        " link here is followed; links inside are kept as links.",
    )
    paths: tuple[LocalPath, ...] = Field(
        default=(),
        description="Several folders and files instead of one `path`. Each keeps its path as it"
        " is written here, without a leading `/` or `../`.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Patterns as in .gitignore of what is left out, relative to `path`, or with"
        " `paths` to the folder of this file. A restore leaves what they match as it is.",
    )
    _names: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _validated(
        cls, data: Any, handler: ModelWrapValidatorHandler[Self], _info: ValidationInfo
    ) -> Self:
        options = handler(data)
        if (options.path is None) == (not options.paths):
            raise ValueError("give either `path` or `paths`")
        excluder(options.exclude)
        written = data.get("paths", ()) if isinstance(data, Mapping) else options.paths
        names = tuple(name_of(str(path)) for path in written)
        if pair := overlapping(names, options.paths):
            raise ValueError(f"`paths` overlap: {pair[0]} and {pair[1]}")
        options._names = names  # noqa: SLF001 - it is this very class
        return options

    @property
    def places(self) -> Places:
        """Where the content lies, by the path that it has in backups."""
        if self.path is not None:
            return {ROOT: self.path}
        return dict(zip(self._names, self.paths, strict=True))


class FilesSource:
    """Folders and files of the local file system. See `holdfast.ports.Source`.

    They are streamed from where they lie. Nothing holds them still: what changes meanwhile is noted
    in the facts, and the copy is then not `exact`.

    A restore replaces each path as a whole: what was added since the backup goes aside with the old
    content. What `exclude` matches is not the backup's to replace; it is moved from the old folder
    into the restored one, and back if the restore is undone. Only where the backup has something at
    the same path itself, the backup's takes its place.
    """

    kind: ClassVar[str] = "files"
    role: ClassVar[Role] = Role.FILES
    options_model: ClassVar[type[Options]] = FilesOptions

    def __init__(self, name: str, options: Options) -> None:
        """Touch nothing."""
        if not isinstance(options, FilesOptions):
            raise TypeError(f"{type(options).__name__} are not options of files")
        self.name = name
        self.options = options
        self._places = options.places
        self._file_name = "" if options.path is None else options.path.name
        self._notes: tuple[str, ...] = ()
        self._just_counted: Facts | None = None  # of staged content, when it was complete
        self._whole = False  # whether the place holds the tree as it is in backups
        self._exclude = excluder(options.exclude)

    @property
    def path(self) -> Path:
        """Where the content lies; the first place if there are several."""
        return next(iter(self._places.values()))

    @property
    def where(self) -> str:
        """Say where the content lies; the first place if there are several."""
        return str(self.path)

    def _looking_at(
        self,
        places: Places,
        *,
        file_name: str = "",
        notes: Sequence[str] = (),
        counted: Facts | None = None,
        whole: bool = False,
    ) -> FilesSource:
        """Return a source of the same component whose content lies elsewhere."""
        other = FilesSource(self.name, self.options)
        other._places = places
        other._file_name = file_name
        other._notes = tuple(notes)
        other._just_counted = counted
        other._whole = whole
        return other

    # --- looking ---

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find settings, and folders named as applications name those for uploads."""
        return find(folder, cls.kind)

    def probe(self) -> Probe:
        """Look whether everything is there, and how much it is."""
        try:
            self._demand_all()
            size = self._counted().counts["bytes"]
        except HoldfastError as error:
            return Probe(reachable=False, problems=(str(error),))
        return Probe(reachable=True, size=size)

    def facts(self) -> Facts:
        """Count what is there now: names of files, folders, links, and bytes.

        Raises:
            SourceUnreadable: a folder may not be read.

        """
        counted, self._just_counted = self._just_counted, None
        return counted or self._counted()

    def _counted(self) -> Facts:
        there = {name: path for name, path in self._places.items() if path.exists()}
        if not there:
            return Facts()
        survey = Survey()
        for _entry, _chunks in self._items(there, survey, content=False):
            pass
        facts = survey.facts()
        return Facts(facts.counts, notes=(*facts.notes, *self._notes))

    def _items(
        self,
        places: Places,
        survey: Survey,
        *,
        content: bool = True,
        instant: datetime | None = None,
        known: Known | None = None,
    ) -> TreeItems:
        return read_places(
            places,
            component=self.name,
            survey=survey,
            exclude=self._exclude,
            content=content,
            file_name=self._file_name,
            instant=instant,
            known=known,
        )

    def _demand_all(self) -> None:
        for path in self._places.values():
            try:
                path.stat()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise SourceMissing(component=self.name, path=path) from error
            except OSError as error:
                raise SourceUnreadable(
                    component=self.name, path=path, reason=error.strerror or error
                ) from error

    @contextmanager
    def keys(self, options: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Give the paths of files as they are in backups; ``prefix`` selects those that begin so.

        Raises:
            UsageInvalid: another option was given.

        """
        if unknown := set(options) - {"prefix"}:
            problem = f"{self.name}: files have no option {min(unknown)}, only prefix"
            raise UsageInvalid(problem=problem)
        prefix = options.get("prefix", "")
        items = self._items(self._places, Survey(), content=False)
        yield (
            entry.path
            for entry, _chunks in items
            if entry.kind in {EntryKind.FILE, EntryKind.HARDLINK} and entry.path.startswith(prefix)
        )

    def occupants(self) -> Sequence[str]:
        """Name the programs that have something here open for writing."""
        return open_by(list(self._places.values()), writing=True)

    # --- backing up ---

    @contextmanager
    def freeze(self, workspace: Path, *, evidence: bool = False) -> Iterator[Frozen]:
        """Give the files as they are while they are read, beginning now.

        `Frozen.exact` turns false when something changes meanwhile; the facts say what.

        Raises:
            SourceMissing, SourceUnreadable: a path is not there, or may not be read.

        """
        del workspace, evidence  # files that can be read are never damaged to our eyes
        self._demand_all()
        instant = datetime.now(UTC)
        reading = Reading(
            lambda survey, known: self._items(self._places, survey, instant=instant, known=known),
            self._counted,
            Survey,
        )
        single = ROOT in self._places and not self.path.is_dir()
        frozen = Frozen(
            artifacts=(
                Tree(
                    self.name,
                    reading.opened,
                    labels={"file": self._file_name} if single else {},
                    sparing=reading.opened,
                ),
            ),
            instant=instant,
            facts=lambda: _judged(frozen, reading),
        )
        try:
            yield frozen
        finally:
            reading.close()

    # --- stored artifacts ---

    def inspect(self, artifacts: Sequence[Artifact], workspace: Path) -> Inspection:
        """Read the stored tree to its end and count it; nothing is written."""
        del workspace
        return inspect_tree(artifacts)

    def guide(self, paths: Mapping[str, str]) -> Sequence[str]:
        """Return the lines that unpack the archive, or copy the folder."""
        return ['mkdir -p "$TARGET"', *map(unpacking, paths.values())]

    # --- restoring ---

    def staging(self, tag: str, workspace: Path) -> FilesStaged:
        """Return the places beside the live ones where a restore puts the new content."""
        del workspace  # everything is staged beside the live places
        return self._staged(Swap(self.name, list(self._places.values()), tag))

    def reopen(self, token: Token) -> FilesStaged:
        """Return a staging by its token."""
        return self._staged(Swap.reopened(self.name, token))

    def _staged(self, swap: Swap) -> FilesStaged:
        def look(
            places: Places, file_name: str, notes: Sequence[str], counted: Facts | None
        ) -> FilesSource:
            return self._looking_at(places, file_name=file_name, notes=notes, counted=counted)

        return FilesStaged(self._places, swap, self._exclude, look, whole=self._whole)

    def at(self, folder: Path) -> FilesSource:
        """Return a source whose whole tree lies in ``folder``."""
        return self._looking_at({ROOT: folder}, whole=True)

    def elsewhere(self, url: str) -> FilesSource:
        """Return a source whose whole tree lies in the folder ``url``."""
        return self.at(local_path(url, self.name))

    @contextmanager
    def scratch(self, workspace: Path) -> Iterator[FilesSource]:
        """Give a folder in the workspace."""
        yield self.at(workspace / "twin")


def _judged(frozen: Frozen, reading: Reading[Survey]) -> Facts:
    """Return what was read, and say whether it is the state of one instant."""
    facts = reading.facts()
    frozen.exact = not reading.changed
    return facts
