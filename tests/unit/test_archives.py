"""Archives that are damaged, hostile, or read by other programs."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import ArchiveUnsafe, BackupDamaged, HoldfastError, SourceUnreadable
from holdfast.model.artifact import CHUNK, Chunk, Entry, EntryKind, Tree, TreeItems
from holdfast.model.manifest import Form, Stored
from holdfast.sources._tree import Planter
from holdfast.vaults._archive import ARCHIVES, ENCODINGS, Pack, unpack
from holdfast.vaults._compress import Method, compress, decompress
from holdfast.vaults._tar import LONGEST_HEADER, TarWriter, headers
from holdfast.vaults._untar import MOST_EXTENTS
from tests import tree_world as world

KINDS = sorted(ARCHIVES)
SMALL = [
    world.folder(mtime_ns=1_600_000_000_123_456_789),
    world.folder("folder"),
    world.file("folder/file", b"content" * 20, mtime_ns=5),
    world.file("folder/" + "long name " * 12, b"x", xattrs={"user.note": b"\0\n=%"}),
    (
        Entry("sparse", EntryKind.FILE, size=20_000, extents=((4096, 10), (8192, 600))),
        b"d" * 610,
    ),
    world.symlink("link", "folder/file"),
    world.hard_link("second", "folder/file"),
]


def plain(items: Sequence[tuple[Entry, bytes]] = SMALL) -> bytes:
    with world.tree(items).open() as entries:
        return b"".join(TarWriter(lambda _count: None).pieces(entries))


def stored(archive: str = "tar.zst", *, content_size: int = 751, entries: int = 7) -> Stored:
    return Stored(
        "files", "files", Form.TREE, "files.tar", 0, "0" * 64, ENCODINGS[archive],
        content_size, entries,
    )  # fmt: skip


def squeezed(data: bytes, archive: str = "tar.zst") -> bytes:
    return b"".join(compress([data], ARCHIVES[archive]))


def unpacked(data: bytes, record: Stored) -> list[tuple[Entry, bytes]]:
    chunks = (data[at : at + 1000] for at in range(0, len(data), 1000))
    items = unpack(chunks, record, "backup_1")
    return [(entry, b"".join(content)) for entry, content in items]


def of_tar(data: bytes, *, content_size: int = 751, entries: int = 7) -> list[tuple[Entry, bytes]]:
    return unpacked(squeezed(data), stored(content_size=content_size, entries=entries))


# --- whole archives -------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", KINDS)
def test_what_is_packed_comes_back(archive: str) -> None:
    counted: list[int] = []
    pack = Pack(world.tree(SMALL), archive, counted.append)
    data = b"".join(pack.chunks())
    assert (pack.content_size, pack.entries, pack.encoding) == (751, 7, ENCODINGS[archive])
    assert sum(counted) == 751
    assert unpacked(data, stored(archive)) == [
        (replace(entry, mode=entry.mode), content) for entry, content in SMALL
    ]


@pytest.mark.parametrize("archive", KINDS)
def test_chunks_are_no_larger_than_agreed(archive: str) -> None:
    noise = os.urandom(5 * CHUNK + 7)
    pack = Pack(world.tree([world.folder(), world.file("a", noise)]), archive, lambda _n: None)
    packed = [bytes(chunk) for chunk in pack.chunks()]
    assert max(map(len, packed)) <= CHUNK
    record = stored(archive, content_size=len(noise), entries=2)
    for _entry, content in unpack(iter(packed), record, "b"):
        assert all(len(chunk) <= CHUNK for chunk in content)


def test_the_own_programs_of_each_format_accept_it(tmp_path: Path) -> None:
    big = [world.folder(), world.file("big", os.urandom(100) * 40_000)]
    for archive, test, listing in (
        ("tar.zst", ["zstd", "-q", "-t"], ["tar", "--zstd", "-tf"]),
        ("tar.gz", ["gzip", "-t"], ["tar", "-tzf"]),
    ):
        file = tmp_path / f"x.{archive}"
        file.write_bytes(b"".join(Pack(world.tree(big), archive, lambda _n: None).chunks()))
        subprocess.run([*test, file], check=True)
        done = subprocess.run([*listing, file], check=True, capture_output=True, text=True)
        assert done.stdout == "./\nbig\n"
        assert done.stderr == ""


def test_pythons_tarfile_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(plain())) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [entry.path for entry, _content in SMALL]
        sparse = tar.extractfile("sparse")
        assert sparse is not None
        assert sparse.read()[4096:4106] == b"d" * 10
        assert members[4].size == 20_000
        assert members[0].mtime == pytest.approx(1_600_000_000.123456789)


@pytest.mark.parametrize("time", [-1, -(10**9), -1_500_000_000, 1, 2**33 * 10**9, 2**62])
def test_times_come_back_to_the_nanosecond(time: int) -> None:
    ((entry, _content),) = of_tar(plain([world.folder(mtime_ns=time)]), content_size=0, entries=1)
    assert entry.mtime_ns == time


@pytest.mark.parametrize("number", [0, 0o7777777, 0o7777777 + 1, 2**31, 2**32 - 2])
def test_ids_of_any_size_come_back(number: int) -> None:
    item = world.folder(uid=number, gid=number, owner="ü" * 40, group="g" * 33)
    assert of_tar(plain([item]), content_size=0, entries=1) == [item]


def test_a_file_too_large_for_an_old_header_says_its_size() -> None:
    header = headers(Entry("a", EntryKind.FILE, size=1 << 34))
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024))) as tar:
        member = tar.next()
        assert member is not None
        assert member.size == 1 << 34


# --- the source fails while we pack ---------------------------------------------------------------


def test_an_error_of_the_source_comes_through_and_no_thread_stays() -> None:
    error = SourceUnreadable(component="c", path="p", reason="r")

    def items() -> TreeItems:
        yield world.folder()[0], iter(())
        for number in range(10):
            yield Entry(f"{number}", EntryKind.FILE, size=CHUNK), iter((bytes(CHUNK),))
        raise error

    class Opened:
        def __enter__(self) -> TreeItems:
            return items()

        def __exit__(self, *_error: object) -> None:
            return None

    before = threading.active_count()
    with pytest.raises(SourceUnreadable) as caught:
        list(Pack(Tree("t", Opened), "tar.zst", lambda _n: None).chunks())
    assert caught.value is error
    assert threading.active_count() == before


def test_packing_may_be_broken_off() -> None:
    before = threading.active_count()
    item = world.file("a", os.urandom(30 * CHUNK))
    chunks = Pack(world.tree([world.folder(), item]), "tar.gz", lambda _n: None).chunks()
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


@pytest.mark.parametrize("content", [b"", b"xxxx", b"xxxxxx"])
def test_content_that_is_not_as_announced_is_never_packed(content: bytes) -> None:
    item = (Entry("a", EntryKind.FILE, size=5), content)
    with pytest.raises(ValueError, match="announced"):
        list(Pack(world.tree([world.folder(), item]), "tar.zst", lambda _n: None).chunks())


def test_a_header_that_no_reader_takes_is_never_packed() -> None:
    item = world.file("a", b"", xattrs={"user.big": bytes(LONGEST_HEADER)})
    with pytest.raises(ValueError, match="needs a header"):
        plain([world.folder(), item])


# --- damaged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", KINDS)
def test_an_archive_cut_at_any_record_is_damaged(archive: str) -> None:
    data = plain()
    for end in range(0, len(data) - 512 + 1, 512):
        with pytest.raises((BackupDamaged, ArchiveUnsafe)):
            unpacked(squeezed(data[:end], archive), stored(archive))
    with pytest.raises(BackupDamaged):
        unpacked(squeezed(data[:700], archive), stored(archive))


@pytest.mark.parametrize("archive", KINDS)
def test_a_file_cut_at_any_byte_is_damaged(archive: str) -> None:
    data = squeezed(plain(), archive)
    # The last bytes of a zstd frame are its checksum: the caller's checksum is what notices those.
    for end in range(len(data) - 8):
        with pytest.raises(BackupDamaged):
            unpacked(data[:end], stored(archive))


@pytest.mark.parametrize("archive", KINDS)
def test_a_flipped_byte_of_the_file_is_found(archive: str) -> None:
    data = bytearray(squeezed(plain(), archive))
    harmless = 0
    for place in range(len(data)):
        data[place] ^= 0x55
        try:
            items = unpacked(bytes(data), stored(archive))
        except (BackupDamaged, ArchiveUnsafe):
            pass
        else:
            assert items == SMALL  # in a field of the format that means nothing: a time, a name
            harmless += 1
        data[place] ^= 0x55
    assert harmless < 16


@pytest.mark.parametrize(
    "step",
    [13, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
    ids=["some", "every"],
)
def test_a_flipped_byte_of_the_tar_is_found_or_stays_inside(tmp_path: Path, step: int) -> None:
    data = bytearray(plain())
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "targets").mkdir()
    found = 0
    for place in range(0, len(data), step):
        flip = 0x01 if place % 2 else 0xFF
        data[place] ^= flip
        try:
            _plant(tmp_path / "targets" / str(place), unpacked_plain(bytes(data)))
        except HoldfastError:
            found += 1
        data[place] ^= flip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["targets", "victim"]
    assert all(path.name.isdigit() for path in (tmp_path / "targets").iterdir())
    assert (tmp_path / "victim").read_text() == "untouched"
    assert found > len(data) // step // 2


def unpacked_plain(data: bytes) -> TreeItems:
    framed = zstandard.ZstdCompressor(level=-5).compress(data)
    return unpack(iter((framed,)), stored(), "b")


def _plant(root: Path, items: TreeItems) -> None:
    with Planter(root, "files") as planter:
        for entry, chunks in items:
            planter.add(entry, chunks)
        planter.finish(durable=False)


@settings(max_examples=300, deadline=None, print_blob=True)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(plain()) - 1), st.binary(min_size=1, max_size=30)), max_size=4
    ),
    mended=st.booleans(),
)
def test_nothing_but_our_own_errors_comes_of_garbage(
    edits: list[tuple[int, bytes]],
    mended: bool,  # noqa: FBT001
) -> None:
    data = bytearray(plain())
    for place, value in edits:
        data[place : place + len(value)] = value
    tar = _mended(bytes(data)) if mended else bytes(data)
    try:
        items = of_tar(tar)
    except (BackupDamaged, ArchiveUnsafe):
        return
    assert sum(entry.stored_size for entry, _content in items) == 751


def _mended(data: bytes) -> bytes:
    """Make the checksums of all records right that look like headers."""
    records = [data[at : at + 512] for at in range(0, len(data), 512)]
    return b"".join(mend(one) if one[257:262] == b"ustar" else one for one in records)


def mend(header: bytes) -> bytes:
    """Return a header with the checksum that it should have."""
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    return header[:148] + b"%06o\0 " % (total & 0o777777) + header[156:]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\x00"])
@pytest.mark.parametrize("archive", KINDS)
def test_what_is_no_archive_is_damaged(archive: str, data: bytes) -> None:
    with pytest.raises(BackupDamaged) as caught:
        unpacked(data, stored(archive))
    assert "backup_1" in str(caught.value)
    assert "files.tar" in str(caught.value)


@pytest.mark.parametrize(
    ("archive", "more", "accepted"),
    [
        ("tar.zst", bytes(100), False),
        ("tar.zst", b"garbage", False),
        ("tar.gz", bytes(100), True),  # gzip allows zeros there, as tapes have them
        ("tar.gz", b"garbage", False),
        ("tar.gz", b"\x1f\x8b", False),
    ],
)
def test_bytes_after_the_end_are_read_and_judged(
    archive: str, more: bytes, *, accepted: bool
) -> None:
    chunks = iter([squeezed(plain(), archive), more])
    if accepted:
        take_all(chunks, archive)
        assert next(chunks, None) is None
    else:
        with pytest.raises(BackupDamaged):
            take_all(chunks, archive)


def take_all(chunks: Iterator[bytes], archive: str) -> None:
    for _entry, content in unpack(chunks, stored(archive), "b"):
        list(content)


@pytest.mark.parametrize("archive", KINDS)
def test_the_input_is_read_to_its_end_and_its_own_error_comes_through(archive: str) -> None:
    rotten = BackupDamaged(backup="b", path="p", reason="its checksum differs")

    def chunks() -> Iterator[bytes]:
        yield squeezed(plain(), archive)
        raise rotten

    with pytest.raises(BackupDamaged) as caught:
        take_all(chunks(), archive)
    assert caught.value is rotten


def test_content_that_is_not_taken_is_passed_over() -> None:
    items = unpack(iter([squeezed(plain())]), stored(), "b")
    assert [entry.path for entry, _content in items] == [entry.path for entry, _c in SMALL]


# --- hostile --------------------------------------------------------------------------------------


def header(kind: bytes, name: bytes = b"a", size: int = 0, **fields: bytes) -> bytes:
    raw = bytearray(headers(Entry("x", EntryKind.FILE)))
    raw[:100] = name.ljust(100, b"\0")
    raw[124:136] = b"%011o\0" % size
    raw[156:157] = kind
    raw[157:257] = fields.get("link", b"").ljust(100, b"\0")
    return mend(bytes(raw))


def extended(*records: tuple[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    return header(b"x", size=len(body)) + body + bytes(-len(body) % 512)


def _record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


SPARSE = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"a")]


def sparse(table: bytes, realsize: bytes = b"5000", size: int = 512) -> bytes:
    records = extended(*SPARSE, (b"GNU.sparse.realsize", realsize))
    return records + header(b"0", size=size) + table.ljust(512, b"\0")


HOSTILE = {
    "up": header(b"0", b"../evil"),
    "up below": header(b"0", b"a/../../evil"),
    "absolute": header(b"0", b"/etc/passwd"),
    "up by an extended header": extended((b"path", b"../../evil")) + header(b"0"),
    "NUL by an extended header": extended((b"path", b"a\0b")) + header(b"0"),
    "up by a sparse name": extended(*SPARSE[:2], (b"GNU.sparse.name", b"../evil"),
        (b"GNU.sparse.realsize", b"0")) + header(b"0", size=512) + b"0\n".ljust(512, b"\0"),
    "empty name": header(b"0", b""),
    "hard link up": header(b"1", b"a", link=b"../evil"),
    "hard link absolute": header(b"1", b"a", link=b"/etc/passwd"),
    "link to nothing": header(b"2", b"a"),
    "device": header(b"3"),
    "block device": header(b"4"),
    "old sparse": header(b"S"),
    "unknown": header(b"Z"),
    "folder with content": header(b"5", size=5) + bytes(512),
    "link with content": header(b"2", size=5, link=b"x") + bytes(512),
    "a long header": header(b"x", size=LONGEST_HEADER + 1),
    "a long name": header(b"L", size=LONGEST_HEADER + 1),
    "a long global header": header(b"g", size=1 << 40),
    "sparse of another form": extended((b"GNU.sparse.map", b"0,5")) + header(b"0", size=5),
    "map backwards": sparse(b"2\n100\n5\n0\n5\n", size=522),
    "map beyond": sparse(b"1\n4999\n2\n", size=514),
    "map too long": sparse(b"%d\n" % (MOST_EXTENTS + 1)),
    "map larger than file": sparse(b"0\n", size=100),
    "map without data": sparse(b"1\n0\n100\n", size=512),
}  # fmt: skip
DAMAGED = {
    "two extended headers": extended((b"path", b"a")) * 2 + header(b"0"),
    "extended header at the end": extended((b"path", b"a")) + bytes(1024),
    "a record without end": header(b"x", size=5) + b"9 a=b".ljust(512, b"\0") + header(b"0"),
    "a record without length": header(b"x", size=5) + b"x a=b".ljust(512, b"\0") + header(b"0"),
    "a record of no length": header(b"x", size=6) + b"0 a=b\n".ljust(512, b"\0") + header(b"0"),
    "words after a record": header(b"x", size=12) + b"6 a=b\nxxxxxx".ljust(512, b"\0"),
    "a bad size": extended((b"size", b"-5")) + header(b"0"),
    "a huge size": extended((b"size", b"9" * 19)) + header(b"0"),
    "a bad id": extended((b"uid", b"1e9")) + header(b"0"),
    "a bad time": extended((b"mtime", b"yesterday")) + header(b"0"),
    "a map of words": sparse(b"one\n"),
    "a map without end": sparse(b"1" * 512, size=5000) + b"1" * 5120,
    "a single empty record": bytes(512) + header(b"0"),
    "a bad checksum": header(b"0")[:-1] + b"x",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries_are_refused(case: str) -> None:
    with pytest.raises(ArchiveUnsafe) as caught:
        of_tar(plain([world.folder()])[:-1024] + HOSTILE[case] + bytes(2048))
    assert "files.tar" in str(caught.value)


@pytest.mark.parametrize("case", DAMAGED)
def test_contradictions_are_damage(case: str) -> None:
    with pytest.raises(BackupDamaged):
        of_tar(plain([world.folder()])[:-1024] + DAMAGED[case] + bytes(2048))


@pytest.mark.parametrize(
    ("content_size", "entries", "error"),
    [(751, 6, ArchiveUnsafe), (750, 7, ArchiveUnsafe), (751, 8, BackupDamaged),
     (752, 7, BackupDamaged), (0, 0, ArchiveUnsafe)],
)  # fmt: skip
def test_no_more_and_no_less_than_the_manifest_records(
    content_size: int, entries: int, error: type[HoldfastError]
) -> None:
    with pytest.raises(error):
        of_tar(plain(), content_size=content_size, entries=entries)


def test_a_second_archive_after_the_end_is_refused() -> None:
    with pytest.raises(ArchiveUnsafe, match="after its end"):
        of_tar(plain() + plain())


def test_a_frame_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(plain([world.folder(), world.file("a", bytes(20 << 20))]))
    command = ["zstd", "-q", "--long=27", "--no-content-size", "-c"]
    with (tmp_path / "tar").open("rb") as source:
        done = subprocess.run(command, stdin=source, capture_output=True, check=True)
    with pytest.raises(BackupDamaged):
        unpacked(done.stdout, stored(content_size=20 << 20, entries=2))


BOMBS: dict[str, Callable[[], bytes]] = {
    "a file of zeros": lambda: header(b"0", size=1 << 33),
    "endless padding": lambda: bytes(1024),
    "endless records": lambda: header(b"x", size=LONGEST_HEADER),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("archive", KINDS)
def test_bombs_go_off_in_a_small_space(tmp_path: Path, bomb: str, archive: str) -> None:
    """8 GiB of zeros follow; only a little is ever unpacked, in little memory and time."""
    zeros = squeezed(bytes(64 << 20), archive)
    file = tmp_path / "bomb"
    with file.open("wb") as out:
        out.write(squeezed(plain([world.folder()])[:-1024] + BOMBS[bomb](), archive))
        for _ in range(128):
            out.write(zeros)
    program = (
        "import resource, sys\n"
        "from holdfast.errors import HoldfastError\n"
        "from holdfast.vaults._archive import unpack\n"
        "from tests.unit.test_archives import stored\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "source = open(sys.argv[1], 'rb')\n"
        "chunks = iter(lambda: source.read(1 << 20), b'')\n"
        "try:\n"
        "    for _entry, content in unpack(chunks, stored(sys.argv[2], entries=2), 'b'):\n"
        "        for _chunk in content: pass\n"
        "except HoldfastError as error: print(type(error).__name__)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, file, archive],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
        cwd=Path(__file__).parents[2],
    )
    error, grown = done.stdout.split()
    assert error in {"ArchiveUnsafe", "BackupDamaged"}
    assert int(grown) < 60  # MiB


# --- compression alone ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", list(Method))
@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17])
def test_streams_come_back_from_compression(method: Method, size: int) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    pieces: list[Chunk] = [memoryview(data)[at : at + 70_000] for at in range(0, size, 70_000)]
    packed = [bytes(chunk) for chunk in compress(pieces, method)]
    assert b"".join(decompress(packed, method)) == data
    program = "zstd" if method is Method.ZSTD else "gzip"
    done = subprocess.run([program, "-dc"], input=b"".join(packed), capture_output=True, check=True)
    assert done.stdout == data


def test_a_wrong_checksum_inside_gzip_is_found() -> None:
    data = bytearray(squeezed(plain(), "tar.gz"))
    data[-8:-4] = struct.pack("<I", zlib.crc32(b"else"))
    with pytest.raises(BackupDamaged):
        unpacked(bytes(data), stored("tar.gz"))
