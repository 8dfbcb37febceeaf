"""The structural check of Chroma folders: sound ones pass, and each kind of damage is found."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.sources._chroma_check import check_database, check_indexes
from holdfast.sources._chroma_database import ADD, DELETE, UPDATE, UPSERT
from holdfast.sources._chroma_files import read_header
from tests.chroma_world import make_store
from tests.unit.test_chroma_pickle import as_chroma, as_old_chroma, maps_of

ELEMENTS = 12 + 8  # where the header says how many elements there are


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with indexes of several levels, deleted elements, and a queue."""
    folder = tmp_path_factory.mktemp("made") / "chroma"
    return make_store(folder, seed=31, operations=60, threshold=300)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "chroma"))


def problems(store: Path) -> list[str]:
    return [problem.text for problem in check_indexes(store, store.parent / "scratch")]


def index_of(store: Path) -> Path:
    """Return the folder of the largest index that was written."""
    folders = [path.parent for path in store.glob("*/index_metadata.pickle")]
    return max(folders, key=lambda folder: read_header(folder).elements)


def patched(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at if at >= 0 else path.stat().st_size + at)
        file.write(data)


def flipped(path: Path, at: int, bits: int = 0x80) -> None:
    byte = path.read_bytes()[at]
    patched(path, at, bytes([byte ^ bits]))


def execute(store: Path, sql: str, *parameters: object) -> None:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection, connection:
        connection.execute(sql, parameters)


def test_a_sound_store_has_no_problems(store: Path) -> None:
    assert problems(store) == []
    assert check_database(store) == []
    assert not (store.parent / "scratch").exists()
    assert {path.name for path in store.iterdir() if path.is_file()} == {"chroma.sqlite3"}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_chroma_writes_is_sound(tmp_path: Path, seed: int) -> None:
    store = make_store(tmp_path / "chroma", seed=seed, operations=90, threshold=70 + 90 * seed)
    assert problems(store) == []


# --- damage to the files of an index -------------------------------------------------------------

Damage = Callable[[Path], None]


def header_field(at: int) -> Damage:
    return lambda index: flipped(index / "header.bin", at)


def row_byte(row: int, at: Callable[[Path], int], bits: int = 0x80) -> Damage:
    def damage(index: Path) -> None:
        flipped(index / "data_level0.bin", row * read_header(index).row + at(index), bits)

    return damage


