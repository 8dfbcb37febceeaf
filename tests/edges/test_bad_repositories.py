"""A file of a repository that is missing, empty or has a flipped bit, as its user meets it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.errors import FAILED, NOT_FOUND, VERIFICATION_FAILED, WRONG_KEY
from holdfast.vaults.repository import keys
from tests.edges.command_line import Brain, Outcome
from tests.restic_world import CHEAP

VAULT = "  offsite: {kind: repository, url: repository, password: first}\n"
CHANGES: dict[str, Callable[[bytes], bytes] | None] = {
    "gone": None,
    "empty": lambda _data: b"",
    "flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
}
COMMANDS = {
    "list": ("list", "--vault", "offsite"),
    "verify": ("verify", "latest"),
    "check": ("vault", "check", "offsite"),
    "restore": ("restore", "latest", "--target", "restored", "--yes"),
    "prune": ("vault", "prune", "offsite"),
    "backup": ("backup",),
}


@pytest.fixture
def one(brain: Brain, monkeypatch: pytest.MonkeyPatch) -> Brain:
    """The stack with one backup in one repository."""
    monkeypatch.setattr(keys, "OURS", CHEAP)
    monkeypatch.chdir(brain.folder)
    text = brain.config.read_text().replace("  local: {kind: plain, url: backups}\n", VAULT)
    brain.config.write_text(text)
    brain.ok("vault", "init", "offsite")
    (brain.uploads / "large.bin").write_bytes(os.urandom(1 << 20))
    brain.ok("backup")
    return brain


def files(brain: Brain, kind: str) -> list[Path]:
    """Return the files of a kind, the largest first."""
    place = brain.folder / "repository" / kind
    found = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
    return sorted(found, key=lambda path: path.stat().st_size, reverse=True)


def spoil(path: Path, how: str) -> bytes:
    """Change a file; returns what was in it."""
    before, change = path.read_bytes(), CHANGES[how]
    if change is None:
        path.unlink()
    else:
        path.chmod(0o600)
        path.write_bytes(change(before))
    return before


def one_line(outcome: Outcome) -> bool:
    """Tell whether an error is said in one line, with a hint below it at most."""
    lines = [line for line in outcome.err.splitlines() if not line.startswith("warning: ")]
    begun = [line.partition(": ")[0].strip() for line in lines]
    return begun in ([], ["holdfast"], ["holdfast", "hint"])


D, K, N, F = VERIFICATION_FAILED, WRONG_KEY, NOT_FOUND, FAILED
# How each command of `COMMANDS` ends; a backup that goes well is another matter.
ENDS = {
    ("index", "gone"): (0, N, D, N, D),
    ("index", "empty"): (D, D, D, D, D, D),
    ("index", "flipped"): (D, D, D, D, D, D),
    ("keys", "gone"): (K, K, K, K, K, K),
    ("keys", "empty"): (D, D, D, D, D, D),
    ("keys", "flipped"): (D, D, D, D, D, D),
    ("config", "gone"): (N, N, N, N, N, N),
    ("config", "empty"): (D, D, D, D, D, D),
    ("config", "flipped"): (D, D, D, D, D, D),
    ("snapshots", "gone"): (0, N, 0, N, 0, F),
    ("snapshots", "empty"): (0, N, D, N, D),
    ("snapshots", "flipped"): (0, N, D, N, D),
    ("data", "gone"): (0, N, D, N, D),
    ("data", "empty"): (0, N, D, N, D),
    ("data", "flipped"): (0, D, D, N, 0),
}


UNSEEN = {("snapshots", "gone"), ("data", "flipped")}  # by who only lists backups


@pytest.mark.parametrize(("kind", "how"), ENDS, ids=str)
def test_each_command_says_in_one_line_what_is_wrong(one: Brain, kind: str, how: str) -> None:
    path = files(one, kind)[0]
    named = kind if how == "gone" and kind != "data" else path.name
    before = spoil(path, how)
    for command, status in zip(COMMANDS, ENDS[kind, how], strict=False):
        outcome = one.run(*COMMANDS[command])
        assert outcome.status == status, (command, outcome)
        assert one_line(outcome), (command, outcome)
        if status in {D, K}:
            assert named in outcome.out + outcome.err, (command, outcome)
        if command == "list" and status == 0:
            assert ("damaged" in outcome.out) == ((kind, how) not in UNSEEN)
    assert not (one.folder / "restored" / "uploads" / "large.bin").exists()
    if kind in {"keys", "config"}:
        path.write_bytes(before)
        one.ok("verify", "latest")


@pytest.mark.parametrize("how", CHANGES)
def test_what_is_listed_wrongly_is_listed_anew(one: Brain, how: str) -> None:
    spoil(files(one, "index")[0], how)
    one.ok("vault", "repair", "offsite")
    one.ok("verify", "latest")
    one.ok("vault", "check", "offsite")


@pytest.mark.parametrize("how", CHANGES)
def test_what_a_pack_lost_is_stored_again_by_the_next_backup(one: Brain, how: str) -> None:
    spoil(files(one, "data")[0], how)
    assert one.run("vault", "repair", "offsite", "--write", "--forget").status in {0, D}
    newest = one.ok("backup", "--json").json["id"]
    one.ok("verify", newest)
    one.ok("vault", "prune", "offsite")
    one.ok("vault", "check", "offsite")
    one.ok("restore", newest, "--target", "restored", "--yes")
    restored = one.folder / "restored" / "uploads" / "large.bin"
    assert restored.read_bytes() == (one.uploads / "large.bin").read_bytes()


@pytest.mark.parametrize("how", CHANGES)
def test_the_key_of_another_password_is_in_nobodys_way(one: Brain, how: str) -> None:
    (ours,) = files(one, "keys")
    (one.folder / "password").write_text("second\n")
    one.ok("vault", "key", "add", "offsite", "--new-password-file", str(one.folder / "password"))
    [other] = [path for path in files(one, "keys") if path != ours]
    spoil(other, how)
    one.ok("verify", "latest")
    one.ok("backup")
