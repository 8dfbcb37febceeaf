"""``holdfast vault``, as its user meets it, on repositories in folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from holdfast.errors import LOCKED, NOT_FOUND, PARTIAL, USAGE, VERIFICATION_FAILED, WRONG_KEY
from tests.edges.command_line import Brain

VAULTS = """\
  local: {kind: plain, url: backups}
  offsite: {kind: repository, url: repository, password: "${env:OFFSITE:-first}",
            name: "off_{timestamp}"}
  second: {kind: repository, url: other, password: another}
"""


@pytest.fixture
def vaults(brain: Brain) -> Brain:
    """The same stack with two repositories beside its plain vault, one of them made."""
    text = brain.config.read_text().replace("  local: {kind: plain, url: backups}\n", VAULTS)
    text = text.replace("plans:\n", "plans:\n  newest: {keep: {last: 1}}\n")
    brain.config.write_text(text)
    brain.ok("vault", "init", "offsite")
    return brain


def test_a_repository_is_made_once(vaults: Brain) -> None:
    before = sorted((vaults.folder / "repository").rglob("*"))
    again = vaults.run("vault", "init", "offsite")
    assert again.status == 1
    assert "already" in again.err
    assert "never remove" in again.err
    assert sorted((vaults.folder / "repository").rglob("*")) == before
    assert vaults.run("vault", "init", "local").status == USAGE


def test_vaults_are_listed_with_what_is_wrong(vaults: Brain) -> None:
    listed = vaults.run("vault", "list", "--json")
    found = {one["name"]: one for one in listed.json["vaults"]}
    assert listed.status == 1
    assert found["offsite"]["backups"] == 0
    assert found["offsite"]["problem"] == ""
    assert "no repository" in found["second"]["problem"]
    vaults.ok("vault", "init", "second")
    assert "offsite" in vaults.ok("vault", "list").out


def test_a_backup_goes_to_every_vault_and_back(vaults: Brain) -> None:
    outcome = vaults.run("backup", "--json")
    assert outcome.status == PARTIAL  # one vault is not made yet
    vaults.ok("vault", "init", "second")
    report = vaults.ok("backup", "--json").json
    assert set(report["vaults"]) == {"local", "offsite", "second"}
    vaults.sql("DELETE FROM episodes")
    shutil.rmtree(vaults.uploads)
    restored = vaults.ok("restore", "latest", "--vault", "second", "--yes", "--json").json
    assert restored["status"] == "completed"
    assert vaults.uploads.is_dir()
    assert vaults.ok("verify", "latest", "--json").json


def test_backups_are_copied_in_every_direction_once(vaults: Brain) -> None:
    vaults.ok("vault", "init", "second")
    first = vaults.ok("backup", "--vault", "local", "--json").json["id"]
    second = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    assert vaults.ok("vault", "copy", "local", "offsite", "--json").json["copied"] == [first]
    assert vaults.ok("vault", "copy", "local", "offsite", "--json").json["copied"] == []
    listed = vaults.ok("list", "--vault", "offsite", "--json").json["backups"]
    assert [one["id"] for one in listed] == [first, second], "an old copy is not the newest"
    copied = vaults.ok("vault", "copy", "offsite", "second", "latest", "--json").json["copied"]
    assert copied == [second]
    assert vaults.ok("vault", "copy", "second", "local", "--json").json["copied"] == [second]
    for vault in ("local", "offsite", "second"):
        vaults.ok("verify", "latest", "--vault", vault)
    assert vaults.run("vault", "copy", "local", "local").status == USAGE


def test_a_backup_leaves_a_repository_as_a_file_and_comes_back(vaults: Brain) -> None:
    vaults.ok("vault", "init", "second")
    backup = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    file = vaults.folder / "backup.tar"
    vaults.ok("export", "latest", str(file))
    assert vaults.ok("import", str(file), "--vault", "second", "--json").json["id"] == backup
    vaults.ok("verify", backup, "--vault", "second")
    again = vaults.run("import", str(file), "--vault", "second")
    assert again.status == 1
    assert backup in again.err


def test_keys_are_added_changed_and_removed(
    vaults: Brain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaults.ok("backup", "--vault", "offsite")
    (only,) = vaults.ok("vault", "key", "list", "offsite", "--json").json["keys"]
    assert only["current"]
    assert vaults.run("vault", "key", "remove", "offsite", only["name"]).status == USAGE
    file = tmp_path / "password"
    file.write_text("second\n")
    added = vaults.ok(
        "vault", "key", "add", "offsite", "--new-password-file", str(file), "--json"
    ).json["key"]
    monkeypatch.setenv("OFFSITE", "second")
    keys = vaults.ok("vault", "key", "list", "offsite", "--json").json["keys"]
    assert {key["name"]: key["current"] for key in keys} == {only["name"]: False, added: True}
    vaults.ok("vault", "key", "remove", "offsite", only["name"][:8])
    monkeypatch.setenv("OFFSITE", "first")
    refused = vaults.run("list", "--vault", "offsite")
    assert refused.status == WRONG_KEY
    assert "first" not in refused.err
    monkeypatch.setenv("OFFSITE", "second")
    file.write_text("third\n")
    vaults.ok("vault", "key", "change", "offsite", "--new-password-file", str(file))
    assert vaults.run("list", "--vault", "offsite").status == WRONG_KEY
    elsewhere = vaults.run("backup")
    assert elsewhere.status == PARTIAL
    assert elsewhere.err.count("offsite: the password opens none") == 1
    monkeypatch.setenv("OFFSITE", "third")
    vaults.ok("verify", "latest", "--vault", "offsite")


def test_no_password_is_no_password(vaults: Brain, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    command = ("vault", "key", "add", "offsite", "--new-password-file")
    assert vaults.run(*command, str(tmp_path / "empty")).status == USAGE
    assert vaults.run(*command, str(tmp_path / "missing")).status == USAGE
    assert len(vaults.ok("vault", "key", "list", "offsite", "--json").json["keys"]) == 1


def test_a_repository_that_is_not_there_is_told(vaults: Brain) -> None:
    shutil.rmtree(vaults.folder / "repository")
    missing = vaults.run("list", "--vault", "offsite")
    assert missing.status == NOT_FOUND
    assert "vault init" in missing.err


def test_others_who_remove_keep_a_backup_out(vaults: Brain) -> None:
    """A lock of another machine is respected, however old; `unlock --all` is a person's word."""
    lock_of_another_machine(vaults)
    locked = vaults.run("backup", "--vault", "offsite")
    assert locked.status == LOCKED
    assert "another-machine" in locked.err
    assert vaults.ok("vault", "unlock", "offsite", "--all", "--json").json["removed"]
    vaults.ok("backup", "--vault", "offsite")
    assert vaults.ok("vault", "unlock", "offsite", "--json").json["removed"] == []