def cut(name: str, share: int = 3) -> Damage:
    def damage(index: Path) -> None:
        data = (index / name).read_bytes()
        (index / name).write_bytes(data[: len(data) // share])

    return damage


def lost(name: str) -> Damage:
    return lambda index: (index / name).unlink()


def emptied(name: str) -> Damage:
    return cut(name, 1 << 40)


def first_upper_list(index: Path) -> int:
    """Return where ``link_lists.bin`` has its first list that is not empty."""
    data = (index / "link_lists.bin").read_bytes()
    return next(at for at in range(0, len(data), 4) if data[at : at + 4] != b"\0\0\0\0")


DAMAGES: dict[str, Damage] = {
    **{f"header, byte {at}": header_field(at) for at in (0, 4, 16, 20, 28, 36, 44, 52, 56, 60, 68)},
    "degree of a row": row_byte(3, lambda _index: 1),
    "neighbour of a row": row_byte(3, lambda _index: 7),
    "tombstone of a row": row_byte(3, lambda _index: 2, bits=1),
    "label of a row": row_byte(3, lambda index: read_header(index).label_at),
    "high byte of a label": row_byte(3, lambda index: read_header(index).label_at + 5),
    "size of an upper list": lambda index: flipped(
        index / "link_lists.bin", first_upper_list(index)
    ),
    "neighbour above": lambda index: flipped(
        index / "link_lists.bin", first_upper_list(index) + 4 + 4 + 3
    ),
    "a key of the pickle": lambda index: flipped(index / "index_metadata.pickle", 8),
    "an id of the pickle": lambda index: flipped(index / "index_metadata.pickle", 95),
    "the middle of the pickle": lambda index: flipped(
        index / "index_metadata.pickle", (index / "index_metadata.pickle").stat().st_size // 2
    ),
    **{f"{name} cut off": cut(name) for name in ("header.bin", "data_level0.bin", "length.bin")},
    **{f"{name} cut": cut(name) for name in ("link_lists.bin", "index_metadata.pickle")},
    **{f"{name} emptied": emptied(name) for name in ("length.bin", "index_metadata.pickle")},
    **{
        f"{name} lost": lost(name)
        for name in (
            "header.bin",
            "data_level0.bin",
            "length.bin",
            "link_lists.bin",
            "index_metadata.pickle",
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_to_an_index_is_found(store: Path, damage: Damage) -> None:
    index = index_of(store)
    damage(index)
    assert problems(store)
    assert {each.segment for each in check_indexes(store, store.parent / "s")} == {index.name}


def test_an_index_of_another_time_is_found(made: Path, tmp_path: Path) -> None:
    """Every file is whole, but they do not belong together."""
    earlier = make_store(tmp_path / "earlier", seed=31, operations=30, threshold=300)
    later = make_store(tmp_path / "later", seed=31, operations=60, threshold=300)
    for old in earlier.glob("*/index_metadata.pickle"):
        size = read_header(old.parent).elements
        new = min(
            (path.parent for path in later.glob("*/header.bin")),
            key=lambda folder: abs(read_header(folder).elements - size),
        )
        shutil.copytree(old.parent, new, dirs_exist_ok=True)
    assert problems(later)


@pytest.mark.parametrize("name", ["data_level0.bin", "index_metadata.pickle", "header.bin"])
def test_one_file_of_another_time_is_found(store: Path, tmp_path: Path, name: str) -> None:
    others = [path.parent for path in store.glob("*/index_metadata.pickle")]
    one, other = sorted(others, key=lambda folder: read_header(folder).elements)[:2]
    shutil.copyfile(other / name, one / name)
    assert problems(store)


def test_a_pickle_of_an_old_chroma_passes(store: Path) -> None:
    import pickle

    path = index_of(store) / "index_metadata.pickle"
    content = pickle.loads(path.read_bytes())  # noqa: S301 - Chroma wrote it, in this test
    path.write_bytes(as_old_chroma(content))
    assert problems(store) == []


# --- damage to the database ----------------------------------------------------------------------


def test_a_lost_row_is_found(store: Path) -> None:
    execute(store, "DELETE FROM embeddings WHERE id = (SELECT min(id) FROM embeddings)")
    assert any("has a vector, but no row" in text for text in problems(store))


def test_a_lost_queue_is_found(store: Path) -> None:
    execute(store, "DELETE FROM embeddings_queue")
    assert any("has no vector" in text for text in problems(store))


def test_a_dimension_that_is_not_the_indexs_is_found(store: Path) -> None:
    execute(store, "UPDATE collections SET dimension = 17")
    assert any("dimension 16, not 17" in text for text in problems(store))


def test_a_torn_page_of_the_database_is_found(store: Path) -> None:
    size = (store / "chroma.sqlite3").stat().st_size
    found = []
    for page in range(4, size // 4096, 8):
        copy = store.parent / "torn.sqlite3"
        shutil.copyfile(store / "chroma.sqlite3", copy)
        patched(copy, page * 4096, b"\xff" * 64)
        folder = store.parent / "torn"
        folder.mkdir(exist_ok=True)
        copy.rename(folder / "chroma.sqlite3")
        found.append(bool(check_database(folder)))
    assert sum(found) > len(found) * 0.9  # a page of free space may be torn without harm


def test_a_database_that_is_none_is_found(store: Path) -> None:
    (store / "chroma.sqlite3").write_bytes(b"junk" * 5000)
    assert problems(store)
    assert check_database(store)


# --- the queue applied twice ---------------------------------------------------------------------


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    """A store whose index holds all of the queue already, though its number says it holds none."""
    store = make_store(tmp_path / "ahead", seed=3, operations=2, plan={"names": ["prose"]})
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection, connection:
        (segment,) = connection.execute("SELECT id FROM segments WHERE scope = 'VECTOR'").fetchone()
        vectors = dict(connection.execute("SELECT id, vector FROM embeddings_queue"))
    write_index(store / segment, vectors)
    return store


def write_index(folder: Path, vectors: dict[str, bytes]) -> None:
    """Write the files of an index that has these vectors, each alone on the ground level."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    links, size = 32, len(next(iter(vectors.values())))
    vector_at = (links + 1) * 4
    label_at = vector_at + size
    header = (1, 0, len(vectors), len(vectors), label_at + 8, label_at, vector_at)
    rest = (0, 0, links // 2, links, links // 2, 0.36, 100)
    (folder / "header.bin").write_bytes(struct.pack("<iQQQQQQiIQQQdQ", *header, *rest))
    with (folder / "data_level0.bin").open("wb") as file:
        for label, vector in enumerate(vectors.values(), 1):
            file.write(bytes(vector_at) + vector + struct.pack("<Q", label))
    (folder / "length.bin").write_bytes(bytes(4 * len(vectors)))
    (folder / "link_lists.bin").write_bytes(bytes(4 * len(vectors)))
    (folder / "index_metadata.pickle").write_bytes(as_chroma(maps_of(list(vectors))))


def before_all(store: Path, operation: int, name: str, vector: bytes | None) -> None:
    """Put an operation into the queue before all others."""
    execute(
        store,
        "INSERT INTO embeddings_queue (seq_id, operation, topic, id, vector, encoding, metadata)"
        " SELECT min(seq_id) - 1, ?, topic, ?, ?, 'FLOAT32', '{}' FROM embeddings_queue",
        operation,
        name,
        vector,
    )


def first_id(store: Path) -> str:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as connection:
        sql = "SELECT id FROM embeddings_queue ORDER BY seq_id LIMIT 1"
        return str(connection.execute(sql).fetchone()[0])


OTHER = struct.pack("<16f", *range(16))


def test_an_index_that_is_ahead_of_its_number_is_sound(ahead: Path) -> None:
    assert problems(ahead) == []


def test_an_update_that_would_now_find_its_id_is_found(ahead: Path) -> None:
    execute(ahead, "UPDATE embeddings_queue SET seq_id = seq_id + 1000")
    before_all(ahead, UPDATE, first_id(ahead), OTHER)
    assert any("applied twice" in text for text in problems(ahead))


@pytest.mark.parametrize("between", [DELETE, UPSERT])
def test_an_update_before_a_deletion_or_replacement_is_harmless(ahead: Path, between: int) -> None:
    execute(ahead, "UPDATE embeddings_queue SET seq_id = seq_id + 1000")
    name = first_id(ahead)
    before_all(ahead, between, name, OTHER if between == UPSERT else None)
    before_all(ahead, UPDATE, name, OTHER)
    assert problems(ahead) == []


def test_an_update_of_what_was_there_before_is_harmless(ahead: Path) -> None:
    """The addition was ignored then, and is now: the index has another vector than it gave."""
    execute(ahead, "UPDATE embeddings_queue SET seq_id = seq_id + 1000")
    name = first_id(ahead)
    before_all(ahead, UPDATE, name, OTHER)
    execute(ahead, "UPDATE embeddings_queue SET vector = ? WHERE operation = ?", OTHER, ADD)
    assert problems(ahead) == []


# --- size ----------------------------------------------------------------------------------------

MEASURE = """
import sys
from pathlib import Path
from holdfast.sources._chroma_check import check_indexes
store = Path(sys.argv[1])
found = check_indexes(store, store.parent / "scratch")
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(len(found), status["VmHWM"].split()[0])
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_vectors_take_little_memory(ahead: Path) -> None:
    segment = next(path.parent for path in ahead.glob("*/header.bin"))
    number = 1_000_000
    with closing(sqlite3.connect(ahead / "chroma.sqlite3")) as connection, connection:
        rows = "SELECT id FROM segments WHERE scope = 'METADATA'"
        (row_segment,) = connection.execute(rows).fetchone()
        connection.execute("DELETE FROM embeddings")
        connection.execute("DELETE FROM embeddings_queue")
        connection.executemany(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id) VALUES (?, ?, 1)",
            ((row_segment, f"document-{i:09}") for i in range(number)),
        )
    vector = struct.pack("<16f", *range(16))
    write_index(segment, {f"document-{i:09}": vector for i in range(number)})
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE, str(ahead)], capture_output=True, text=True, check=True
    )
    found, kilobytes = map(int, ended.stdout.split())
    assert found == 0
    assert kilobytes < 200 * 1024
