"""Streams that a plain vault compresses: named so, readable by hand, and never trusted blindly."""

from __future__ import annotations

import base64
import random
import shlex
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import ArchiveUnsafe, BackupDamaged, HoldfastError
from holdfast.model.artifact import Chunks, Stream
from holdfast.model.facts import Facts
from holdfast.model.manifest import Component, Form, Manifest, Status, Stored
from holdfast.sources._guide import reading
from holdfast.stores.local import LocalStore
from holdfast.testing._entries import in_chunks
from holdfast.testing._trips import GUIDE, make_manifest, read_stream, silent
from holdfast.testing.export_contract import exported
from holdfast.testing.vault_contract import INSTANT
from holdfast.vaults._archive import unpack_stream
from holdfast.vaults._compress import Method, compress
from holdfast.vaults._plain_layout import DEFAULT_LAYOUT
from holdfast.vaults.plain import PlainOptions, PlainVault

CONTENT = b"".join(b"row %d of a dump\n" % number for number in range(200_000))  # several blocks
KINDS = {"tar.zst": (".zst", "zstd", Method.ZSTD), "tar.gz": (".gz", "gzip", Method.GZIP)}


def stream(content: bytes = CONTENT, name: str = "rows.dump", *, piece: int = 1 << 16) -> Stream:
    @contextmanager
    def opened() -> Iterator[Chunks]:
        yield iter(content[start : start + piece] for start in range(0, len(content), piece))

    return Stream(name, opened, part="rows", compressible=True, labels={"database": "main"})


def make_vault(folder: Path, layout: str = DEFAULT_LAYOUT) -> PlainVault:
    return PlainVault("local", LocalStore(folder), PlainOptions(url=folder, layout=layout))


def keep(vault: PlainVault, artifact: Stream, archive: str = "tar.zst") -> Manifest:
    backup_id = vault.backup_id("brain", INSTANT)
    told: list[int] = []
    component = Component("db", "memory", Status.COMPLETED, INSTANT, facts=Facts())
    with vault.draft(backup_id, INSTANT, archive) as draft:
        stored = draft.put("db", artifact, told.append)
        assert sum(told) == stored.content_size  # progress counts the content, not what is kept
        manifest = make_manifest(
            backup_id, INSTANT, vault.next_sequence(), components=[component], artifacts=[stored]
        )
        draft.seal(manifest, GUIDE)
    return manifest


@pytest.fixture(params=KINDS)
def archive(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_it_is_kept_compressed_under_a_name_that_says_so(tmp_path: Path, archive: str) -> None:
    suffix, encoding, _method = KINDS[archive]
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(), archive)
    [stored] = manifest.artifacts
    assert stored.path == f"{manifest.id}/db_rows.dump{suffix}"
    assert (stored.form, stored.encoding, stored.name) == (Form.STREAM, encoding, "rows.dump")
    assert stored.content_size == len(CONTENT)
    assert stored.size == (tmp_path / "vault" / stored.path).stat().st_size < len(CONTENT) / 2


def test_it_comes_back_as_it_was_given(tmp_path: Path, archive: str) -> None:
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(), archive)
    artifact = vault.artifact(manifest, manifest.artifacts[0])
    assert isinstance(artifact, Stream)
    assert read_stream(artifact) == CONTENT
    assert (artifact.name, artifact.part, artifact.labels["database"]) == (
        "rows.dump",
        "rows",
        "main",
    )
    assert artifact.size_hint == len(CONTENT)
    assert artifact.compressible
    assert artifact.path is None  # the file holds something else
    assert vault.verify(manifest, silent) == []


def test_an_empty_stream_comes_back_empty(tmp_path: Path, archive: str) -> None:
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(b""), archive)
    assert read_stream(vault.artifact(manifest, manifest.artifacts[0])) == b""  # type: ignore[arg-type]


def test_a_stream_that_is_not_worth_it_is_kept_as_it_is(tmp_path: Path, archive: str) -> None:
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, replace(stream(), compressible=False), archive)
    [stored] = manifest.artifacts
    assert (stored.path, stored.encoding) == (f"{manifest.id}/db_rows.dump", "identity")
    artifact = vault.artifact(manifest, stored)
    assert isinstance(artifact, Stream)
    assert not artifact.compressible
    assert artifact.path is not None


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("{component}/{stem}_{timestamp}{suffix}", "db/rows_20260204_120000.dump.zst"),
        ("{backup_id}/{artifact}", "backup_20260204_120000/db_rows.dump.zst"),
        ("db/archive_{database}_{timestamp}.dump", "db/archive_main_20260204_120000.dump"),
        ("{component}/{stem}_{timestamp}", "db/rows_20260204_120000"),
    ],
)
def test_only_a_name_that_can_say_so_is_of_a_compressed_file(
    tmp_path: Path, layout: str, path: str
) -> None:
    vault = make_vault(tmp_path / "vault", layout)
    manifest = keep(vault, stream())
    [stored] = manifest.artifacts
    named = path.endswith(".zst")
    assert stored.path.endswith(path.removeprefix("backup_20260204_120000/"))
    assert stored.encoding == ("zstd" if named else "identity")
    assert (stored.size == len(CONTENT)) == (not named)
    assert read_stream(vault.artifact(manifest, stored)) == CONTENT  # type: ignore[arg-type]


def test_the_tools_that_everybody_has_read_it(tmp_path: Path, archive: str) -> None:
    suffix, encoding, _method = KINDS[archive]
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(), archive)
    folder = tmp_path / "vault" / manifest.id
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    command = [encoding, "-dc", f"db_rows.dump{suffix}"]
    read = subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert read.stdout == CONTENT


