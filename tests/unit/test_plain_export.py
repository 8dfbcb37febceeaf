"""Reading exports trusts nothing: no bytes make it fail in unforeseen ways or take much memory."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import BackupDamaged, HoldfastError
from holdfast.testing._entries import in_chunks
from holdfast.testing._trips import silent
from holdfast.testing.export_contract import exported
from holdfast.testing.memory import MemoryStore
from holdfast.vaults._plain_export import MOST_EXTENDED, Members, ending, header, padding
from tests.vault_world import LATER, LAYOUTS, keep, make_vault


def export(layout: str) -> bytes:
    vault = make_vault(MemoryStore(), layout)
    return exported(vault, keep(vault))


EXPORTS = {layout: export(layout) for layout in LAYOUTS}


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 10**6), st.binary(min_size=1, max_size=40))
def test_changed_exports_are_refused_or_mean_the_same(
    layout: str, position: int, data: bytes
) -> None:
    whole = EXPORTS[layout]
    position %= len(whole)
    changed = whole[:position] + data + whole[position + len(data) :]
    store = MemoryStore()
    vault = make_vault(store, layout)
    try:
        manifest = vault.take(in_chunks(changed))
    except HoldfastError:
        assert list(store.names()) == []
        return
    assert vault.verify(manifest, silent) == []
    assert exported(vault, manifest) == whole


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(0, 10**6))
def test_every_cut_is_refused(layout: str, size: int) -> None:
    whole = EXPORTS[layout].rstrip(b"\0")
    store = MemoryStore()
    with pytest.raises(HoldfastError):
        make_vault(store, layout).take(in_chunks(whole[: size % len(whole)]))
    assert list(store.names()) == []


@given(st.binary(max_size=2000))
def test_no_bytes_fail_in_an_unforeseen_way(data: bytes) -> None:
    with pytest.raises(HoldfastError):
        make_vault(MemoryStore(), "boxed").take(in_chunks(data))


@given(
    st.text(st.characters(codec=None, exclude_characters="\0"), min_size=1, max_size=300),
    st.sampled_from([0, 1, 511, 512, 513, 8**11 - 1, 8**11, 2**40]),
)
def test_headers_say_any_name_and_size(name: str, size: int) -> None:
    with suppress(UnicodeEncodeError):
        assert Members(iter((header(name, size),))).next() == (name, size)


def test_chunks_of_any_size_make_no_difference() -> None:
    whole = EXPORTS["boxed"]

    def one_by_one() -> Iterator[bytes]:
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    vault = make_vault(MemoryStore(), "boxed")
    assert vault.take(one_by_one()).id == LATER


def test_a_huge_extended_header_is_refused_before_it_is_read() -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, MOST_EXTENDED + 1
    with pytest.raises(BackupDamaged, match="extended header"):
        Members(iter((member.tobuf(),))).next()


def test_a_huge_document_is_refused_before_it_is_read() -> None:
    def endless() -> Iterator[bytes]:
        yield header(f"{LATER}/metadata.json", 2**40)
        while True:
            yield bytes(1 << 20)

    tracemalloc.start()
    try:
        with pytest.raises(BackupDamaged, match="document"):
            make_vault(MemoryStore(), "boxed").take(endless())
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"g", b"L"])
def test_anything_but_a_file_is_refused(kind: bytes) -> None:
    member = tarfile.TarInfo(f"{LATER}/metadata.json")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(BackupDamaged):
        make_vault(MemoryStore(), "boxed").take(iter((member.tobuf() + bytes(1024),)))


def test_the_file_is_a_tar_for_everybody() -> None:
    data = header("ünï/" + "long" * 60, 3) + b"abc" + padding(3)
    with tarfile.open(fileobj=io.BytesIO(data + ending(len(data)))) as tar:
        assert tar.getnames() == ["ünï/" + "long" * 60]
    assert len(data + ending(len(data))) % 10240 == 0


@pytest.mark.parametrize("name", ["../evil", "/evil", "evil", "manifests/../../evil", ".holdfast"])
def test_an_export_that_begins_elsewhere_is_refused(name: str) -> None:
    whole = EXPORTS["boxed"]
    members = Members(iter((whole,)))
    _name, size = members.next()
    metadata = members.document(size)
    moved = header(f"{name}/metadata.json", size) + metadata + padding(size)
    rest = whole[len(header(f"{LATER}/metadata.json", size)) + size + len(padding(size)) :]
    store = MemoryStore()
    with pytest.raises(HoldfastError):
        make_vault(store, "boxed").take(iter((moved + rest,)))
    assert list(store.names()) == []
