"""What is known of an earlier backup's files is what decoding their nodes would tell."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import Cancelled, WrongPassword
from holdfast.model import progress
from holdfast.model.artifact import CHUNK, Entry, EntryKind
from holdfast.model.progress import Telling
from holdfast.ports import Store
from holdfast.stores.local import LocalStore
from holdfast.vaults.repository import earlier, nodes, opened
from holdfast.vaults.repository.damage import DamagedError
from holdfast.vaults.repository.nodes import Node
from holdfast.vaults.repository.opening import open_repository
from holdfast.vaults.repository.options import RepositoryOptions
from holdfast.vaults.repository.repository import Repository
from holdfast.vaults.repository.vault import RepositoryVault
from tests.contract.test_repository_vault import make_vault
from tests.restic_world import PASSWORD
from tests.unit.test_repository_nodes import SECOND, any_node, ids, in_order

EARLY, LATE = 0, 1 << 61
ordinary = st.builds(
    lambda node, mtime: replace(node, mtime=mtime, atime=mtime),
    st.builds(
        Node,
        name=st.from_regex(r"[a-zA-Z0-9 ._-]{1,8}", fullmatch=True).filter(
            lambda name: name not in {".", ".."}
        ),
        type=st.just(nodes.FILE),
        mode=st.integers(0, 0o777),
        ctime=st.integers(EARLY, LATE),
        uid=st.integers(0, 99_999),
        gid=st.integers(0, 99_999),
        user=st.sampled_from(["", "root", "www-data"]),
        group=st.sampled_from(["", "root"]),
        inode=st.integers(1, 1 << 50),
        size=st.integers(0, 1 << 50),
        links=st.integers(0, 3),
        content=st.lists(ids, max_size=3),
    ),
    st.integers(EARLY, LATE),
)
folder = st.builds(
    lambda node, subtree: replace(
        node, type=nodes.FOLDER, subtree=subtree, size=0, content=(), target=""
    ),
    any_node,
    ids,
)


def of(node: Node) -> Entry:
    """Return the file that a node would be the node of."""
    return Entry(
        node.name,
        EntryKind.FILE,
        mtime_ns=node.mtime,
        size=node.size,
        inode=node.inode,
        ctime_ns=node.ctime,
        links=1,
    )


@given(st.lists(st.one_of(ordinary, any_node, folder), max_size=6))
def test_what_did_not_change_is_kept_as_it_would_be_written(found: list[Node]) -> None:
    found = in_order(found)
    known = earlier.Folder(nodes.joined(map(nodes.encode_node, found)))
    for node in found:
        kept = known.same(node.name, of(node))
        if node.type == nodes.FILE:
            assert kept == earlier.Kept(nodes.encode_node(node), list(node.content))
        else:
            assert kept is None
        assert known.subtree(node.name) == node.subtree
    assert known.same("no such name/", Entry("x", EntryKind.FILE)) is None


@given(ordinary)
def test_ordinary_files_are_not_decoded(node: Node) -> None:
    assert earlier._FILE.fullmatch(nodes.encode_node(node).decode())


@given(
    ordinary, st.sampled_from(["mtime_ns", "size", "inode", "ctime_ns"]), st.sampled_from([-1, 1])
)
def test_what_changed_is_read(node: Node, what: str, by: int) -> None:
    known = earlier.Folder(nodes.joined([nodes.encode_node(node)]))
    entry = of(node)
    assert known.same(node.name, replace(entry, **{what: getattr(entry, what) + by})) is None


def test_no_edit_makes_one_believe_what_decoding_would_not() -> None:
    common = partial(Node, type=nodes.FILE, mode=0o644, ctime=3 * SECOND, inode=12, links=1)
    found = [
        common("a.txt", mtime=SECOND // 2, atime=SECOND // 2, size=99, content=[b"1" * 32]),
        common("b", uid=7, gid=8, user="me", group="us", device_id=5),
    ]
    text = nodes.joined(map(nodes.encode_node, found)).decode()
    for at in range(len(text)):
        for put in ("", "0", "9", "a", '"', ",", "]", "}", "/", "\\", ".", "-", "\n", "<", "00"):
            document = (text[:at] + put + text[at + 1 :]).encode()
            try:
                known = earlier.Folder(document)
            except DamagedError:
                with pytest.raises(DamagedError):
                    list(nodes.decode_tree(document))
                continue
            for node in found:
                kept = known.same(node.name, of(node))
                if kept is not None:
                    [real] = nodes.decode_tree(nodes.joined([kept.encoded]))
                    assert real.name == node.name
                    assert of(real) == of(node)
                    assert kept == earlier.Kept(nodes.encode_node(real), list(real.content))


def test_files_of_very_many_blobs_are_decoded() -> None:
    node = Node("large", nodes.FILE, inode=1, content=[bytes([n % 256]) * 32 for n in range(3000)])
    known = earlier.Folder(nodes.joined([nodes.encode_node(node)]))
    assert known.same("large", of(node)) == earlier.Kept(nodes.encode_node(node), node.content)


def another(folder: Path, password: str) -> RepositoryVault:
    """Return the vault of another process."""
    options = RepositoryOptions(url=folder, password=password)
    return RepositoryVault("offsite", LocalStore(folder), options)


def test_a_wrong_password_is_told_to_whoever_wants_the_repository(tmp_path: Path) -> None:
    make_vault(tmp_path / "repository")
    wrong = another(tmp_path / "repository", "wrong")
    assert wrong.sweep() == []
    with pytest.raises(WrongPassword):
        list(wrong.manifests())


def test_sweeping_does_not_wait_for_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_vault(tmp_path / "repository")
    other = another(tmp_path / "repository", PASSWORD)
    swept = threading.Event()

    def slow(store: Store, where: str, password: str) -> Repository:
        assert swept.wait(10)
        return open_repository(store, where, password)

    monkeypatch.setattr(opened, "open_repository", slow)
    assert other.sweep() == []
    swept.set()
    assert list(other.manifests()) == []


def test_small_files_are_told_of_together() -> None:
    told: list[int] = []
    telling = Telling(told.append)
    for _file in range(1000):
        telling.add(1000)
    list(telling.chunks(iter([bytes(CHUNK), bytes(10)])))
    telling.tell()
    assert sum(told) == telling.size == 1000 * 1000 + CHUNK + 10
    assert len(told) < 30


def test_who_ends_a_backup_is_heard_soon() -> None:
    def end(_size: int) -> None:
        raise Cancelled

    telling = Telling(end)
    for _file in range(progress.MOST_UNTOLD - 1):
        telling.add(0)
    with pytest.raises(Cancelled):
        telling.add(0)
