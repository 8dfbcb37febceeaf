"""Finding folders and files that applications keep things in, by how people name them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from holdfast.model.facts import Discovery, Json

DEEPEST = 2
FOLDERS = frozenset({
    "attachments", "avatars", "documents", "files", "media", "photos",
    "storage", "upload", "uploads", "user_files", "userfiles",
})  # fmt: skip
SETTINGS = frozenset({
    ".env", ".env.local", ".env.production", "compose.yaml", "compose.yml", "docker-compose.yaml",
    "docker-compose.yml", "docker-compose.override.yml",
})  # fmt: skip
_SKIPPED = frozenset({
    "__pycache__", "backups", "build", "dist", "env", "node_modules", "site-packages", "src",
    "static", "target", "tests", "vendor", "venv",
})  # fmt: skip


def find(folder: Path, kind: str) -> Iterator[Discovery]:
    """Give one proposal for all settings together, and one for each folder with uploads."""
    settings: list[str] = []
    uploads: list[str] = []
    _look(folder, "", settings, uploads)
    for path in sorted(uploads):
        yield Discovery(path.replace("/", "-"), kind, {"path": path})
    if settings:
        comment = "contains secrets; mind where the backups go"
        secret = any(Path(path).name.startswith(".env") for path in settings)
        paths: list[Json] = [*sorted(settings)]
        yield Discovery("settings", kind, {"paths": paths}, comment if secret else "")


def _look(folder: Path, prefix: str, settings: list[str], uploads: list[str]) -> None:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:  # not ours to look at: nothing to propose there
        return
    for entry in entries:
        path = prefix + entry.name
        if entry.is_file(follow_symlinks=False) and entry.name in SETTINGS:
            settings.append(path)
        elif not entry.is_dir(follow_symlinks=False) or entry.name in _SKIPPED:
            continue
        elif entry.name.lower() in FOLDERS:
            uploads.append(path)
        elif path.count("/") + 1 < DEEPEST and not entry.name.startswith("."):
            _look(Path(entry.path), f"{path}/", settings, uploads)
