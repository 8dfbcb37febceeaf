"""The examples of the how-to page on vaults elsewhere, run on real servers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from servers.s3 import KEY, SECRET, shared_server
from servers.ssh import SshServer
from tests import objects_world
from tests.edges.command_line import Brain
from tests.stores_world import new_bucket, shared_ssh

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "vaults.md"
YAML = re.compile(r"^```yaml\n(stack: brain\n.*?)^```$", re.MULTILINE | re.DOTALL)


def example(scheme: str) -> str:
    """Return the first example on the page whose vault is at such a URL."""
    found: list[str] = YAML.findall(PAGE.read_text("utf-8"))
    return next(block for block in found if f"url: {scheme}://" in block)


def on_s3(_config: str) -> str:
    text = example("s3").replace("s3://backups", f"s3://{new_bucket()}")
    assert "http://localhost:9000" in text
    return text.replace("http://localhost:9000", shared_server().endpoint)


def on_sftp(_config: str) -> str:
    server: SshServer = shared_ssh()
    place = f"{server.user}@127.0.0.1:{server.port}{server.folder}/{secrets.token_hex(6)}"
    text = example("sftp").replace("backup@nas.example.org/srv/backups/brain", place)
    assert place in text
    return text.replace("keys/backup", str(server.key)).replace(
        "keys/known_hosts", str(server.known_hosts)
    )


@pytest.mark.parametrize("elsewhere", [on_s3, on_sftp])
def test_a_stack_is_kept_elsewhere_and_comes_back(
    elsewhere: Callable[[str], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VAULT_ACCESS_KEY", KEY)
    monkeypatch.setenv("VAULT_SECRET_KEY", SECRET)
    brain = Brain(tmp_path, capsys)
    brain.create(elsewhere)
    shown = brain.ok("config", "show").out
    assert SECRET not in shown
    brain.ok("backup")
    brain.ok("verify", "latest")
    brain.sql("DELETE FROM episodes")
    (brain.uploads / "대본.txt").write_text("changed", encoding="utf-8")
    brain.ok("restore", "--yes")
    assert brain.count() == 3
    assert (brain.uploads / "대본.txt").read_text(encoding="utf-8") == "script"
    for _time in range(3):
        brain.ok("backup")
    assert len(brain.ok("list", "--json").json["backups"]) == 4
    brain.ok("prune", "--yes")  # all but the last two, and the newest that was verified
    assert len(brain.ok("list", "--json").json["backups"]) == 3
    assert not (tmp_path / "backups").exists()


def test_what_is_put_into_a_bucket_is_what_a_folder_would_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAULT_ACCESS_KEY", KEY)
    monkeypatch.setenv("VAULT_SECRET_KEY", SECRET)
    brain = Brain(tmp_path, capsys)
    brain.create(on_s3)
    brain.ok("backup")
    [bucket] = re.findall(r"s3://(store-\w+)", brain.config.read_text())
    names = {re.sub(r"\d{8}_\d{6}", "T", key) for key in objects_world.names(bucket)}
    assert {
        "brain/backup_T/metadata.json",
        "brain/backup_T/RESTORE.md",
        "brain/backup_T/SHA256SUMS",
    } < names
