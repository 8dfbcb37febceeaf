"""New files beside the live ones, until they take their place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from holdfast.errors import NoSpace, TargetUnfit, TreeUnsafe
from holdfast.model.artifact import Artifact, Chunks, Entry, EntryKind, Tree
from holdfast.model.facts import Facts
from holdfast.ports import Source, Token

from ._aside import Aside
from ._carry import carry_back, carry_forward
from ._mounted_below import mounts_below
from ._places import ROOT, Places
from ._plant import Planter
from ._swap import FULL, Swap
from ._sync import Disk
from ._walk import Exclude

Look = Callable[[Places, str, Sequence[str], Facts | None], Source]


class FilesStaged:
    """See `holdfast.ports.Staged`.

    A path that is configured now but was not in the backup is left as it is. What the live folder
    has and backups leave out is moved along at the switch (see `_carry`).
    """

    def __init__(
        self, places: Places, swap: Swap, exclude: Exclude, look: Look, *, whole: bool
    ) -> None:
        """``look`` makes a source of the staged content, which may have been counted already.

        A single file that was backed up takes the place itself; with ``whole`` it lies in it.
        """
        self.token: Token = swap.token
        self._swap = swap
        self._exclude = exclude
        self._look = look
        targets = cast("list[str]", self.token["targets"])
        names = list(places) if len(places) == len(targets) else []
        self._targets = dict(zip(names, map(Path, targets), strict=False))
        self._file_name = places[ROOT].name if ROOT in places else ""
        self._notes: list[str] = []
        self._counted: Facts | None = None
        self._whole = whole

    @property
    def view(self) -> Source:
        """The staged content as a source to be counted; the first was counted by `fill`."""
        counted, self._counted = self._counted, None
        return self._seen(counted)

    def _seen(self, counted: Facts | None = None) -> Source:
        places = {name: self._swap.new(target) for name, target in self._targets.items()}
        return self._look(places, self._file_name, self._notes, counted)

    # --- filling ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write the new content, durable when this returns.

        Raises:
            TreeUnsafe: the stored tree would lead out of its place.
            NoSpace, TargetUnfit: it cannot be written here, or has paths that are not configured.

        """
        tree = self._only(artifacts)
        self._swap.prepare()
        for target in self._swap.targets:
            self._demand_no_mounts(target)
        with ExitStack() as stack:
            folders = {self._swap.new(target).parent for target in self._swap.targets}
            disks = {folder: stack.enter_context(self._disk(folder)) for folder in folders}
            if not (places := self._routes(tree)):
                self._plant_all(tree)
            else:
                self._plant_each(tree, places)
            self._sync_and_count(disks)

    def _disk(self, folder: Path) -> Disk:
        with self._foreseen(folder):
            return Disk(folder)

    def _sync_and_count(self, disks: Mapping[Path, Disk]) -> None:
        """Count what was written while the disk takes it."""
        syncing = Aside(1)
        try:
            syncing.give(partial(self._sync, disks))
            self._counted = self._seen().facts()
            syncing.finish()
        finally:
            syncing.close()

    def _sync(self, disks: Mapping[Path, Disk]) -> None:
        for folder, disk in disks.items():
            with self._foreseen(folder):
                disk.sync()

    def _only(self, artifacts: Sequence[Artifact]) -> Tree:
        if len(artifacts) == 1 and isinstance(artifacts[0], Tree):
            return artifacts[0]
        raise self._unfit(self._swap.targets[0], "the backup does not hold one file tree")

    def _demand_no_mounts(self, target: Path) -> None:
        if mounts := mounts_below(target):
            raise self._unfit(target, f"another file system is mounted in it, at {mounts[0]}")

    def _routes(self, tree: Tree) -> dict[str, Path]:
        """Return where entries go by the first part of their paths; none: all to one folder."""
        if ROOT not in self._targets:
            return {name: self._swap.new(target) for name, target in self._targets.items()}
        if (file := tree.labels.get("file")) and not self._whole:
            self._file_name = file
            return {file: self._swap.new(self._targets[ROOT])}
        return {}

    def _plant_all(self, tree: Tree) -> None:
        root = self._swap.new(self._swap.targets[0])
        with (
            tree.open() as items,
            Planter(root, self._swap.component, apart=tree.apart) as planter,
        ):
            for entry, chunks in items:
                planter.add(entry, chunks)
            planter.finish(durable=False)
        self._notes += planter.notes

    def _plant_each(self, tree: Tree, places: dict[str, Path]) -> None:
        """Write each place by itself; entries of one place come one after another."""
        done: set[str] = set()
        with tree.open() as items, ExitStack() as planting:
            present, planter = "", None
            for entry, chunks in items:
                name = _place_of(entry.path, places)
                if name is None:
                    self._demand_above(entry, places)
                    continue
                if name != present:
                    self._finish(planter)
                    planting.close()
                    if name in done:
                        raise self._unsafe(entry, "it comes after its folder was complete")
                    done.add(name)
                    present = name
                    planter = Planter(places[name], self._swap.component, apart=tree.apart)
                    planting.enter_context(planter)
                self._add(cast("Planter", planter), entry, chunks, name)
            self._finish(planter)

    def _finish(self, planter: Planter | None) -> None:
        if planter is not None:
            planter.finish(durable=False)
            self._notes += planter.notes

    def _add(self, planter: Planter, entry: Entry, chunks: Chunks, name: str) -> None:
        path = entry.path[len(name) + 1 :] or ROOT
        target = entry.target
        if entry.kind is EntryKind.HARDLINK:
            if not target.startswith(f"{name}/"):
                raise self._unsafe(entry, f"it links to {target}, which lies elsewhere")
            target = target[len(name) + 1 :]
        planter.add(replace(entry, path=path, target=target), chunks)

    def _demand_above(self, entry: Entry, places: dict[str, Path]) -> None:
        """Refuse what has no place here; the folders above the places need none."""
        if entry.path == ROOT or any(name.startswith(f"{entry.path}/") for name in places):
            return
        reason = f"the backup has {entry.path}, which is not among the configured paths"
        raise self._unfit(self._swap.targets[0], reason)

    # --- switching ---

    def activate(self) -> None:
        """Move along what backups leave out, then switch; doing it again does nothing."""
        for target in self._swap.targets:
            new, _old, record = self._names(target)
            with self._foreseen(target):
                carry_forward(target, new, record, self._exclude)
        self._only_backed_up()
        self._swap.activate()

    def _only_backed_up(self) -> None:
        """Leave alone the targets that are configured now but were not in the backup."""
        begun = [target for target in self._swap.targets if self._begun(target)]
        if begun:
            self._swap.targets = begun

    def _begun(self, target: Path) -> bool:
        new, old, _record = self._names(target)
        none = old.with_suffix(".none")
        return any(os.path.lexists(path) for path in (new, old, none))

    def revert(self) -> None:
        """Put the old content back, with what was moved along."""
        for target in reversed(self._swap.targets):
            new, old, record = self._names(target)
            with self._foreseen(target):
                carry_back(
                    new if _present(new) else target,
                    old if _present(old) else target,
                    record,
                    self._exclude,
                )
        self._swap.revert()
        self._forget()

    def settle(self, attic: Path | None) -> str | None:
        """Let the old content go, or into the attic."""
        kept = self._swap.settle(attic)
        self._forget()
        return kept

    def _forget(self) -> None:
        for target in self._swap.targets:
            _new, _old, record = self._names(target)
            with self._foreseen(target):
                record.unlink(missing_ok=True)

    def _names(self, target: Path) -> tuple[Path, Path, Path]:
        """Return where new and old content are beside a target, and the record of `_carry`."""
        new = self._swap.new(target)
        return new, new.with_suffix(".old"), new.with_suffix(".kept")

    # --- failing ---

    @contextmanager
    def _foreseen(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise NoSpace(path=path) from error
            raise self._unfit(path, error.strerror or str(error)) from error

    def _unfit(self, path: Path, reason: str) -> TargetUnfit:
        return TargetUnfit(component=self._swap.component, path=path, reason=reason)

    def _unsafe(self, entry: Entry, reason: str) -> TreeUnsafe:
        return TreeUnsafe(component=self._swap.component, path=entry.path, reason=reason)


def _place_of(path: str, places: dict[str, Path]) -> str | None:
    """Return the name of the place that a path of the tree belongs to."""
    return next((name for name in places if path == name or path.startswith(f"{name}/")), None)


def _present(path: Path) -> bool:
    return os.path.lexists(path)
