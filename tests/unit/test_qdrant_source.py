"""What is said of Qdrant without a server: options, names, facts and the guide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.errors import UsageInvalid
from holdfast.model.names import safe_name
from holdfast.sources._qdrant_backup import snapshot_name
from holdfast.sources._qdrant_facts import Described, Names, facts_of
from holdfast.sources._qdrant_guide import guide
from holdfast.sources._qdrant_keys import _values
from holdfast.sources._qdrant_state import State
from holdfast.sources._qdrant_taking import _Mark, identity, is_running
from holdfast.sources.qdrant import QdrantOptions, QdrantSource

URL = "http://me:word@host:6333/base"


def source(**options: Any) -> QdrantSource:
    return QdrantSource("vectors", QdrantOptions(**{"url": URL, "api_key": "secret", **options}))


class TestOptions:
    @pytest.mark.parametrize("url", ["", "localhost:6333", "ftp://host", "http://", "host"])
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        with pytest.raises(ValidationError):
            QdrantOptions(url=url)
        with pytest.raises(ValidationError):
            QdrantOptions(url=URL, nodes=(url,))
        with pytest.raises(UsageInvalid):
            source().elsewhere(url)

    def test_secrets_are_not_shown(self) -> None:
        one = source()
        assert one.where == "http://host:6333/base"
        assert "secret" not in repr(one.options)
        assert "secret" not in str(one.staging("tag", Path("/nowhere")).token)

    def test_another_place_keeps_the_rest(self) -> None:
        one = source(collections=("a",), nodes=(URL, "http://other")).elsewhere("https://there")
        options = one.options
        assert (options.url, options.nodes) == ("https://there", ())
        assert (options.api_key, options.collections) == ("secret", ("a",))

    @pytest.mark.parametrize("asked", [{}, {"payload": "x"}, {"collection": "a", "more": "b"}])
    def test_keys_are_selected_by_what_is_known(self, asked: dict[str, str]) -> None:
        with pytest.raises(UsageInvalid), source().keys(asked):
            pytest.fail("keys were given")


class TestNames:
    def test_what_is_staged_belongs_to_its_staging_alone(self) -> None:
        live = Names()
        staged = live.beside("tag")
        there = [live.there("a"), staged.there("b"), staged.beside("more").there("c"), "d"]
        assert live.ours(there) == ["a", "d"]
        assert staged.ours(there) == ["b"]
        assert staged.beside("more").ours(there) == ["c"]

    @pytest.mark.parametrize(
        "name",
        ["plain", "with space", "이야기", ".", "..", "-x", "a/b", "x" * 255, "가" * 85, "%2E"],
    )
    def test_any_collection_has_a_safe_file_of_its_own(self, name: str) -> None:
        file = snapshot_name(name, 1, 3)
        assert safe_name(file, "artifact") == file
        assert file.endswith(".node2.snapshot")

    def test_different_collections_have_different_files(self) -> None:
        names = ["a b", "a%20b", "a/b", "a", ".a", "%2Ea", "x" * 200, "x" * 201]
        assert len({snapshot_name(name) for name in names}) == len(names)


class TestMarks:
    def test_a_mark_says_what_to_look_for(self) -> None:
        alias = f"holdfast-snapshot.{identity()}-3.77.made.2026-11-20-12-00-01"
        mark = _Mark.read(alias, "memories")
        assert mark is not None
        assert (mark.owner, mark.node, mark.state) == (identity(), 77, "made")
        assert is_running(mark.owner)

    @pytest.mark.parametrize("alias", ["live", "holdfast-snapshot.x", "holdfast-snapshot"])
    def test_other_aliases_are_none(self, alias: str) -> None:
        assert _Mark.read(alias, "memories") is None

    def test_a_process_of_elsewhere_is_not_known_to_be_dead(self) -> None:
        _place, process, start = identity().split("-")
        assert is_running(f"{'0' * 12}-1-1")
        assert not is_running(identity().replace(f"-{process}-{start}", f"-{process}-1"))


def test_facts_of_nothing_are_empty() -> None:
    assert not facts_of({}).counts


def test_facts_tell_what_a_collection_is() -> None:
    config = {
        "params": {
            "vectors": {"size": 3, "distance": "Dot"},
            "sparse_vectors": {"w": {}},
            "shard_number": 2,
        }
    }
    schema = {"a": {"data_type": "keyword", "points": 3}, "b": {"type": "text"}, "c": "integer"}
    facts = facts_of({"m": Described(7, config, schema, ["z", "y"])}, ["note"])
    assert facts.counts == {"collections": 1, "points/m": 7}
    assert facts.details["collections"] == {
        "m": {
            "vectors": {"": {"dimension": 3, "distance": "Dot"}},
            "sparse_vectors": ["w"],
            "shards": 2,
            "indexes": {"a": "keyword", "b": "text", "c": "integer"},
            "aliases": ["y", "z"],
        }
    }
    assert facts.notes == ("note",)


@pytest.mark.parametrize(
    ("payload", "key", "values"),
    [
        ({"a": 1}, "a", ["1"]),
        ({"a": {"b": [1, None, "x"]}}, "a.b", ["1", "x"]),
        ({"a": [{"b": 1}, {"b": 2}, 3]}, "a.b", ["1", "2"]),
        ({"a.b": "flat"}, "a.b", ["flat"]),
        ({"a": {"b": 1}}, "a", []),
        ({}, "a", []),
    ],
)
def test_values_of_a_payload(payload: Any, key: str, values: list[str]) -> None:
    assert list(_values(payload, key)) == values


def test_the_guide_shows_no_key_on_a_command_line() -> None:
    lines = guide({"a b": "'x y.snapshot.zst'", ":collections": "c", ":aliases": "a.json"})
    assert not any("curl" in line and "QDRANT_API_KEY" in line for line in lines)
    text = "\n".join(lines)
    assert "zstd -dc 'x y.snapshot.zst'" in text
    assert "/collections/a%20b/snapshots/upload" in text
    assert "cat a.json" in text


class TestState:
    def test_what_was_written_down_is_read_back(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "er"
        assert State.load(folder) is None
        state = State(
            ["a"], {"a": [("sum", "0,1")]}, {"a": {"config": 1}}, {"x": None}, bridged=True
        )
        state.save(folder)
        found = State.load(folder)
        assert found is not None
        assert [tuple(each) for each in found.existed["a"]] == [("sum", "0,1")]
        assert (found.staged, found.aliases, found.bridged) == (["a"], {"x": None}, True)
        State.remove(folder)
        State.remove(folder)
        assert State.load(folder) is None
