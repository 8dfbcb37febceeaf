"""The reader of Chroma's pickles: exact, unharmed by hostile files, and small."""

from __future__ import annotations

import io
import os
import pickle
import struct
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.sources import _chroma_pickle
from holdfast.sources._chroma_pickle import OLD, PickleRefused, read_index_metadata

Maps = dict[str, Any]


def as_chroma(content: Maps, batch: int = 1000) -> bytes:
    """Write a pickle as Chroma 1.x does: protocol 3, no memo, dictionaries in batches."""
    out = io.BytesIO()

    def write(value: Any) -> None:
        if value is None:
            out.write(b"N")
        elif isinstance(value, int):
            out.write(b"J" + struct.pack("<i", value))
        elif isinstance(value, str):
            data = value.encode()
            out.write(b"X" + struct.pack("<I", len(data)) + data)
        else:
            out.write(b"}")
            items = list(value.items())
            size = len(items) if value is content else batch
            for start in range(0, len(items), size):
                out.write(b"(")
                for key, each in items[start : start + size]:
                    write(key)
                    write(each)
                out.write(b"u")

    out.write(b"\x80\x03")
    write(content)
    out.write(b".")
    return out.getvalue()


def as_old_chroma(content: Maps) -> bytes:
    """Write a pickle as Chroma 0.x did: an object of Python's, by Python."""
    module_name, class_name = OLD
    before = sys.modules.get(module_name)
    module = types.ModuleType(module_name)
    kind = type(class_name, (), {"__module__": module_name})
    setattr(module, class_name, kind)
    sys.modules[module_name] = module
    try:
        found = kind()
        vars(found).update(content)
        return pickle.dumps(found, pickle.HIGHEST_PROTOCOL)
    finally:
        del sys.modules[module_name]
        if before is not None:
            sys.modules[module_name] = before


def read(path: Path) -> Maps:
    content: Maps = {}
    for name, key, value in read_index_metadata(path):
        if name:
            content.setdefault(name, {})[key] = value
        else:
            content[str(key)] = value
    return content


def maps_of(ids: list[str]) -> Maps:
    labels = {name: number for number, name in enumerate(ids, 1)}
    return {
        "dimensionality": None,
        "total_elements_added": len(ids),
        "max_seq_id": None,
        "id_to_label": labels,
        "label_to_id": {number: name for name, number in labels.items()},
        "id_to_seq_id": {},
    }


def without_empty(content: Maps) -> Maps:
    return {name: value for name, value in content.items() if value != {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index_metadata.pickle"


@given(ids=st.lists(st.text(), unique=True, max_size=40), batch=st.integers(1, 50))
@pytest.mark.parametrize("block", [70, 1 << 20])
def test_every_map_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], batch: int, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / f"maps-{os.getpid()}.pickle"
    data = as_chroma(maps_of(ids), batch)
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_chroma_pickle, "BLOCK", block)  # so that values lie across blocks
        assert read(path) == without_empty(pickle.loads(data))  # noqa: S301 - written above


def test_the_pickle_of_an_old_chroma_is_read(path: Path) -> None:
    content = {**maps_of(["a", "b", "ㄱ"]), "id_to_seq_id": {"a": 7}}
    path.write_bytes(as_old_chroma(content))
    assert read(path) == content


def test_a_large_pickle_of_an_old_chroma_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_pickle, "LARGEST_OLD", 100)
    path.write_bytes(as_old_chroma(maps_of(["a" * 200])))
    with pytest.raises(PickleRefused, match=r"before 1\.0"):
        read(path)


class Hostile:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_something_is_refused(
    path: Path, tmp_path: Path, protocol: int
) -> None:
    witness = tmp_path / "witness"
    path.write_bytes(pickle.dumps({"id_to_label": Hostile(witness)}, protocol))
    with pytest.raises(PickleRefused):
        read(path)
    assert not witness.exists()


def test_a_pickle_that_was_cut_off_anywhere_is_refused(path: Path) -> None:
    data = as_chroma(maps_of(["first", "second", "third"]))
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(PickleRefused):
            read(path)


def test_a_claimed_length_is_not_believed(path: Path) -> None:
    path.write_bytes(b"\x80\x03}(X\xff\xff\xff\xffabc")
    with pytest.raises(PickleRefused, match="claimed"):
        read(path)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"bytes-{os.getpid()}.pickle"
    path.write_bytes(b"\x80\x03}(" + data)
    try:
        read(path)
    except PickleRefused:
        return
