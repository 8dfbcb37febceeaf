"""The tools that Holdfast is compared to, as one would use them with care."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path

from .measure import Command, shell
from .stack import remove

# Neither asks, and neither keeps a cache that would make the second run something else.
_RESTIC = {"RESTIC_PASSWORD": "measured"}
_BORG = {"BORG_PASSPHRASE": "measured", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}


def quoted(path: Path) -> str:
    """Return a path for the shell."""
    return shlex.quote(str(path))


def pack(name: str, tree: Path, out: Path, how: str, *, synced: bool = False) -> Command:
    """Return tar writing an archive through a compressor, such as ``gzip -6``."""
    script = f"tar -C {quoted(tree)} -cf - . | {how} > {quoted(out)}"
    if synced:
        script += f" && sync {quoted(out)}"
    empty = partial(remove, out)
    return Command(name, shell(script), before=empty, after=empty, output=out)


def unpack(name: str, archive: Path, folder: Path, *, synced: bool = False) -> Command:
    """Return tar unpacking an archive."""
    script = f"mkdir {quoted(folder)} && tar -I zstd -C {quoted(folder)} -xf {quoted(archive)}"
    if synced:
        script += f" && sync -f {quoted(folder)}"
    empty = partial(remove, folder)
    return Command(name, shell(script), before=empty, after=empty)


def deduplicating(work: Path, tree: Path) -> list[Command]:
    """Return those of restic and borg that are installed, each backing up into a new repository."""
    restic, borg, cache = work / "restic", work / "borg", work / "borg-cache"
    commands = [
        _into_new(
            "restic backup (encrypts, deduplicates)",
            restic,
            ["restic", "-q", "-r", str(restic), "--no-cache", "init"],
            ["restic", "-q", "-r", str(restic), "--no-cache", "backup", str(tree)],
            _RESTIC,
        ),
        _into_new(
            "borg create (deduplicates, zstd 1)",
            borg,
            ["borg", "init", "--encryption", "none", str(borg)],
            ["borg", "create", "--compression", "zstd,1", f"{borg}::one", str(tree)],
            _BORG | {"BORG_BASE_DIR": str(cache)},
        ),
    ]
    return [command for command in commands if shutil.which(command.argv[0])]


def _into_new(
    name: str, repository: Path, init: list[str], backup: list[str], environment: dict[str, str]
) -> Command:
    def prepare() -> None:
        remove(repository)
        subprocess.run(init, check=True, env=os.environ | environment, capture_output=True)

    return Command(
        name,
        backup,
        before=prepare,
        after=partial(remove, repository),
        environment=environment,
        output=repository,
    )
