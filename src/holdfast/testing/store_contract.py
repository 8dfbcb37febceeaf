"""What every store promises, as tests. Inherit `StoreContract` and say how to make a store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..errors import BackupExists, HoldfastError, SourceMissing, UnsafeName, ValueTooShort
from ..model.artifact import CHUNK, Chunks
from ..ports import Store
from ._trips import drain

UNSAFE = ["", "/", "/etc/passwd", "..", "../out", "a/../../out", "a//b", "a/", "./a", "a\0b"]
DATA = [b"", b"x", bytes(range(256)) * 5000, b"y" * (3 * CHUNK + 17)]


class Broken(Exception):
    """What a reader raises that breaks off."""


class StoreContract:
    """The promises of a `Store`."""

    def make_store(self, folder: Path) -> Store:
        """Return an empty store; ``folder`` does not exist yet and may be used for it."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return self.make_store(tmp_path / "store")

    @pytest.mark.parametrize("data", DATA, ids=[str(len(data)) for data in DATA])
    def test_what_is_put_comes_back(self, store: Store, data: bytes) -> None:
        assert store.put("folder/deeper/name.bin", pieces(data)) == len(data)
        assert store.read("folder/deeper/name.bin") == data
        with store.get("folder/deeper/name.bin") as chunks:
            assert drain(chunks) == data

    def test_chunks_are_bounded_and_may_be_kept(self, store: Store) -> None:
        data = bytes(range(256)) * (CHUNK // 64)
        store.put("big", pieces(data))
        with store.get("big") as chunks:
            kept = list(chunks)
        assert max(len(chunk) for chunk in kept) <= CHUNK
        assert b"".join(kept) == data

    def test_names_may_hold_any_character(self, store: Store) -> None:
        name = "a b/'quoted\"/new\nline/ü\udcff*?"
        store.put(name, iter((b"1",)))
        assert list(store.names()) == [name]
        assert store.read(name) == b"1"

    def test_a_taken_name_is_never_overwritten(self, store: Store) -> None:
        store.put("name", iter((b"first",)))
        with pytest.raises(BackupExists):
            store.put("name", iter((b"second",)))
        assert store.read("name") == b"first"
        assert list(store.names()) == ["name"]

    def test_of_many_writers_of_one_name_one_wins(self, store: Store) -> None:
        def write(number: int) -> bool:
            try:
                store.put("contested", iter((b"%d" % number,)))
            except BackupExists:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(write, range(8)))
        assert sum(won) == 1
        assert store.read("contested") == b"%d" % won.index(True)

    def test_a_put_that_breaks_off_leaves_nothing(self, store: Store) -> None:
        def breaking() -> Iterator[bytes]:
            yield b"x" * (2 * CHUNK)
            assert "name" not in set(store.names()), "half a value was visible"
            raise Broken

        with pytest.raises(Broken):
            store.put("name", breaking())
        assert list(store.names()) == []
        store.put("name", iter((b"whole",)))
        assert store.read("name") == b"whole"

    def test_what_a_source_raises_passes_through_as_it_is(self, store: Store) -> None:
        error = SourceMissing(component="attachments", path="s3://elsewhere")

        def missing() -> Iterator[bytes]:
            yield b"x"
            raise error

        with pytest.raises(SourceMissing) as caught:
            store.put("name", missing())
        assert caught.value is error
        assert list(store.names()) == []

    def test_replacing_creates_and_overwrites(self, store: Store) -> None:
        store.replace("marks/one", b"1")
        store.replace("marks/one", b"two")
        assert store.read("marks/one") == b"two"
        assert list(store.names()) == ["marks/one"]

    def test_what_is_missing_is_said_to_be(self, store: Store) -> None:
        store.put("folder/name", iter((b"1",)))
        for missing in ("other", "folder", "folder/other", "folder/name/below"):
            with pytest.raises(FileNotFoundError):
                store.read(missing)
            with pytest.raises(FileNotFoundError):
                store.part(missing, 0, 1)
            with pytest.raises(FileNotFoundError), store.get(missing) as chunks:
                drain(chunks)

    def test_a_part_is_exactly_what_was_asked_for(self, store: Store) -> None:
        data = bytes(range(256)) * 5000
        store.put("folder/value", pieces(data))
        size = len(data)
        for start, length in ((0, 1), (0, size), (3, CHUNK // 2), (size - 1, 1), (size // 2, 7)):
            assert store.part("folder/value", start, length) == data[start : start + length]

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (1000, 1)])
    def test_a_part_beyond_the_end_is_an_error(self, store: Store, start: int, length: int) -> None:
        store.put("value", iter((b"0123456789",)))
        with pytest.raises(ValueTooShort):
            store.part("value", start, length)

    def test_sizes_are_listed(self, store: Store) -> None:
        assert list(store.sizes()) == []
        assert list(store.sizes("nowhere")) == []
        for number, name in enumerate(("top", "a/one", "a/b/two", "ab/three")):
            store.put(name, iter((b"x" * number,)))
        assert sorted(store.sizes()) == [("a/b/two", 2), ("a/one", 1), ("ab/three", 3), ("top", 0)]
        assert sorted(store.sizes("a")) == [("a/b/two", 2), ("a/one", 1)]
        assert list(store.sizes("top")) == []

    def test_names_and_folders_are_listed(self, store: Store) -> None:
        assert list(store.names()) == []
        assert list(store.names("nowhere")) == []
        assert list(store.folders()) == []
        for name in ("top", "a/one", "a/b/two", "ab/three"):
            store.put(name, iter((b"1",)))
        assert sorted(store.names()) == ["a/b/two", "a/one", "ab/three", "top"]
        assert sorted(store.names("a")) == ["a/b/two", "a/one"]
        assert sorted(store.folders()) == ["a", "ab"]
        assert sorted(store.folders("a")) == ["b"]
        assert list(store.names("top")) == []

    def test_deleting_takes_a_name_or_a_folder(self, store: Store) -> None:
        for name in ("keep", "a/one", "a/b/two", "ab/three"):
            store.put(name, iter((b"1",)))
        store.delete("a")
        store.delete("ab/three")
        store.delete("nothing")
        store.delete("keep/nothing")
        assert list(store.names()) == ["keep"]

    def test_renaming_moves_a_name_or_a_folder(self, store: Store) -> None:
        if not store.renames:
            with pytest.raises(NotImplementedError):
                store.rename("a", "b")
            return
        store.put("draft/one", iter((b"1",)))
        store.put("draft/deeper/two", iter((b"2",)))
        store.rename("draft", "sealed/here")
        assert sorted(store.names()) == ["sealed/here/deeper/two", "sealed/here/one"]
        store.rename("sealed/here/one", "one")
        assert store.read("one") == b"1"

    def test_renaming_never_overwrites(self, store: Store) -> None:
        if not store.renames:
            return
        for name in ("a/x", "b/y", "c", "d"):
            store.put(name, iter((name.encode(),)))
        for old, new in (("a", "b"), ("c", "d"), ("a", "c"), ("c", "a")):
            with pytest.raises(BackupExists):
                store.rename(old, new)
        assert {name: store.read(name) for name in store.names()} == {
            name: name.encode() for name in ("a/x", "b/y", "c", "d")
        }
        with pytest.raises(FileNotFoundError):
            store.rename("missing", "e")

    @pytest.mark.parametrize("name", UNSAFE)
    def test_unsafe_names_are_refused(self, store: Store, name: str) -> None:
        with pytest.raises(UnsafeName):
            store.put(name, iter((b"1",)))
        with pytest.raises(UnsafeName):
            store.replace(name, b"1")
        with pytest.raises(UnsafeName):
            store.read(name)
        with pytest.raises(UnsafeName):
            store.part(name, 0, 1)
        with pytest.raises(UnsafeName):
            store.delete(name)
        with pytest.raises(UnsafeName):
            store.path(name)

    def test_a_local_path_holds_the_bytes(self, store: Store) -> None:
        store.put("folder/name", iter((b"bytes",)))
        path = store.path("folder/name")
        assert path is None or path.read_bytes() == b"bytes"

    def test_room_is_told_or_unknown(self, store: Store) -> None:
        free = store.free()
        assert free is None or free > 0

    def test_sweeping_leaves_live_writers_and_values_alone(self, store: Store) -> None:
        store.put("value", iter((b"1",)))

        def sweeping() -> Iterator[bytes]:
            yield b"x" * (2 * CHUNK)
            assert store.sweep() == []
            yield b"y"

        assert store.put("other", sweeping()) == 2 * CHUNK + 1
        assert sorted(store.names()) == ["other", "value"]

    def test_only_errors_of_the_table_are_raised_for_names_in_the_way(self, store: Store) -> None:
        store.put("file", iter((b"1",)))
        try:
            store.put("file/below", iter((b"2",)))
        except HoldfastError:
            assert list(store.names()) == ["file"]
        assert store.read("file") == b"1"


def pieces(data: bytes) -> Chunks:
    """Give bytes in chunks of uneven sizes, as sources do."""
    start, size = 0, 1
    while start < len(data):
        yield memoryview(data)[start : start + size]
        start, size = start + size, min(size * 7, CHUNK)
