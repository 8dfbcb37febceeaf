from __future__ import annotations

from pathlib import Path

from holdfast.config.discover import document, propose, render, safe_stack_name
from holdfast.model.facts import Discovery, Json


def found(name: str, source: str, path: str, **options: Json) -> Discovery:
    return Discovery(name, source, {"path": path, **options})


def test_names_are_made_unique_and_safe() -> None:
    stores = [
        found("app", "sqlite", "a/app.db"),
        found("app", "sqlite", "b/app.db"),
        found("../up", "sqlite", "c/up.db"),
        found("all", "sqlite", "d/all.db"),
        found("", "sqlite", "e/.db"),
        found("-rf /", "sqlite", "f/x.db"),
        found("데이터", "sqlite", "g/데이터.db"),
    ]
    names = [component.name for component in propose(stores, Path("/nowhere")).components]
    assert names == ["app", "app-2", "up", "all-2", "store", "rf", "데이터"]


def test_paths_below_the_folder_become_relative() -> None:
    stores = [found("a", "sqlite", "/srv/app/data/a.db"), found("b", "sqlite", "/other/b.db")]
    options = [c.options for c in propose(stores, Path("/srv/app")).components]
    assert options == [{"path": "/other/b.db"}, {"path": "data/a.db"}]


def test_what_is_part_of_another_store_is_left_out_and_said() -> None:
    stores = [
        found("chroma", "sqlite", "data/chroma/chroma.sqlite3"),
        found("memory", "chroma", "data/chroma"),
    ]
    proposal = propose(stores, Path("/nowhere"))
    assert [c.name for c in proposal.components] == ["memory"]
    reason = "sqlite data/chroma/chroma.sqlite3: it is part of data/chroma"
    assert proposal.left_out == (reason,)
    assert render(proposal) == f"memory: chroma data/chroma\nleft out: {reason}\n"


def test_a_store_in_a_folder_of_files_is_excluded_there() -> None:
    stores = [
        found("files", "files", "data", exclude=["*.tmp"]),
        found("app", "sqlite", "data/sub/my [1].db"),
        found("memory", "chroma", "data/chroma"),
    ]
    proposal = propose(stores, Path("/nowhere"))
    options = {c.name: c.options for c in proposal.components}
    assert options["files"]["exclude"] == ["*.tmp", "/chroma*", "/sub/my\\ \\[1\\].db*"]
    assert set(options) == {"files", "app", "memory"}


def test_one_store_is_proposed_once() -> None:
    stores = [found("a", "sqlite", "a.db"), found("b", "sqlite", "a.db")]
    proposal = propose(stores, Path("/nowhere"))
    assert [c.name for c in proposal.components] == ["a"]
    assert proposal.left_out == ("sqlite a.db: another component has the same path",)


def test_backups_and_our_own_records_are_no_stores(tmp_path: Path) -> None:
    (tmp_path / "old/vault/.holdfast").mkdir(parents=True)
    (tmp_path / ".holdfast").mkdir()
    stores = [
        found("catalog", "sqlite", ".holdfast/catalog.db"),
        found("copy", "sqlite", "old/vault/backup_1/app.db"),
        found("vault", "files", "old/vault"),
        found("app", "sqlite", "app.db"),
        Discovery("settings", "files", {"paths": ["old/vault/x.env", ".env"]}),
    ]
    proposal = propose(stores, tmp_path)
    assert [c.name for c in proposal.components] == ["settings", "app"]
    assert proposal.components[0].options == {"paths": [".env"]}
    assert all("among backups or the records" in line for line in proposal.left_out)


def test_a_name_that_is_not_utf_8_is_left_out_legibly() -> None:
    proposal = propose([found("a", "sqlite", "caf\udce9.db")], Path("/nowhere"))
    assert proposal.components == ()
    assert proposal.left_out == (
        "sqlite caf\\udce9.db: its name is not UTF-8 and cannot be written down",
    )


def test_a_server_has_no_path_and_is_proposed_as_it_is() -> None:
    server = Discovery("db", "server", {"url": "http://localhost"}, "found running")
    proposal = propose([server], Path("/nowhere"))
    assert render(proposal) == "db: server http://localhost  (found running)\n"


def server(name: str, url: str, **options: Json) -> Discovery:
    references = {"password": "${env:PASSWORD}"}
    return Discovery(name, "server", {"url": url, **options}, "", references, (".env",))


def test_a_server_that_was_found_twice_is_proposed_once() -> None:
    twice = [server("db", "http://localhost"), server("db", "http://localhost")]
    proposal = propose(twice, Path("/nowhere"))
    assert [c.name for c in proposal.components] == ["db"]
    assert proposal.left_out == ("server http://localhost: another component has the same address",)


def test_the_same_bucket_of_two_servers_is_two_stores() -> None:
    buckets = [server("one", "s3://b", endpoint="x"), server("two", "s3://b", endpoint="y")]
    assert len(propose(buckets, Path("/nowhere")).components) == 2


def test_a_secret_is_shown_as_what_refers_to_it() -> None:
    proposal = propose([server("db", "http://localhost")], Path("/nowhere"))
    shown = 'db: server {"url": "http://localhost", "password": "${env:PASSWORD}"}\n'
    assert render(proposal) == shown
    [component] = document(proposal)["components"]
    assert component["secrets"] == {"password": "${env:PASSWORD}"}
    assert component["env_files"] == proposal.env_files == [".env"]


def test_files_that_could_not_be_read_are_said() -> None:
    proposal = propose([], Path("/nowhere"), ["compose.yaml: line 2\x1b is not YAML"])
    assert proposal.left_out == ("compose.yaml: line 2\\x1b is not YAML",)
    assert "left out: compose.yaml" in render(proposal)


def test_json_has_everything() -> None:
    assert document(propose([found("a", "sqlite", "a.db")], Path("/nowhere"))) == {
        "components": [
            {
                "name": "a",
                "source": "sqlite",
                "options": {"path": "a.db"},
                "secrets": {},
                "env_files": [],
                "comment": "",
            }
        ],
        "left_out": [],
    }


def test_nothing_found_is_said() -> None:
    assert render(propose([], Path("/nowhere"))) == "no stores were found here\n"


def test_the_stack_is_named_after_its_folder() -> None:
    assert safe_stack_name(Path("/srv/my brain")) == "my-brain"
    assert safe_stack_name(Path("/")) == "app"
