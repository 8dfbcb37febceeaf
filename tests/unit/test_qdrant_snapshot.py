"""Reading a snapshot of Qdrant without Qdrant: archives in archives, ids, and the log."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources import _qdrant_ids
from holdfast.sources._qdrant_count import Contents, SnapshotReader
from holdfast.sources._qdrant_ids import BadIdsError, Id, IdSet, ImmutableIds, MutableIds
from holdfast.sources._qdrant_tar import NotATarError, Take, TarReader
from holdfast.sources._qdrant_wal import SPARSE, UndecidedError, replay

UUID = bytes(range(16))
SIZES = {"": 2}


class Collector:
    """Keeps the content of every file, and enters every archive."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.closed: list[str] = []

    def enter(self, name: str) -> bool:
        return name.endswith(".tar")

    def open(self, name: str, size: int) -> Take | None:
        if name.endswith("passed over"):
            return None
        content = self.files[name] = bytearray(size)

        def take(offset: int, piece: memoryview) -> None:
            content[offset : offset + len(piece)] = piece

        return take

    def close(self, name: str) -> None:
        self.closed.append(name)


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def read(data: bytes, step: int = 1 << 20) -> Collector:
    collector = Collector()
    reader = TarReader(collector)
    for at in range(0, len(data), step):
        reader.push(data[at : at + step])
    assert reader.complete
    return collector


class TestArchives:
    @given(
        st.dictionaries(
            st.text("abcü/", min_size=1, max_size=150).map(lambda name: f"x{name}x"),
            st.binary(max_size=3000),
            max_size=5,
        ),
        st.integers(1, 5000),
    )
    def test_whatever_the_chunks_the_files_are_the_same(
        self, files: dict[str, bytes], step: int
    ) -> None:
        outer = {**files, "0/inner.tar": tar_of(files)}
        found = read(tar_of(outer), step).files
        assert found == {**files, **{f"0/inner/{name}": data for name, data in files.items()}}

    def test_an_archive_inside_is_closed_after_its_files(self) -> None:
        data = tar_of({"0/inner.tar": tar_of({"a": b"1", "passed over": b"2"}), "b": b"3"})
        assert read(data).closed == ["0/inner/a", "0/inner.tar", "b"]

    @pytest.mark.parametrize("extended", [False, True])
    def test_holes_are_where_they_were(self, extended: bool) -> None:  # noqa: FBT001
        data = {offset: bytes([offset % 251]) * 512 for offset in range(0, 60_000, 10_240)}
        data = data if extended else dict(list(data.items())[:3])
        size = 70_000
        content = b"".join(data.values())
        found = read(sparse("hole", data, size) + padded(content) + bytes(1024)).files["hole"]
        expected = bytearray(size)
        for offset, piece in data.items():
            expected[offset : offset + len(piece)] = piece
        assert found == expected

    def test_damage_is_noticed(self) -> None:
        data = bytearray(tar_of({"a": b"1" * 1000}))
        data[3] ^= 1
        with pytest.raises(NotATarError, match="damaged"):
            read(bytes(data))
        with pytest.raises(NotATarError):
            read(random.Random(1).randbytes(5000))

    def test_an_archive_that_outgrows_its_place_is_refused(self) -> None:
        inner = tar_of({"a": b"1" * 5000})[:1024]
        with pytest.raises(NotATarError, match="room"):
            read(tar_of({"0/inner.tar": inner}))

    def test_what_is_no_file_is_refused(self) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            link = tarfile.TarInfo("link")
            link.type = tarfile.SYMTYPE
            tar.addfile(link)
        with pytest.raises(NotATarError, match="neither"):
            read(out.getvalue())


def sparse(name: str, data: Mapping[int, bytes], size: int) -> bytes:
    """Return the header of a file with holes, as GNU tar writes it."""
    stored = sum(map(len, data.values()))
    member = tarfile.TarInfo(name)
    member.type, member.size = tarfile.GNUTYPE_SPARSE, stored
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    ranges = [b"%011o\0%011o\0" % (offset, len(piece)) for offset, piece in data.items()]
    header[386 : 386 + 96] = b"".join(ranges[:4]).ljust(96, b"\0")
    header[482] = len(ranges) > 4
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    more = b"".join(ranges[4:]).ljust(504, b"\0") + bytes(8) if len(ranges) > 4 else b""
    return bytes(header) + more


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


