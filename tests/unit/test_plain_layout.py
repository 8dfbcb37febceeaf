"""Where a plain vault puts things: templates that are safe, unique, and clear when they are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from holdfast.errors import BackupExists, ConfigInvalid, HoldfastError, UsageInvalid
from holdfast.model.artifact import Artifact, Chunks, Stream, Tree, TreeItems
from holdfast.model.names import safe_path
from holdfast.testing._trips import silent
from holdfast.testing.memory import MemoryStore
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.vaults._plain_draft import PlainDraft
from holdfast.vaults._plain_layout import DEFAULT_LAYOUT, Layout, Placing, is_reserved
from holdfast.vaults.plain import PlainOptions, PlainVault
from tests.vault_world import keep

LAYOUTS = [
    DEFAULT_LAYOUT,
    "{component}/{stem}_{timestamp}{suffix}",
    "db/archive_{database}_{timestamp}.dump",
    "{stack}/{backup_id}/{component}{suffix}",
    "{backup_id}/{component}/{part}/{stem}{suffix}",
]
ANY_TEXT = st.text(st.characters(codec=None), max_size=20)


@contextmanager
def nothing() -> Iterator[Chunks]:
    yield iter(())


@contextmanager
def no_entries() -> Iterator[TreeItems]:
    yield iter(())


def stream(name: str, part: str = "", **labels: str) -> Stream:
    return Stream(name, nothing, part=part, labels=labels)


def placing(backup_id: str = "backup_20260204_120000", stack: str = "brain") -> Placing:
    return Placing("local", stack, backup_id, INSTANT, "tar.zst")


def place(layout: str, artifact: Artifact, component: str = "projects") -> str:
    return Layout(layout).place(placing(), component, artifact)


@pytest.mark.parametrize(
    ("layout", "artifact", "path"),
    [
        (DEFAULT_LAYOUT, stream("data.db"), "backup_20260204_120000/projects.db"),
        (DEFAULT_LAYOUT, stream("data.db", "rows"), "backup_20260204_120000/projects_rows.db"),
        (DEFAULT_LAYOUT, Tree("docs", no_entries), "backup_20260204_120000/projects.tar.zst"),
        (LAYOUTS[1], stream("projects.db"), "projects/projects_20260204_120000.db"),
        (LAYOUTS[1], Tree("docs", no_entries), "projects/docs_20260204_120000.tar.zst"),
        (LAYOUTS[2], stream("x", database="main"), "db/archive_main_20260204_120000.dump"),
        (LAYOUTS[3], stream("x.db"), "brain/backup_20260204_120000/projects.db"),
        (LAYOUTS[1], stream("a b/c\n.db"), "projects/c__20260204_120000.db"),
        ("{stem}_{timestamp}", stream(".env"), "_.env_20260204_120000"),
        ("{stem}_{timestamp}", stream("-rf.x"), "_-rf_20260204_120000"),
    ],
)
def test_paths_follow_the_template(layout: str, artifact: Artifact, path: str) -> None:
    assert place(layout, artifact) == path


@given(st.sampled_from(LAYOUTS), ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_no_name_leads_out_or_into_the_vaults_own(
    layout: str, name: str, part: str, database: str
) -> None:
    artifact = stream(name, part, database=database)
    try:
        path = place(layout, artifact)
    except HoldfastError:
        return  # refused, by an error of the table
    assert safe_path(path, "path") == path
    assert not is_reserved(path, placing().backup_id)
    assert not any(part.startswith((".", "-")) for part in path.split("/"))
    assert "\n" not in path
    assert "\\" not in path


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ("{component}/{artifact}", "is needed"),
        ("{backup_id}/{artefact}", r"unknown field \{artefact\}; did you mean \{artifact\}"),
        ("{backup_id}/{component}/", "empty"),
        ("/{backup_id}/{artifact}", "empty"),
        ("../{backup_id}/{artifact}", "dot"),
        ("{backup_id}/../{artifact}", "dot"),
        (".holdfast/{backup_id}/{artifact}", "dot"),
        ("manifests/{backup_id}/{artifact}", "keeps for itself"),
        ("{backup_id}/metadata.json", "keeps for itself"),
        ("{backup_id}/SHA256SUMS", "keeps for itself"),
        ("{component}_{timestamp}/metadata.json", "keeps for itself"),
        ("{backup_id}", "keeps for itself"),
        ("{backup_id}/my files/{artifact}", "white space"),
        ("{backup_id}/{artifact!r}", "not a plain field"),
        ("{backup_id}/{artifact", "."),
    ],
)
def test_unfit_layouts_are_refused_when_they_are_read(layout: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Layout(layout)
    with pytest.raises(ValidationError, match=problem):
        PlainOptions(url=Path("x"), layout=layout)


@pytest.mark.parametrize("name", ["backup", "{stack}", "a/{timestamp}", ".{timestamp}", "{time}"])
def test_unfit_names_are_refused_when_they_are_read(name: str) -> None:
    with pytest.raises(ValidationError):
        PlainOptions(url=Path("x"), name=name)


def test_unknown_time_zones_and_urls_are_refused() -> None:
    for zone in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(ValidationError, match="time zone"):
            PlainOptions(url=Path("x"), timezone=zone)
    for url in ("gs://bucket/x", "http://host/x"):
        with pytest.raises(ValidationError, match="folder"):
            PlainOptions.model_validate({"url": url})


def test_relative_folders_lie_beside_the_configuration() -> None:
    options = PlainOptions.model_validate({"url": "backups"}, context={"base": "/etc/brain"})
    assert options.url == Path("/etc/brain/backups")


def test_names_follow_stack_and_time_zone() -> None:
    layout = Layout(name="{stack}_backup_{timestamp}", timezone="Asia/Seoul")
    assert layout.backup_id("my brain", INSTANT, set().__contains__) == (
        "my_brain_backup_20260204_210000"
    )


def test_the_repeated_hour_of_autumn_gets_another_name() -> None:
    layout = Layout(timezone="Europe/Berlin")
    first = layout.backup_id("s", datetime(2026, 10, 25, 0, 30, tzinfo=UTC), set().__contains__)
    second = layout.backup_id("s", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), {first}.__contains__)
    assert (first, second) == ("backup_20261025_023000", "backup_20261025_023000_2")


def test_the_second_backup_of_a_second_has_paths_of_its_own() -> None:
    layout = Layout(LAYOUTS[1])
    again = placing("backup_20260204_120000_2")
    assert layout.place(again, "projects", stream("p.db")) == "projects/p_20260204_120000_2.db"


def make_vault(layout: str) -> PlainVault:
    options = PlainOptions(url=Path("unused"), layout=layout)
    return PlainVault("local", MemoryStore(), options)


@pytest.mark.parametrize(
    "layout", ["all_{timestamp}{suffix}", "{backup_id}/{stem}", "{backup_id}/{component}"]
)
def test_two_artifacts_at_one_path_are_refused(layout: str) -> None:
    vault = make_vault(layout)
    with vault.draft(vault.backup_id("s", INSTANT), INSTANT, "tar.gz") as draft:
        draft.put("component", stream("data.db", "one"), silent)
        with pytest.raises(ConfigInvalid, match=r"vaults\.local\.layout: .*collide"):
            draft.put("component", stream("data.db", "two"), silent)


def test_an_artifact_inside_another_or_at_its_meta_is_refused() -> None:
    vault = make_vault("{timestamp}{suffix}")
    with vault.draft(vault.backup_id("s", INSTANT), INSTANT, "tar.gz") as draft:
        draft.put("component", stream("one"), silent)
        with pytest.raises(ConfigInvalid, match="collide"):
            draft.put("component", stream("one.meta"), silent)
    with pytest.raises(ConfigInvalid, match="collide"):
        claim_folder_and_what_is_in_it()


def claim_folder_and_what_is_in_it() -> None:
    store = MemoryStore()
    layout = Layout()
    draft = PlainDraft(store, layout, placing(), Path("unused"))
    draft.adopted("a/b", "one")
    draft.adopted("a/b/c", "two")


def test_an_artifact_without_the_label_is_refused_by_name() -> None:
    vault = make_vault("db/{database}_{timestamp}.dump")
    backup_id = vault.backup_id("s", INSTANT)
    problem = r"data\.db of projects has no \{database\}"
    with (
        vault.draft(backup_id, INSTANT, "tar.gz") as draft,
        pytest.raises(ConfigInvalid, match=problem),
    ):
        draft.put("projects", stream("data.db"), silent)


def test_an_artifact_in_the_vaults_own_place_is_refused() -> None:
    vault = make_vault("{component}/{stem}_{timestamp}")
    backup_id = vault.backup_id("s", INSTANT)
    with (
        vault.draft(backup_id, INSTANT, "tar.gz") as draft,
        pytest.raises(ConfigInvalid, match="manifests/"),
    ):
        draft.put("manifests", stream("data.db"), silent)


def test_a_layout_with_the_stack_needs_an_id_made_for_one() -> None:
    vault = make_vault("{stack}/{backup_id}/{artifact}")
    with pytest.raises(UsageInvalid), vault.draft("backup_1", INSTANT, "tar.gz"):
        pytest.fail("the paths would have no stack")


def test_a_taken_name_in_a_flat_vault_stops_the_seal_and_is_not_touched() -> None:
    store = MemoryStore()
    options = PlainOptions(url=Path("unused"), layout="{component}/{stem}_{timestamp}{suffix}")
    vault = PlainVault("local", store, options)
    taken = "component/files_20260204_120000.tar.gz"
    store.put(taken, iter((b"somebody else's",)))
    with pytest.raises((BackupExists, ConfigInvalid)):
        keep(vault)
    assert store.held == {taken: b"somebody else's"}
    assert vault.sweep() == []


def test_every_sample_of_the_contract_has_a_place_in_every_layout() -> None:
    for layout in LAYOUTS:
        assert len({place(layout, artifact) for artifact in samples()}) >= 1
