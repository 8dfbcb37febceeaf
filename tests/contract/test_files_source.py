"""Files earn the contract: as one folder, as several paths, and as a single file."""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.ports import Source
from holdfast.sources.files import FilesOptions, FilesSource
from holdfast.testing.source_contract import SourceContract
from tests.tree_world import picture


def without_times(root: Path) -> object:
    """Describe a tree, but not when it changed: the guide's archive here has no nanoseconds."""
    return {
        name: (look[0], look[1], look[4:])
        for name, look in picture(root).items()
        if name != b"." or root.is_file()
    }


class TestFolder(SourceContract):
    def make_source(self, name: str, folder: Path) -> FilesSource:
        return FilesSource(name, FilesOptions(path=folder / "uploads", exclude=("*.tmp",)))

    def create(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        root = source.path
        (root / "2026" / "empty").mkdir(parents=True)
        (root / "2026" / "large.bin").write_bytes(os.urandom(3_000_000))
        (root / "2026" / "note\n ü.md").write_text("note")
        os.link(root / "2026" / "note\n ü.md", root / "same note.md")
        (root / "link").symlink_to("2026/large.bin")
        (root / "dangling").symlink_to("/nowhere/at/all")
        (root / "2026" / "large.bin").chmod(0o640)
        os.utime(root / "2026" / "large.bin", ns=(1, 1_600_000_000_123_456_789))

    def change(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        (source.path / "added.txt").write_text("added")
        (source.path / "same note.md").unlink(missing_ok=True)

    def content(self, source: Source) -> object:
        assert isinstance(source, FilesSource)
        return without_times(source.path) if source.path.exists() else None


class TestSeveralPaths(SourceContract):
    def make_source(self, name: str, folder: Path) -> FilesSource:
        given = {"paths": ["infra/env", "infra/docker-compose.yml", "infra/more/deep.conf"]}
        options = FilesOptions.model_validate(given, context={"base": folder})
        return FilesSource(name, options)

    def create(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        env, compose, deep = source.options.paths
        (env / "sub").mkdir(parents=True)
        (env / "sub" / "api.env").write_text("KEY=1\n")
        (env / "web.env").write_text("KEY=2\n")
        compose.write_text("services: {}\n")
        deep.parent.mkdir()
        deep.write_text("deep")

    def change(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        source.options.paths[1].write_text("services: {more: {}}\n")
        (source.options.paths[0] / "third.env").write_text("KEY=3\n")

    def content(self, source: Source) -> object:
        """Describe each path; `at` and the guide put all of them below one folder."""
        assert isinstance(source, FilesSource)
        if "." in source._places:
            folder = source.path
            names = ["infra/env", "infra/docker-compose.yml", "infra/more/deep.conf"]
            places = {name: folder / name for name in names}
        else:
            places = dict(source._places)
        return {name: without_times(path) for name, path in places.items() if path.exists()}


class TestSingleFile(SourceContract):
    def make_source(self, name: str, folder: Path) -> FilesSource:
        return FilesSource(name, FilesOptions(path=folder / ".env"))

    def create(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        source.path.write_text("KEY=1\n")
        source.path.chmod(0o600)

    def change(self, source: Source) -> None:
        assert isinstance(source, FilesSource)
        source.path.write_text("KEY=changed\n")

    def content(self, source: Source) -> object:
        assert isinstance(source, FilesSource)
        path = source.path / ".env" if source.path.is_dir() else source.path
        return without_times(path) if path.exists() else None