# --- ids ---


def logged(changes: list[tuple[Id, bool]]) -> bytes:
    """Return the file in which a growing segment logs its changes."""
    written = b""
    for one, there in changes:
        number = isinstance(one, int)
        kind = (1 if number else 2) + (0 if there else 2)
        raw = struct.pack("<Q", one) if isinstance(one, int) else one
        written += bytes([kind]) + raw + (struct.pack("<I", 7) if there else b"")
    return written


IDS = st.one_of(st.integers(0, 40), st.integers(0, 20).map(lambda n: n.to_bytes(16, "big")))


class TestIds:
    @given(
        st.lists(st.lists(st.tuples(IDS, st.booleans()), max_size=60), max_size=4),
        st.sets(IDS, max_size=10),
        st.integers(1, 100),
        st.integers(1, 30),
    )
    def test_the_last_change_in_each_segment_counts(
        self,
        segments: list[list[tuple[Id, bool]]],
        besides: set[Id],
        step: int,
        in_memory: int,
    ) -> None:
        expected: set[Id] = set()
        with (
            pytest.MonkeyPatch.context() as patched,
            TemporaryDirectory() as folder,
        ):
            patched.setattr(_qdrant_ids, "IN_MEMORY", in_memory)
            ids = IdSet(Path(folder) / "ids")
            for changes in segments:
                data = logged(changes)
                reader = MutableIds(ids)
                for at in range(0, len(data), step):
                    reader.take(at, memoryview(data[at : at + step]))
                ids.end_segment()
                expected |= {one for one, there in dict(changes).items() if there}
            assert ids.count(besides) == len(expected - besides)

    @given(
        st.lists(st.tuples(IDS, st.booleans()), max_size=60, unique_by=lambda e: e[0]), st.data()
    )
    def test_a_complete_segment_has_what_its_bits_do_not_delete(
        self, entries: list[tuple[Id, bool]], draw: st.DataObject
    ) -> None:
        step = draw.draw(st.integers(1, 50))
        bits = sum(1 << index for index, (_one, there) in enumerate(entries) if not there)
        data = struct.pack("<Q", len(entries))
        for one, _there in entries:
            raw = struct.pack("<Q", one) if isinstance(one, int) else one
            data += bytes([not isinstance(one, int)]) + raw + bytes(4)
        ids = IdSet(Path("/nowhere"))
        reader = ImmutableIds(ids, bits.to_bytes(8, "little"))
        for at in range(0, len(data), step):
            reader.take(at, memoryview(data[at : at + step]))
        reader.end()
        ids.end_segment()
        assert ids.count() == sum(there for _one, there in entries)

    def test_an_unknown_kind_is_refused(self) -> None:
        with pytest.raises(BadIdsError):
            MutableIds(IdSet(Path("/nowhere"))).take(0, memoryview(b"\x09" + bytes(20)))

    def test_missing_ids_are_noticed(self) -> None:
        reader = ImmutableIds(IdSet(Path("/nowhere")), b"")
        reader.take(0, memoryview(struct.pack("<Q", 2) + bytes(13)))
        with pytest.raises(BadIdsError, match="1 ids came of 2"):
            reader.end()


# --- the log ---


