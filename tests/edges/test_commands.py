"""Every command, as its user meets it: what it prints, its JSON, its exit status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast import __version__
from tests.edges.command_line import Brain


def test_a_backup_reports_what_it_holds(brain: Brain) -> None:
    report = brain.ok("backup", "--json", "--description", "first").json
    assert report["status"] == "completed"
    assert report["components"]["projects"]["counts"] == {"rows/projects": 2, "rows/episodes": 3}
    assert report["components"]["uploads"]["counts"]["files"] == 1
    assert report["vaults"] == {"local": report["id"]}
    assert report["size"] > 0
    listed = brain.ok("list", "--json").json["backups"]
    assert [b["id"] for b in listed] == [report["id"]]
    assert listed[0]["description"] == "first"
    shown = brain.ok("show", "latest", "--json").json
    assert shown["manifest"]["id"] == report["id"]


def test_text_names_everything_that_json_does(brain: Brain) -> None:
    text = brain.ok("backup").out
    assert "projects" in text
    assert "rows/episodes 3" in text
    assert "complete" in text
    (backup_id,) = [b["id"] for b in brain.ok("list", "--json").json["backups"]]
    for command in (["list"], ["show"], ["status"], ["audit", "list"]):
        assert backup_id in brain.ok(*command).out


def test_one_component_can_be_backed_up_alone(brain: Brain) -> None:
    report = brain.ok("backup", "--component", "uploads", "--json").json
    assert list(report["components"]) == ["uploads"]


def test_a_dry_run_of_a_backup_makes_none(brain: Brain) -> None:
    shown = brain.ok("backup", "--dry-run", "--json").json
    assert shown["components"]["projects"]["reachable"] is True
    assert "nothing was done" in brain.ok("backup", "--dry-run").out
    assert brain.ok("list", "--json").json["backups"] == []
    assert not (brain.folder / "backups").exists()
    assert not (brain.folder / ".holdfast").exists()


def test_a_restore_brings_everything_back(brain: Brain) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    shutil.rmtree(brain.uploads)
    report = brain.ok("restore", "latest", "--yes", "--json").json
    assert report["status"] == "completed"
    assert report["components"]["projects"]["rows/episodes"] == 3
    assert brain.count() == 3
    assert (brain.uploads / "대본.txt").read_text("utf-8") == "script"


def test_a_restore_is_refused_without_confirmation(brain: Brain) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    refused = brain.run("restore")
    assert refused.status == 2
    assert "nothing was changed" in refused.err
    assert "rows/episodes" in refused.out  # the impact was shown first
    assert brain.count() == 0


def test_a_dry_run_of_a_restore_shows_the_impact_and_changes_nothing(brain: Brain) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes WHERE id > 1")
    shown = brain.ok("restore", "--dry-run", "--json").json["components"]["projects"]
    assert (shown["now"]["rows/episodes"], shown["then"]["rows/episodes"]) == (1, 3)
    assert "rows/episodes" in brain.ok("restore", "--dry-run").out
    assert brain.count() == 1


def test_one_component_can_be_restored_alone(brain: Brain) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    (brain.uploads / "대본.txt").write_text("newer")
    brain.ok("restore", "--component", "projects", "--yes")
    assert brain.count() == 3
    assert (brain.uploads / "대본.txt").read_text() == "newer"


def test_restoring_into_a_folder_leaves_the_live_stores_alone(brain: Brain, tmp_path: Path) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    brain.ok("restore", "latest", "--target", str(tmp_path / "beside"))
    assert brain.count() == 0
    restored = tmp_path / "beside" / "projects" / "projects.db"
    assert Brain(tmp_path, brain.capsys).folder.exists()
    assert restored.exists()
    assert (tmp_path / "beside" / "uploads" / "대본.txt").exists()
    assert sorted(p.name for p in (tmp_path / "beside").iterdir()) == ["projects", "uploads"]
    again = brain.run("restore", "latest", "--target", str(tmp_path / "beside"))
    assert again.status == 2  # now there is something to be replaced


def test_what_a_restore_replaced_is_kept_until_the_next(brain: Brain) -> None:
    brain.ok("backup")
    brain.sql("DELETE FROM episodes")
    report = brain.ok("restore", "--yes", "--json").json
    kept = Path(report["replaced"]["projects"]) / "projects.db"
    assert kept.exists()
    assert str(Path(report["replaced"]["projects"]).parent) in brain.ok("status").out
    brain.ok("restore", "--yes")
    assert not kept.exists()
    discarded = brain.ok("restore", "--yes", "--discard", "--json").json
    assert discarded["replaced"] == {}


def test_a_time_chooses_the_newest_backup_not_later(brain: Brain) -> None:
    first = brain.ok("backup", "--json").json
    second = brain.ok("backup", "--json").json
    chosen = brain.ok("restore", "--at", first["created_at"], "--dry-run", "--json").json
    assert chosen["backup"] == first["id"]
    chosen = brain.ok("restore", "--at", "2100-01-01", "--dry-run", "--json").json
    assert chosen["backup"] == second["id"]
    assert brain.run("restore", "--at", "2000-01-01", "--dry-run").status == 10
    assert brain.run("restore", "--at", "yesterday", "--dry-run").status == 2
    assert brain.run("restore", first["id"], "--at", "2100-01-01", "--dry-run").status == 2


@pytest.mark.parametrize("level", ["checksums", "native"])
def test_a_sound_backup_is_verified_and_becomes_latest_verified(brain: Brain, level: str) -> None:
    first = brain.ok("backup", "--json").json["id"]
    assert brain.run("restore", "latest-verified", "--dry-run").status == 10
    verified = brain.ok("verify", first, "--level", level, "--json").json["verified"]
    assert [(v["id"], v["passed"]) for v in verified] == [(first, True)]
    brain.ok("backup")
    chosen = brain.ok("restore", "latest-verified", "--dry-run", "--json").json["backup"]
    assert chosen == first


def test_all_backups_can_be_verified_at_once(brain: Brain) -> None:
    ids = [brain.ok("backup", "--json").json["id"] for _n in range(2)]
    assert [v["id"] for v in brain.ok("verify", "all", "--json").json["verified"]] == ids
    assert "passed" in brain.ok("verify", "all").out


def test_a_damaged_backup_fails_and_is_no_longer_latest(brain: Brain) -> None:
    first = brain.ok("backup", "--json").json["id"]
    second = brain.ok("backup", "--json").json["id"]
    stored = brain.folder / "backups" / second / "projects.db"
    stored.chmod(0o600)
    data = bytearray(stored.read_bytes())
    data[5000] ^= 1
    stored.write_bytes(data)
    failed = brain.run("verify", second)
    assert failed.status == 20
    assert "FAILED" in failed.out
    assert brain.ok("restore", "latest", "--dry-run", "--json").json["backup"] == first
    refused = brain.run("restore", second, "--yes")
    assert refused.status == 20
    assert brain.count() == 3


def test_prune_keeps_what_the_plan_says_and_what_is_pinned(brain: Brain) -> None:
    ids = [brain.ok("backup", "--json").json["id"] for _n in range(4)]
    brain.ok("pin", ids[0], "--reason", "before the migration")
    shown = brain.ok("prune", "--dry-run", "--json").json
    kept = [d["id"] for d in shown["decisions"] if d["kept"]]
    assert kept == [ids[0], *ids[2:]]
    assert brain.run("prune").status == 2
    assert len(brain.ok("list", "--json").json["backups"]) == 4
    assert brain.ok("prune", "--yes", "--json").json["deleted"] == {"local": [ids[1]]}
    assert [b["id"] for b in brain.ok("list", "--json").json["backups"]] == kept
    brain.ok("unpin", ids[0])
    brain.ok("prune", "--yes")
    assert [b["id"] for b in brain.ok("list", "--json").json["backups"]] == ids[2:]


def test_a_plan_prunes_after_its_own_backup(brain: Brain) -> None:
    for _n in range(4):
        report = brain.ok("backup", "nightly", "--json").json
    assert len(report["pruned"]["local"]) == 1
    assert len(brain.ok("list", "--json").json["backups"]) == 2


def test_an_exported_backup_can_be_imported_and_restored(brain: Brain, tmp_path: Path) -> None:
    backup_id = brain.ok("backup", "--json").json["id"]
    file = tmp_path / "away.tar"
    brain.ok("export", backup_id, str(file))
    assert brain.run("export", backup_id, str(file)).status != 0  # never overwritten
    shutil.rmtree(brain.folder / "backups")
    assert brain.ok("import", str(file), "--json").json["id"] == backup_id
    brain.ok("verify", backup_id, "--level", "native")
    brain.sql("DELETE FROM episodes")
    brain.ok("restore", backup_id, "--yes")
    assert brain.count() == 3
    assert brain.run("import", str(file)).status == 1  # it is there already
    assert brain.run("import", str(tmp_path / "none.tar")).status == 2


def test_checks_find_violations_on_live_data(brain: Brain) -> None:
    assert brain.ok("check", "--json").json["passed"] is True
    brain.sql("DELETE FROM projects WHERE id = 2")
    found = brain.run("check")
    assert found.status == 20
    assert "every episode belongs to a project: 1" in found.out


def test_a_restore_whose_references_are_broken_says_so(brain: Brain) -> None:
    brain.sql("DELETE FROM projects WHERE id = 2")
    brain.ok("backup")
    restored = brain.run("restore", "--yes")
    assert restored.status == 21
    assert "every episode belongs to a project" in restored.err
    assert brain.count() == 3
    again = brain.run("restore", "--yes", "--json")
    assert again.status == 21
    assert [violation["count"] for violation in again.json["violations"]] == [1]


def test_status_tells_whether_promises_are_kept(brain: Brain) -> None:
    late = brain.run("status", "--json")
    assert late.status == 1
    assert late.json["plans"][0]["late"] is True
    brain.ok("backup")
    well = brain.ok("status", "--json").json
    assert well["well"] is True
    assert well["vaults"][0]["good"] == 1
    assert [run["verb"] for run in well["runs"]] == ["backup"]


def test_health_says_what_cannot_be_reached(brain: Brain) -> None:
    assert brain.ok("health", "--json").json["well"] is True
    shutil.rmtree(brain.uploads)
    ill = brain.run("health")
    assert ill.status == 1
    assert "uploads" in ill.out


def test_a_missing_component_makes_the_backup_partial(brain: Brain) -> None:
    shutil.rmtree(brain.uploads)
    partial = brain.run("backup", "--json")
    assert partial.status == 3
    assert partial.json["status"] == "partial"
    assert "does not exist" in partial.json["components"]["uploads"]["error"]
    assert brain.run("restore", "latest", "--yes").status == 10  # never counts as a good one
    assert brain.run("status").status == 1


def test_nothing_is_sealed_when_nothing_could_be_backed_up(brain: Brain) -> None:
    shutil.rmtree(brain.folder / "data")
    assert brain.run("backup").status == 1
    assert brain.ok("list", "--json").json == {"backups": [], "damaged": []}


def test_recover_has_nothing_to_do_on_a_good_day(brain: Brain) -> None:
    assert "nothing to recover" in brain.ok("recover").out
    assert brain.ok("recover", "--json").json == {"recovered": {}}


def test_the_audit_trail_has_an_entry_for_each_run(brain: Brain) -> None:
    brain.ok("backup")
    brain.ok("restore", "--yes")
    brain.run("restore", "nope", "--yes")
    entries = brain.ok("audit", "list", "--json").json["entries"]
    assert [(e["verb"], e["outcome"]) for e in entries] == [
        ("backup", "completed"),
        ("restore", "completed"),
    ]
    assert brain.ok("audit", "verify", "--json").json == {"entries": 2, "intact": True}


def test_the_catalog_is_rebuilt_from_the_vaults(brain: Brain) -> None:
    brain.ok("backup")
    for file in (brain.folder / ".holdfast").glob("catalog.db*"):
        file.write_bytes(b"garbage" * 1000)
    hurt = brain.ok("backup")
    assert "catalog" in hurt.err  # said, and gone on without
    assert brain.ok("catalog", "rebuild", "--json").json["backups"] == 2
    assert len(brain.ok("status", "--json").json["runs"]) >= 2


def test_json_progress_ends_with_the_result(brain: Brain) -> None:
    lines = brain.ok("backup", "--json", "--progress").out
    events = [json.loads(line) for line in lines.splitlines() if line.startswith('{"event"')]
    assert {"StepStarted", "StepEnded"} <= {event["event"] for event in events}
    assert '"status": "completed"' in lines


def test_an_error_is_a_document_too(brain: Brain) -> None:
    failed = brain.run("restore", "nope", "--yes", "--json")
    assert failed.status == 10
    assert failed.json["error"]["code"] == "backup-not-found"
    assert failed.json["error"]["hint"]


def test_a_mistake_in_a_command_is_one_line(brain: Brain) -> None:
    for mistake in (["frobnicate"], ["list", "--frob"], ["backup", "none"], ["show", "../x"]):
        outcome = brain.run(*mistake)
        assert outcome.status == 2
        first, hint = outcome.err.strip().splitlines()
        assert first.startswith("holdfast: ")
        assert hint.startswith("  hint: ")


def test_configuration_commands(brain: Brain) -> None:
    assert "is valid" in brain.ok("config", "validate").out
    assert "components.projects.path" in brain.ok("config", "show").out
    assert brain.ok("config", "schema").json["properties"]["stack"]
    brain.config.write_text(brain.config.read_text() + "frob: 1\n")
    wrong = brain.run("config", "validate")
    assert wrong.status == 2
    assert "frob" in wrong.out


def test_init_proposes_what_it_finds_and_the_result_backs_up(brain: Brain) -> None:
    brain.config.unlink()
    (brain.folder / ".env").write_text("SECRET=1\n")
    found = brain.ok("discover", str(brain.folder), "--json").json["components"]
    assert {"sqlite", "files"} == {component["source"] for component in found}
    written = brain.ok("init", str(brain.folder))
    assert "holdfast.yaml" in written.out
    assert brain.run("init", str(brain.folder)).status == 2  # never overwritten unasked
    brain.ok("config", "validate")
    report = brain.ok("backup", "--json").json
    assert report["status"] == "completed"


def test_the_version_is_answered_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "holdfast", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"holdfast {__version__}\n"


def test_a_closed_pipe_is_no_failure_of_ours(brain: Brain) -> None:
    brain.ok("backup")
    command = f"{sys.executable} -m holdfast -c {brain.config} config schema | head -c 10"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr


def test_completion_scripts_are_printed(brain: Brain) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "holdfast" in brain.ok("completion", shell).out
    assert brain.run("completion", "dos").status == 2
    asked = {"_HOLDFAST_COMPLETE": "complete_bash", "COMP_WORDS": "holdfast res", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "holdfast"],
        env={**os.environ, **asked, "_TYPER_COMPLETE_ARGS": "holdfast res"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["restore"]


def test_quiet_says_only_what_is_wrong(brain: Brain) -> None:
    """For cron: mail comes when there is something to do."""
    for command in (["backup"], ["verify"], ["restore", "--yes"], ["prune", "--yes"], ["check"]):
        done = brain.ok("-q", *command)
        assert (done.out, done.err) == ("", "")
        done = brain.ok(*command, "-q")
        assert (done.out, done.err) == ("", "")
    shutil.rmtree(brain.uploads)
    partial = brain.run("backup", "-q")
    assert partial.status == 3
    assert "does not exist" in partial.out


def test_verbose_names_each_step(brain: Brain) -> None:
    brain.ok("backup")
    said = brain.ok("restore", "--yes", "-v").err
    for step in ("staging projects", "comparing projects", "switching", "settling projects"):
        assert step in said


def test_a_disk_that_is_not_mounted_is_noticed(brain: Brain) -> None:
    brain.ok("backup")
    (brain.folder / "backups").rename(brain.folder / "elsewhere")
    (brain.folder / "backups").mkdir()  # what a mount point looks like without its disk
    refused = brain.run("backup")
    assert refused.status == 1
    assert "none of the 1 backups" in refused.err
    assert list((brain.folder / "backups").iterdir()) == []
    (brain.folder / "backups").rmdir()
    (brain.folder / "elsewhere").rename(brain.folder / "backups")
    brain.ok("backup")
    shutil.rmtree(brain.folder / "backups")  # on purpose, this time
    brain.ok("catalog", "rebuild")
    brain.ok("backup")