def lock_of_another_machine(vaults: Brain) -> None:
    from holdfast.runtime.session import open_session
    from holdfast.vaults.repository.locks import FOLDER
    from holdfast.vaults.repository.unpacked import to_json
    from holdfast.vaults.repository.vault import RepositoryVault

    vault = open_session(vaults.config).vault("offsite")
    assert isinstance(vault, RepositoryVault)
    lock = {
        "time": "2026-11-20T12:00:00Z",
        "exclusive": True,
        "hostname": "another-machine",
        "username": "somebody",
        "pid": os.getpid(),
    }
    vault.repository.save(FOLDER, to_json(lock))


# --- upkeep ---


def packs_of(vaults: Brain) -> list[Path]:
    data = vaults.folder / "repository" / "data"
    return sorted(path for path in data.rglob("*") if path.is_file())


def test_what_was_deleted_is_freed(vaults: Brain) -> None:
    (vaults.uploads / "large.bin").write_bytes(os.urandom(6 << 20))
    first = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    (vaults.uploads / "large.bin").unlink()
    vaults.ok("backup", "--vault", "offsite")
    vaults.ok("backup", "--vault", "local")
    vaults.ok("backup", "--vault", "local")
    pruned = vaults.ok("prune", "newest", "--vault", "offsite", "--vault", "local", "--yes").out
    assert "holdfast vault prune offsite" in pruned
    assert "holdfast vault prune local" not in pruned
    again = vaults.ok("prune", "newest", "--vault", "offsite", "--yes").out
    assert "holdfast vault prune" not in again
    listed = vaults.ok("list", "--vault", "offsite", "--json").json["backups"]
    assert first not in [one["id"] for one in listed]
    assert len(listed) == 1
    before = sum(path.stat().st_size for path in packs_of(vaults))
    planned = vaults.ok("vault", "prune", "offsite", "--dry-run", "--json").json
    assert planned["freed"] > 6 << 20
    assert sum(path.stat().st_size for path in packs_of(vaults)) == before
    assert "freed" in vaults.ok("vault", "prune", "offsite").out
    assert sum(path.stat().st_size for path in packs_of(vaults)) < before - (6 << 20)
    vaults.ok("verify", "latest", "--vault", "offsite")
    assert vaults.ok("vault", "prune", "offsite", "--json").json["freed"] == 0