def cbor(value: Any) -> bytes:  # noqa: PLR0911 - one for each kind
    """Return a value in CBOR, with maps of open end as Qdrant writes them on the outside."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        short = struct.pack(">e", value)
        exact = struct.unpack(">e", short)[0] == value
        return b"\xf9" + short if exact else b"\xfa" + struct.pack(">f", value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


def head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for width, minor in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if argument < 1 << 8 * width:
            return bytes([major << 5 | minor]) + argument.to_bytes(width, "big")
    raise ValueError(argument)


def entry(operation: Mapping[str, Any]) -> bytes:
    tag = {"clock_tag": {"peer_id": 2**60, "force": False}}
    return b"\xbf" + b"".join(cbor(k) + cbor(v) for k, v in {**operation, **tag}.items()) + b"\xff"


def log_file(operations: list[Mapping[str, Any]]) -> bytes:
    written = b"wal\0" + b"seed"
    for operation in operations:
        content = entry(operation)
        written += struct.pack("<Q", len(content)) + content + bytes((4 - len(content)) % 8 + 4)
    return written + bytes(64)


def upsert(*ids: Id, vector: Any = (0.5, 0.1)) -> Mapping[str, Any]:
    given = list(vector) if isinstance(vector, tuple) else vector
    points = [{"id": one, "vector": given, "payload": {"a": [1, "x", -5]}} for one in ids]
    return {"upsert_points": {"points": points}}


def delete(*ids: Any) -> Mapping[str, Any]:
    return {"delete_points": {"ids": list(ids)}}


BY_FILTER = {"delete_points_by_filter": {"must": [{"key": "a", "match": {"value": 1}}]}}


def replayed(folder: Path, files: Mapping[str, bytes], **how: Any) -> dict[Id, bool]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return replay(folder, **{"applied": 0, "sizes": SIZES, **how})


class TestLog:
    def test_the_last_word_counts(self, tmp_path: Path) -> None:
        text = "00010203-0405-0607-0809-0a0b0c0d0e0f"
        operations = [upsert(1, 2, UUID), delete(2, text), upsert(2, 3), delete(9)]
        found = replayed(tmp_path, {"open-1": log_file(operations)})
        assert found == {1: True, 2: True, 3: True, UUID: False, 9: False}

    def test_what_is_acknowledged_is_passed_over(self, tmp_path: Path) -> None:
        files = {
            "closed-5": log_file([BY_FILTER, upsert(1)]),
            "open-3": log_file([upsert(2), delete(1)]),
            "open-4": log_file([]),
            "first-index": b'{"ack_index": 7}',
        }
        assert replayed(tmp_path, files) == {2: True, 1: False}

    def test_a_gap_is_noticed(self, tmp_path: Path) -> None:
        files = {"closed-5": log_file([upsert(1)]), "closed-9": log_file([upsert(2)])}
        with pytest.raises(UndecidedError, match="missing"):
            replayed(tmp_path, files)

    @pytest.mark.parametrize(
        "operation",
        [
            BY_FILTER,
            {"sync_points": {"points": []}},
            {"upsert_points_conditional": {}},
            {"something_new": {}},
            upsert(1, vector=(0.5, 0.1, 0.2)),
            upsert(1, vector={"unknown": [0.5, 0.1]}),
            upsert(1, vector="text"),
            {"delete_points": {"ids": [b"short"]}},
            {"delete_points": 5},
        ],
    )
    def test_what_only_qdrant_can_judge_is_left_to_it(
        self, tmp_path: Path, operation: Mapping[str, Any]
    ) -> None:
        with pytest.raises(UndecidedError):
            replayed(tmp_path, {"open-1": log_file([upsert(1), operation])})

    def test_an_entry_longer_than_its_file_ends_the_log(self, tmp_path: Path) -> None:
        content = log_file([upsert(1)])[:-64] + struct.pack("<Q", 2**64 - 1) + bytes(100)
        assert replayed(tmp_path, {"open-1": content}) == {1: True}

    @pytest.mark.parametrize(("applied", "decided"), [(1, True), (0, False)])
    def test_the_last_acknowledged_operation_is_in_the_segments_if_they_know_it(
        self, tmp_path: Path, *, applied: int, decided: bool
    ) -> None:
        files = {"open-1": log_file([upsert(1), BY_FILTER]), "first-index": b'{"ack_index": 1}'}
        if decided:
            assert replayed(tmp_path, files, applied=applied) == {}
        else:
            with pytest.raises(UndecidedError):
                replayed(tmp_path, files, applied=applied)

    @pytest.mark.parametrize(
        "operation",
        [
            {"set_payload": {"payload": {}, "filter": {}}},
            {"create_index": {"field_name": "a"}},
            {"delete_vectors": [{"points": [1]}, ["x"]]},
        ],
    )
    def test_what_does_not_change_their_number_is_passed_over(
        self, tmp_path: Path, operation: Mapping[str, Any]
    ) -> None:
        assert replayed(tmp_path, {"open-1": log_file([operation])}) == {}

    def test_vectors_of_all_kinds_are_understood(self, tmp_path: Path) -> None:
        sizes = {"a": 2, "many": 1, "words": SPARSE}
        vectors = {
            "a": [0.5, 0.1],
            "many": [[0.25], [0.1]],
            "words": {"indices": [1], "values": [0.5]},
        }
        batch = {"ids": [5, UUID], "vectors": {"a": [[0.5, 0.1], [0.3, 0.3]]}, "payloads": None}
        operations = [upsert(1, vector=vectors), {"upsert_points": {"batch": batch}}]
        found = replayed(tmp_path, {"open-1": log_file(operations)}, sizes=sizes)
        assert found == {1: True, 5: True, UUID: True}

    @given(st.binary(min_size=1, max_size=200))
    def test_whatever_the_bytes_nothing_else_is_raised(self, noise: bytes) -> None:
        with TemporaryDirectory() as folder:
            content = struct.pack("<Q", len(noise)) + noise + bytes((4 - len(noise)) % 8 + 4)
            with suppress(UndecidedError):
                replayed(Path(folder), {"open-1": b"wal\0seed" + content})


# --- the whole ---


def snapshot() -> dict[str, bytes]:
    """Return the files of a snapshot of one shard with two points, and a third in its log."""
    segment = {
        "snapshot/files/mutable_id_tracker.mappings": logged([(1, True), (2, True)]),
        "snapshot/files/segment.json": b'{"version": 3}',
    }
    config = {"params": {"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 1}}
    return {
        "0/segments/a.tar": tar_of(segment),
        "0/wal/open-1": log_file([upsert(3)]),
        "config.json": json.dumps(config).encode(),
        "payload_index.json": b'{"schema": {"a": "keyword"}}',
    }


def contents(files: Mapping[str, bytes], folder: Path, cut: int | None = None) -> Contents:
    reader = SnapshotReader(folder)
    reader.push(tar_of(files)[:cut])
    return reader.contents()


class TestSnapshots:
    def test_it_is_counted(self, tmp_path: Path) -> None:
        found = contents(snapshot(), tmp_path)
        assert (found.points, found.indexes) == ({0: 3}, {"a": "keyword"})
        assert (found.problems, found.undecided) == ((), "")

    def test_without_its_end_it_is_a_problem(self, tmp_path: Path) -> None:
        assert contents(snapshot(), tmp_path, 3000).problems == ("it ends in the middle",)

    def test_without_its_configuration_it_is_a_problem(self, tmp_path: Path) -> None:
        files = {name: one for name, one in snapshot().items() if name != "config.json"}
        assert "config.json" in contents(files, tmp_path).problems[0]

    def test_a_segment_without_its_state_is_a_problem(self, tmp_path: Path) -> None:
        files = {**snapshot(), "0/segments/a.tar": tar_of({"other": b""})}
        assert "segment.json" in contents(files, tmp_path).problems[0]

    @pytest.mark.parametrize("name", ["id_tracker.i2e", "CURRENT"])
    def test_ids_in_another_form_are_left_to_qdrant(self, tmp_path: Path, name: str) -> None:
        segment = tar_of({name: b"1", "segment.json": b'{"version": 1}'})
        found = contents({**snapshot(), "0/segments/b.tar": segment}, tmp_path)
        assert "form" in found.undecided
        assert found.points == {}


@pytest.mark.parametrize(
    "name", ["0/wal/..", "0/wal/../../../out", "0/wal/.hidden", "../wal/open-1", "²/wal/open-1"]
)
def test_nothing_is_written_elsewhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "side"
    folder.mkdir(parents=True)
    assert contents({name: b"x", **snapshot()}, folder).points == {0: 3}
    written = {str(path.relative_to(folder)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"shard-0/log/open-1"}


def test_chunks_are_not_kept(tmp_path: Path) -> None:
    def large() -> Iterator[bytes]:
        member = tarfile.TarInfo("0/segments/x/vectors")
        member.size = 64 << 20
        yield member.tobuf(tarfile.GNU_FORMAT)
        for _megabyte in range(64):
            yield bytes(1 << 20)
        yield tar_of(snapshot())

    reader = SnapshotReader(tmp_path)
    for chunk in large():
        reader.push(chunk)
    assert reader.contents().points == {0: 3}
