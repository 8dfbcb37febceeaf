"""Nodes and trees: whatever an entry holds comes back, and nothing hostile gets through."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.artifact import CHUNK, Chunks, Entry, EntryKind
from holdfast.vaults.repository import gotext, holes, nodes, trees
from holdfast.vaults.repository.blobs import blob_id
from holdfast.vaults.repository.damage import DamagedError
from holdfast.vaults.repository.nodes import Node

SECOND = 1_000_000_000
names = (
    st.one_of(
        st.binary(min_size=1, max_size=40).map(os.fsdecode),
        st.text(min_size=1, max_size=20).filter(nodes.is_text),
        st.sampled_from(["\\", '"', "\\x41", "<&>", "\u2028", "\x7f", "\udcff", "é", "e\u0301"]),
    )
    .map(lambda name: name.replace("/", "_").replace("\0", "_"))
    .filter(lambda name: name not in {".", ".."})
)
numbers = st.integers(0, 2**64 - 1)
ids = st.binary(min_size=32, max_size=32)
attributes = st.dictionaries(
    st.text(min_size=1, max_size=10).filter(nodes.is_text), st.binary(max_size=50), max_size=3
).map(lambda found: tuple(sorted(found.items())))
times = st.integers(gotext.EARLIEST, gotext.LATEST)


def fitting(node: Node) -> Node:
    """Leave to a node what its type has."""
    if node.type != nodes.FILE:
        node = replace(node, size=0, content=())
    return node if node.type == nodes.SYMLINK else replace(node, target="")


any_node = st.builds(
    Node,
    name=names,
    type=st.sampled_from([nodes.FILE, nodes.SYMLINK, nodes.FIFO]),
    mode=st.integers(0, 0o7777),
    mtime=times,
    atime=times,
    ctime=times,
    uid=st.integers(0, 2**32 - 1),
    gid=st.integers(0, 2**32 - 1),
    user=st.text(max_size=10).filter(nodes.is_text),
    group=st.text(max_size=10).filter(nodes.is_text),
    inode=numbers,
    device_id=numbers,
    size=numbers,
    links=numbers,
    target=names,
    xattrs=attributes,
    content=st.lists(ids, max_size=3),
).map(fitting)


def in_order(found: list[Node]) -> list[Node]:
    by_name = {os.fsencode(node.name): node for node in found}
    return [node for _name, node in sorted(by_name.items())]


@given(st.lists(any_node, max_size=5))
def test_any_node_comes_back(found: list[Node]) -> None:
    found = in_order(found)
    document = nodes.joined(map(nodes.encode_node, found))
    assert list(nodes.decode_tree(document)) == found
    assert json.loads(document)["nodes"] or not found


@given(names)
def test_any_name_comes_back(name: str) -> None:
    text = gotext.quoted(name)
    assert text.isprintable()
    assert gotext.unquoted(text) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("a b", "a b"),
        ('"\\', '\\"\\\\'),
        ("\a\b\f\n\r\t\v", r"\a\b\f\n\r\t\v"),
        ("\x01\x7f", r"\x01\x7f"),
        ("\udcff\udc80", r"\xff\x80"),
        ("\u00a0\u2028\u0085", r"\u00a0\u2028\u0085"),
        ("ä€😀", "ä€😀"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_names_are_quoted_as_go_does(name: str, quoted: str) -> None:
    assert gotext.quoted(name) == quoted


def test_names_are_unquoted_as_go_does() -> None:
    assert gotext.unquoted(r"\303\244\xc3\xa4\u00e4\U000000e4") == "ää" * 2
    for wrong in ["\\", "\\q", "\\x4", "\\u12", "\\8", "\\ud800", "\\'", "\\U00110000", "\\400"]:
        with pytest.raises(DamagedError):
            gotext.unquoted("a" + wrong)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2014-12-06T17:50:23.34513538+01:00", 1417884623_345135380),
        ("2014-12-06T17:50:23-11:30", (1417884623 + 12 * 3600 + 1800) * SECOND),
        ("0001-01-01T00:00:00Z", gotext.EARLIEST),
        ("9999-12-31T23:59:59.999999999Z", gotext.LATEST),
        ("0000-03-01T00:00:00Z", gotext.EARLIEST - 306 * 86400 * SECOND),
        ("2000-02-29T00:00:00Z", 951782400 * SECOND),
    ],
)
def test_times_are_those_of_rfc_3339(text: str, nanoseconds: int) -> None:
    assert gotext.time_of(text) == nanoseconds
    if text.endswith("Z") and nanoseconds >= gotext.EARLIEST:
        assert gotext.time_text(nanoseconds) == text


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "now", "2014-12-06", "2014-12-06T17:50:23", "2014-13-06T17:50:23Z",
     "2014-02-29T00:00:00Z", "2014-12-06T17:50:23.1234567890Z", "2014-12-06T17:50:23Z\n",
     "٢014-12-06T17:50:23Z"],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(DamagedError):
        gotext.time_of(text)


def test_times_out_of_reach_become_the_nearest() -> None:
    assert gotext.time_text(gotext.LATEST + 1) == "9999-12-31T23:59:59.999999999Z"
    assert gotext.time_text(-(10**30)) == "0001-01-01T00:00:00Z"


GOOD = {
    "name": "file", "type": "file", "mode": 420, "mtime": "2014-12-06T17:50:23Z",
    "atime": "2014-12-06T17:50:23Z", "ctime": "2014-12-06T17:50:23Z", "uid": 1, "gid": 1,
    "size": 1, "links": 1, "content": ["00" * 32],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""}, {"name": "."}, {"name": ".."}, {"name": "a/b"}, {"name": "/"},
        {"name": "\\x2e\\x2e"}, {"name": "a\\x2fb"}, {"name": "a\\x00"}, {"name": 7},
        {"name": "\ud800"}, {"type": "door"}, {"type": None}, {"mode": -1}, {"mode": 1 << 32},
        {"mode": "7"}, {"size": -1}, {"size": 1.5}, {"size": 1 << 64}, {"uid": 1 << 32},
        {"mtime": "x"}, {"content": "ab"}, {"content": ["00"]}, {"content": [7]},
        {"content": {"a": 1}}, {"content": ["zz" * 32]}, {"extended_attributes": "x"},
        {"extended_attributes": [1]}, {"extended_attributes": [{"name": "a", "value": "?"}]},
        {"type": "dir"}, {"type": "dir", "subtree": "00"}, {"type": "symlink"},
        {"type": "symlink", "linktarget": "a\0b"}, {"type": "symlink", "linktarget_raw": "?"},
    ],
)  # fmt: skip
def test_hostile_nodes_are_refused(change: dict[str, object]) -> None:
    document = json.dumps({"nodes": [GOOD | change]}, separators=(",", ":")).encode()
    assert list(nodes.decode_tree(json.dumps({"nodes": [GOOD]}, separators=(",", ":")).encode()))
    with pytest.raises(DamagedError):
        list(nodes.decode_tree(document))


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{}", b'{"nodes":null}', b'{"nodes":[', b'{"nodes":[{}]}', b'{"nodes":[1]}',
        b"\xff", b'{"nodes":[' + b"[" * 100_000, b'{"nodes":[{"name":' + b"[" * 100_000,
        b'{"nodes":[{"name":1e999999999}]}', b'{"nodes":[' + b"9" * 5000 + b"]}",
    ],
)  # fmt: skip
def test_what_is_no_tree_is_refused(document: bytes) -> None:
    with pytest.raises(DamagedError):
        list(nodes.decode_tree(document))


def test_names_must_be_in_order_and_once() -> None:
    for pair in (("b", "a"), ("a", "a"), ("ä", "z")):
        both = [GOOD | {"name": name} for name in pair]
        with pytest.raises(DamagedError, match="in order"):
            list(nodes.decode_tree(json.dumps({"nodes": both}, separators=(",", ":")).encode()))


# --- writing trees -------------------------------------------------------------------------------


class Held:
    """Keeps what is written; cuts data so that the tests see several blobs."""

    def __init__(self, cut: int = 1 << 30) -> None:
        self.blobs: dict[bytes, bytes] = {}
        self._cut = cut

    def file(self, chunks: Chunks) -> tuple[list[bytes], int]:
        data = b"".join(map(bytes, chunks))
        pieces = [data[at : at + self._cut] for at in range(0, len(data), self._cut)]
        return [self.tree(piece) for piece in pieces], len(data)

    def tree(self, document: bytes) -> bytes:
        id_ = blob_id(document)
        self.blobs[id_] = document
        return id_


def written(entries: list[tuple[Entry, bytes]], held: Held | None = None) -> tuple[Held, Node]:
    held = held or Held()
    writer = trees.TreeWriter(held, origin=1, known=lambda _entry: None, note=lambda *_: None)
    for entry, content in entries:
        writer.add(entry, iter([content] if content else []))
    return held, writer.finish("root")


def listing(held: Held, node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, node
    if node.subtree:
        for below in nodes.decode_tree(held.blobs[node.subtree]):
            yield from listing(held, below, f"{path}/{below.name}")


def folder(path: str) -> tuple[Entry, bytes]:
    return Entry(path, EntryKind.FOLDER, mode=0o755), b""


def file(path: str, content: bytes = b"", **more: object) -> tuple[Entry, bytes]:
    entry = Entry(path, EntryKind.FILE, size=len(content), links=1)
    return replace(entry, **more), content  # type: ignore[arg-type]


def test_trees_are_written_from_the_bottom_up_and_sorted_by_bytes() -> None:
    high, low = "\U00010000", "\udcff"  # code points and bytes sort these differently
    held, root = written(
        [folder("."), file("b"), folder("a"), file("a/x"), folder("a/y"), file(low), file(high)]
    )
    assert [path for path, _node in listing(held, root)] == [
        "", "/a", "/a/x", "/a/y", "/b", "/" + high, "/" + low,
    ]  # fmt: skip
    assert root.name == "root"


def test_equal_folders_are_one_blob() -> None:
    held, _root = written([folder("."), folder("a"), file("a/x"), folder("b"), file("b/x")])
    assert len(held.blobs) == 2


def test_hard_links_are_names_of_one_inode() -> None:
    first = file("a", b"12", links=2, inode=7, device=3)
    link = Entry("d/b", EntryKind.HARDLINK, target="a"), b""
    held, root = written([folder("."), first, folder("d"), link])
    found = dict(listing(held, root))
    assert replace(found["/d/b"], name="a") == found["/a"]
    assert found["/a"].links == 2
    assert found["/a"].device_id == 1 << 32 | 3


def test_files_of_unknown_inodes_are_not_mistaken_for_each_other() -> None:
    held, root = written([folder("."), file("a", b"1", links=0), file("b", b"2", links=0)])
    found = dict(listing(held, root))
    assert found["/a"].inode != found["/b"].inode
    assert found["/a"].links == 2, "restic would not look for its other names"


def test_a_tree_may_be_a_single_file() -> None:
    _held, root = written([file(".", b"content")])
    assert (root.name, root.type, root.size) == ("root", nodes.FILE, 7)


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [file("a")],
        [folder("."), file("a/b")],
        [folder("."), folder("a"), folder("b"), file("a/x")],
        [folder("."), file("a"), file("a")],
        [folder("."), folder(".")],
        [folder("."), (Entry("a", EntryKind.FILE, size=3), b"12")],
        [folder("."), (Entry("a", EntryKind.FILE, size=1), b"12")],
        [folder("."), (Entry("a", EntryKind.HARDLINK, target="b"), b"")],
        [folder("."), (Entry("a", EntryKind.FILE, size=9, extents=((2, 3),)), b"12")],
        [folder("."), (Entry("a", EntryKind.FILE, size=9, extents=((2, 3),)), b"1234")],
        [file("."), file("a")],
    ],
)
def test_what_no_source_may_give_is_a_bug(entries: list[tuple[Entry, bytes]]) -> None:
    with pytest.raises(ValueError, match=r"root|come|entries|announced|link"):
        written(entries)


# --- holes ---------------------------------------------------------------------------------------

layouts = st.lists(
    st.tuples(st.integers(2, 40_000_000), st.integers(1, 3_000)), min_size=0, max_size=4
)


@given(layouts, st.integers(0, 1), st.sampled_from([0, 2, 700_000, 9_000_000]), st.integers(1, 999))
def test_holes_come_back_as_they_were(
    layout: list[tuple[int, int]], dense: int, last: int, cut: int
) -> None:
    extents, position = [], 0
    for number, (gap, length) in enumerate(layout):
        position += gap if number or not dense else 0
        extents.append((position, length))
        position += length
    entry = Entry("a", EntryKind.FILE, size=position + last, extents=tuple(extents))
    held = Held(cut=CHUNK + cut)
    data = b"\1" * entry.stored_size
    ids_, size = holes.HoleWriter(held.file).file(entry, iter([data] if data else []))
    assert size == entry.size
    sizes = [(id_, len(held.blobs[id_])) for id_ in ids_]
    assert sum(length for _id, length in sizes) == entry.size
    expected = tuple(extents) if entry.size > entry.stored_size else None
    assert holes.extents_of(sizes) == expected


@pytest.mark.parametrize("content", [b"", b"\0", b"\0" * 600_000, b"\0" * CHUNK + b"\0", b"x\0"])
def test_zeros_that_were_written_are_no_hole(content: bytes) -> None:
    held = Held(cut=CHUNK)
    ids_, _size = held.file(iter([content]))
    assert holes.extents_of([(id_, len(held.blobs[id_])) for id_ in ids_]) is None


def test_a_large_hole_costs_little() -> None:
    held = Held()
    entry = Entry("a", EntryKind.FILE, size=1 << 40, extents=())
    ids_, size = holes.HoleWriter(held.file).file(entry, iter(()))
    assert size == sum(len(held.blobs[id_]) for id_ in ids_) == 1 << 40
    assert len(ids_) < 132_000
    assert len(held.blobs) == 4
