"""Documents of a repository with anything in any field: they are read, or refused as damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import RepositoryDamaged
from holdfast.testing.memory import MemoryStore
from holdfast.vaults.repository import (
    config,
    index,
    keys,
    locks,
    nodes,
    opening,
    snapshots,
    unpacked,
)
from holdfast.vaults.repository.blobs import blob_id
from holdfast.vaults.repository.crypto import random_key
from holdfast.vaults.repository.damage import DamagedError
from holdfast.vaults.repository.nodes import Node
from holdfast.vaults.repository.walk import walk
from holdfast.vaults.repository.write import Writer
from tests.restic_world import CHEAP, NOW

KEY = random_key()
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=70),
        st.sampled_from(["00" * 32, "", "2026-02-04T12:00:00Z", "dir", "symlink", "AAAA"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)

BLOB = {"id": "ab" * 32, "type": "data", "offset": 0, "length": 99, "uncompressed_length": 500}
NODE = {
    "name": "file", "type": "file", "mode": 420, "mtime": "2014-12-06T17:50:23Z",
    "atime": "2014-12-06T17:50:23Z", "ctime": "2014-12-06T17:50:23Z", "uid": 1, "gid": 1,
    "user": "me", "group": "us", "inode": 7, "device_id": 8, "size": 1, "links": 2,
    "linktarget": "x", "linktarget_raw": "AAAA", "content": ["00" * 32], "subtree": "00" * 32,
    "extended_attributes": [{"name": "user.a", "value": "AAAA"}],
}  # fmt: skip
SNAPSHOT = json.loads(
    snapshots.encode_snapshot(snapshots.new_snapshot(NOW, bytes(32), ["/"], ["a"], "t"))
)
LOCK = json.loads(locks.encode_lock(exclusive=True, now=NOW))
CONFIG = {"version": 2, "id": "ab" * 32, "chunker_polynomial": "25b468838dcb75"}


def read_index(document: bytes) -> None:
    found = index.Index()
    found.load(document)
    for _place in found.everything():
        pass


def read_tree(document: bytes) -> None:
    found = json.loads(document)
    text = json.dumps({"nodes": [found]}, separators=(",", ":"))
    assert len(list(nodes.decode_tree(text.encode()))) == 1


def read_lock(document: bytes) -> None:
    lock = locks.decode_lock(document, "name")
    assert str(lock)
    locks.is_stale(lock, NOW)


def read_config(document: bytes) -> None:
    config.decode_config(KEY, unpacked.encode(KEY, document, compressed=False)[1])


def read_key(document: bytes) -> None:
    name = unpacked.name_of(document)
    keys.describe(name, document)
    keys.open_key_file(name, document, "pw")


KEY_FILE: dict[str, Any] = {
    "created": "", "username": "me", "hostname": "here", "kdf": "scrypt", "N": 2, "r": 1, "p": 1,
    "salt": "A" * 86 + "==", "data": "AAAA",
}  # fmt: skip
READERS: list[tuple[dict[str, Any], Callable[[bytes], None]]] = [
    ({"packs": [{"id": "00" * 32, "blobs": [BLOB]}]}, read_index),
    (NODE, read_tree),
    (SNAPSHOT, lambda document: void(snapshots.decode_snapshot(document, "name"))),
    (LOCK, read_lock),
    (CONFIG, read_config),
    (KEY_FILE, read_key),
]


def void(_value: object) -> None:
    """Take a result, and do nothing with it."""


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container in a document, with each of its keys."""
    if isinstance(value, dict | list):
        keys_ = list(value) if isinstance(value, dict) else list(range(len(value)))
        return [(value, key) for key in keys_] + [p for key in keys_ for p in places(value[key])]
    return []


def spoil(document: Any, data: st.DataObject, changes: int) -> None:
    """Put anything into some fields, or leave them out."""
    for _change in range(changes):
        found = places(document)
        if not found:
            return
        where, key = found[data.draw(st.integers(0, len(found) - 1))]
        if data.draw(st.booleans()) or isinstance(where, list):
            where[key] = data.draw(values)
        else:
            del where[key]


@pytest.mark.parametrize("reader", range(len(READERS)))
@given(data=st.data())
def test_anything_in_any_field_is_read_or_refused(reader: int, data: st.DataObject) -> None:
    good, read = READERS[reader]
    document = json.loads(json.dumps(good))
    read(json.dumps(document).encode())
    spoil(document, data, data.draw(st.integers(1, 2)))
    with suppress(DamagedError):
        read(json.dumps(document).encode())


@given(data=st.data())
def test_any_tree_is_walked_or_refused(data: st.DataObject) -> None:
    """With whatever nodes: an entry has a safe path, and as much content as it says."""
    store = MemoryStore()
    with patch.object(keys, "OURS", CHEAP):
        repository = opening.init_repository(store, "memory", "pw", NOW)
    content = [blob_id(b"x").hex()]
    document = [NODE | {"content": content}, NODE | {"name": "g", "subtree": "11" * 32}]
    document = json.loads(json.dumps(document))
    spoil(document, data, data.draw(st.integers(0, 3)))
    tree = json.dumps({"nodes": document}, separators=(",", ":")).encode()
    with Writer(repository) as writer:
        writer.file(iter((b"x",)))
        writer.tree(tree)
        writer.finish()
    root = Node("root", nodes.FOLDER, subtree=blob_id(tree))
    with suppress(RepositoryDamaged):
        for found in walk(repository, root, lambda *_: None):
            assert ".." not in found.entry.path.split("/")
            assert found.entry.stored_size == sum(p[0].blob.size for p in found.content)