def test_a_check_says_what_is_wrong_and_a_repair_what_is_lost(vaults: Brain) -> None:
    (vaults.uploads / "large.bin").write_bytes(os.urandom(3 << 20))
    backup = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    assert "sound" in vaults.ok("vault", "check", "offsite").out
    assert vaults.ok("vault", "check", "offsite", "--days", "7", "--json").json["sound"]
    assert vaults.ok("vault", "check", "offsite", "--no-data", "--json").json["bytes_read"] == 0
    pack = max(packs_of(vaults), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    found = vaults.run("vault", "check", "offsite", "--json")
    assert found.status == VERIFICATION_FAILED
    assert any(pack.name in problem for problem in found.json["problems"])
    assert "NOT SOUND" in vaults.run("vault", "check", "offsite").out
    repaired = vaults.run("vault", "repair", "offsite", "--write")
    assert repaired.status == VERIFICATION_FAILED
    assert backup in repaired.out
    assert "large.bin" in repaired.out
    left = f"{backup}-repaired"
    assert left in vaults.ok("list", "--vault", "offsite").out
    vaults.ok(
        "restore", left, "--vault", "offsite", "--target", str(vaults.folder / "left"), "--yes"
    )
    assert not (vaults.folder / "left" / "uploads" / "large.bin").exists()
    assert (vaults.folder / "left" / "projects").is_dir()


def test_only_repositories_are_kept_up(vaults: Brain) -> None:
    for command in ("prune", "check", "repair"):
        refused = vaults.run("vault", command, "local")
        assert refused.status == USAGE
        assert "plain" in refused.err


def test_what_lost_something_takes_the_place_of_nothing_that_is_whole(vaults: Brain) -> None:
    """The damaged backup, and what is left of it, have one number; both are no good ones."""
    whole = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    (vaults.uploads / "large.bin").write_bytes(os.urandom(3 << 20))
    damaged = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    pack = max(packs_of(vaults), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    pack.write_bytes(bytes([pack.read_bytes()[0] ^ 1]) + pack.read_bytes()[1:])
    vaults.run("vault", "repair", "offsite", "--write")
    listed = vaults.ok("list", "--vault", "offsite", "--json").json["backups"]
    assert [one["id"] for one in listed] == [whole, damaged, f"{damaged}-repaired"]
    assert listed[1]["sequence"] == listed[2]["sequence"]
    assert vaults.ok("show", "latest", "--vault", "offsite", "--json").json["id"] == whole
    vaults.ok("prune", "newest", "--vault", "offsite", "--yes")
    listed = vaults.ok("list", "--vault", "offsite", "--json").json["backups"]
    assert [one["id"] for one in listed] == [whole, damaged, f"{damaged}-repaired"]
    newest = vaults.ok("backup", "--vault", "offsite", "--json").json["id"]
    vaults.ok("prune", "newest", "--vault", "offsite", "--yes")
    listed = vaults.ok("list", "--vault", "offsite", "--json").json["backups"]
    assert [one["id"] for one in listed] == [newest]
    vaults.ok("vault", "check", "offsite")