@pytest.mark.parametrize("suffix", ["", ".zst", ".gz"])
@pytest.mark.parametrize("name", ["dump", "it's a 'dump' $x", "-n; rm"])
def test_the_guide_says_how_to_read_it(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"{name}{suffix}"
    methods = {".zst": Method.ZSTD, ".gz": Method.GZIP}
    packed = compress([CONTENT], methods[suffix]) if suffix else [CONTENT]
    path.write_bytes(b"".join(map(bytes, packed)))
    line = reading(shlex.quote(str(path)))
    read = subprocess.run(["sh", "-c", line], check=True, capture_output=True)
    assert read.stdout == CONTENT


def test_it_goes_through_an_export_unchanged(tmp_path: Path, archive: str) -> None:
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(), archive)
    other = make_vault(tmp_path / "other")
    taken = other.take(in_chunks(exported(vault, manifest)))
    [stored] = taken.artifacts
    assert stored == manifest.artifacts[0]
    assert read_stream(other.artifact(taken, stored)) == CONTENT  # type: ignore[arg-type]


# --- stored bytes are not to be trusted ---


@pytest.mark.parametrize("how", ["first", "middle", "last", "cut", "longer", "gone", "empty"])
def test_damage_is_found_by_whoever_reads_it(tmp_path: Path, archive: str, how: str) -> None:
    vault = make_vault(tmp_path / "vault")
    manifest = keep(vault, stream(), archive)
    [stored] = manifest.artifacts
    file = tmp_path / "vault" / stored.path
    data = bytearray(file.read_bytes())
    place = {"first": 0, "middle": len(data) // 2, "last": len(data) - 1}
    if how in place:
        data[place[how]] ^= 1
    damaged = bytes({"cut": data[:-1], "longer": data + b"\0", "empty": b""}.get(how, data))
    file.unlink()
    if how != "gone":
        file.write_bytes(damaged)
    assert vault.verify(manifest, silent) != []
    with pytest.raises(HoldfastError):
        read_stream(vault.artifact(manifest, stored))  # type: ignore[arg-type]


def as_stored(method: Method, content_size: int) -> Stored:
    return Stored("db", "rows", Form.STREAM, "rows", 0, "", method.value, content_size)


@pytest.mark.parametrize("method", Method)
def test_a_bomb_is_stopped_at_the_size_of_its_record(method: Method) -> None:
    packed = list(compress([bytes(1 << 20)] * 64, method))
    given: list[int] = []
    with pytest.raises(ArchiveUnsafe, match="unpacks to more than the 5000000 bytes"):
        given.extend(map(len, unpack_stream(packed, as_stored(method, 5_000_000), "b")))
    assert 0 < sum(given) <= 5_000_000


@pytest.mark.parametrize("method", Method)
def test_less_than_was_stored_is_damage(method: Method) -> None:
    packed = list(compress([b"short"], method))
    with pytest.raises(BackupDamaged, match="unpacks to 5 bytes where 6 were stored"):
        list(unpack_stream(packed, as_stored(method, 6), "b"))


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("keep_bytes", [0, 3, 10, -20])
def test_a_cut_stream_is_damage(method: Method, keep_bytes: int) -> None:
    packed = b"".join(map(bytes, compress([CONTENT], method)))[:keep_bytes]
    with pytest.raises(BackupDamaged):
        list(unpack_stream([packed], as_stored(method, len(CONTENT)), "b"))


@pytest.mark.parametrize("method", Method)
def test_what_was_never_compressed_is_damage(method: Method) -> None:
    with pytest.raises(BackupDamaged):
        list(unpack_stream([b"plain text, plainly"], as_stored(method, 19), "b"))


# --- stable ---


@pytest.mark.parametrize(
    ("method", "packed"),
    [
        (Method.ZSTD, "KLUv/QRYQQAAb25lCnR3bwrmpg5A"),
        (Method.GZIP, "H4sIAAAAAAAAA8vPS+UqKc/nAgDmC7oSCAAAAA=="),
    ],
)
def test_what_the_tools_once_wrote_is_read_for_ever(method: Method, packed: str) -> None:
    read = unpack_stream([base64.b64decode(packed)], as_stored(method, 8), "b")
    assert b"".join(map(bytes, read)) == b"one\ntwo\n"


def test_the_same_stream_gives_the_same_bytes(tmp_path: Path, archive: str) -> None:
    vaults = [make_vault(tmp_path / name) for name in "abc"]
    kept = {keep(vault, stream(), archive).artifacts[0].sha256 for vault in vaults}
    assert len(kept) == 1


# --- what does not compress ---


def compressed(content: bytes) -> bytes:
    return b"".join(compress(iter((content,)), Method.ZSTD))


def unzstd(packed: bytes) -> bytes:
    done = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True)
    return done.stdout


def test_embeddings_pass_through_and_the_zstd_program_reads_them() -> None:
    chosen = random.Random(7)
    vectors = array("f", (chosen.gauss(0, 1) for _ in range(1 << 18))).tobytes()
    packed = compressed(vectors)
    assert len(vectors) * 0.99 < len(packed) < len(vectors) * 1.001
    assert unzstd(packed) == vectors


@pytest.mark.parametrize("where", [0.0, 0.34, 0.66, 1.0])
def test_a_block_is_compressed_where_any_sample_of_it_shrinks(where: float) -> None:
    size, text = 1 << 20, b"the same words again " * 4000
    noise = random.Random(7).randbytes(size - len(text))
    start = int(where * len(noise))
    block = noise[:start] + text + noise[start:]
    packed = compressed(block)
    assert len(packed) < len(noise) + len(text) // 10
    assert unzstd(packed) == block
