"""The store on a real SFTP server, and on bad days."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    BackupExists,
    ConnectionLost,
    HoldfastError,
    HostUntrusted,
    NoSpace,
    ServerUnreachable,
    VaultUnavailable,
)
from holdfast.stores import _sftp_files, sftp
from holdfast.stores.sftp import SftpStore
from holdfast.testing._trips import drain
from servers.proxy import Proxy, Trouble
from servers.ssh import make_key, ssh_server
from tests.stores_world import sftp_store, shared_ssh

MIB = 1 << 20


class BrokenError(Exception):
    """What a source raises that breaks off."""


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(shared_ssh().port) as proxy:
        shared_ssh().know(proxy.port)
        yield proxy


def through(proxy: Proxy, **changes: Any) -> SftpStore:
    return sftp_store(shared_ssh(), port=proxy.port, **changes)


def value(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def in_pieces(data: bytes) -> Iterator[bytes]:
    return (data[start : start + MIB] for start in range(0, len(data), MIB))


def content(store: SftpStore, name: str) -> bytes:
    with store.get(name) as chunks:
        return drain(chunks)


def folder_of(store: SftpStore) -> Path:
    return Path(os.fsdecode(store._root))


def everything(store: SftpStore) -> list[str]:
    """Return the files below the folder of a store, those too that it does not show."""
    folder = folder_of(store)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


# --- what lies there ---


def test_large_values_come_back_and_are_private() -> None:
    store, data = sftp_store(), value(1, 9 * MIB + 7)
    assert store.put("data/0a/large", in_pieces(data)) == len(data)
    assert content(store, "data/0a/large") == data
    file = folder_of(store) / "data" / "0a" / "large"
    assert file.read_bytes() == data
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_many_threads_share_one_connection(proxy: Proxy) -> None:
    store = through(proxy)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: store.put(f"d/{n}", iter((value(n, 50_000),))), range(24)))
        read = list(threads.map(lambda n: store.part(f"d/{n}", 100, 1000), range(24)))
    assert read == [value(n, 50_000)[100:1100] for n in range(24)]
    assert proxy.accepted == 1


@pytest.mark.parametrize("name", ["hardlink", "none"])
def test_a_taken_name_stays_as_it_is_whatever_the_server_can(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncssh

    async def unsupported(*_: object) -> None:
        raise asyncssh.SFTPOpUnsupported("no hardlink")

    if name == "none":
        monkeypatch.setattr(asyncssh.SFTPClient, "link", unsupported)
    store = sftp_store()

    def overtaken() -> Iterator[bytes]:
        yield b"second"
        store.put("value", iter((b"first",)))

    with pytest.raises(BackupExists):
        store.put("value", overtaken())
    assert store.read("value") == b"first"
    assert everything(store) == ["value"]


def test_a_pipe_or_a_link_is_no_value(tmp_path: Path) -> None:
    store = sftp_store(folder=tmp_path)
    (tmp_path / "secret").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "link"):
        with pytest.raises(FileNotFoundError):
            store.read(name)
        with pytest.raises(FileNotFoundError):
            store.part(name, 0, 1)


def test_a_value_that_is_cut_while_it_is_read_is_no_value(tmp_path: Path) -> None:
    store = sftp_store(folder=tmp_path)
    store.put("value", in_pieces(bytes(9 * MIB)))
    with pytest.raises(VaultUnavailable), store.get("value") as chunks:  # noqa: PT012 - two steps
        next(chunks)
        os.truncate(tmp_path / "value", 6 * MIB)
        drain(chunks)


def test_only_old_leftovers_are_swept_by_the_clock_of_the_server() -> None:
    store = sftp_store()
    store.put("value", iter((b"1",)))
    young, old = (folder_of(store) / f".incoming-{name}" for name in ("young", "old"))
    for file in (young, old):
        file.write_text("half")
    os.utime(old, (0, young.stat().st_mtime - sftp.LEFT - 60))
    assert store.sweep() == ["half-written file .incoming-old"]
    assert everything(store) == [".incoming-young", "value"]
    assert list(store.names()) == ["value"]


def test_a_store_that_is_no_longer_used_ends_its_thread_and_connection() -> None:
    before = set(threading.enumerate())
    store = sftp_store(shared_ssh())
    assert list(store.names()) == []
    assert set(threading.enumerate()) - before
    del store
    gc.collect()
    assert set(threading.enumerate()) <= before


# --- who is who ---


def test_a_host_that_nobody_knows_is_not_spoken_to(tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    for known in (empty, tmp_path / "missing"):
        empty.touch()
        store = sftp_store(shared_ssh(), known_hosts=(known,))
        with pytest.raises(HostUntrusted, match=r"known_hosts|missing"):
            store.read("value")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_a_host_whose_key_has_changed_is_not_spoken_to(tmp_path: Path, kind: str) -> None:
    make_key(tmp_path / "other", kind)
    key = (tmp_path / "other.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{shared_ssh().port} {' '.join(key)}\n")
    store = sftp_store(shared_ssh(), known_hosts=(known,))
    with pytest.raises(HostUntrusted):
        store.put("value", iter((b"1",)))
    assert not folder_of(store).exists()


def test_wrong_keys_are_refused_without_secrets(tmp_path: Path) -> None:
    make_key(tmp_path / "wrong", "ed25519")
    make_key(tmp_path / "closed", "ed25519", password="open-sesame")
    for changes in (
        {"keys": (tmp_path / "wrong",)},
        {"keys": (tmp_path / "missing",)},
        {"keys": (tmp_path / "closed",)},
        {"keys": (tmp_path / "closed",), "passphrase": "wrong-sesame"},
        {"keys": (tmp_path / "wrong",), "password": "a-password"},
    ):
        store = sftp_store(shared_ssh(), **changes)
        with pytest.raises(AccessRefused) as caught:
            store.read("value")
        said = f"{caught.value!s} {caught.value.__cause__} {store._session.login!r}"
        assert "sesame" not in said
        assert "a-password" not in said


def test_a_key_with_a_password_opens(tmp_path: Path) -> None:
    with ssh_server(password="open-sesame") as server:
        store = sftp_store(server, passphrase="open-sesame")
        store.put("value", iter((b"1",)))
        assert store.read("value") == b"1"


def test_the_agent_is_asked_where_no_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # no keys of whoever runs the tests
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE
    )
    try:
        assert agent.stdout is not None
        agent.stdout.readline()  # it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        store = sftp_store(shared_ssh(), keys=())
        with pytest.raises(AccessRefused):
            list(store.names())
        subprocess.run(["ssh-add", "-q", str(shared_ssh().key)], check=True)
        assert list(store.names()) == []
    finally:
        agent.terminate()
        agent.communicate()


# --- bad days ---


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    store = sftp_store(shared_ssh(), port=1)
    with pytest.raises(ServerUnreachable):
        store.put("value", iter((b"1",)))


def test_a_connection_that_ended_meanwhile_is_made_anew(proxy: Proxy) -> None:
    store = through(proxy)
    store.put("value", iter((b"1",)))
    for work in (
        lambda: store.read("value"),
        lambda: store.part("value", 0, 1),
        lambda: list(store.names()),
        lambda: store.put("other", iter((b"2",))),
        lambda: store.replace("other", b"3"),
        lambda: store.delete("other"),
    ):
        proxy.cut_now()
        work()
    assert list(store.names()) == ["value"]


def test_a_connection_cut_while_writing_leaves_nothing(proxy: Proxy) -> None:
    store = through(proxy)

    def cut_off() -> Iterator[bytes]:
        yield from in_pieces(bytes(3 * MIB))
        proxy.cut_now()
        yield from in_pieces(bytes(8 * MIB))

    with pytest.raises(ConnectionLost):
        store.put("value", cut_off())
    assert everything(store) == []
    store.put("value", iter((b"whole",)))
    assert store.read("value") == b"whole"


def test_a_connection_cut_for_good_while_writing_leaves_what_is_swept(proxy: Proxy) -> None:
    store = through(proxy)

    def cut_off() -> Iterator[bytes]:
        yield from in_pieces(bytes(3 * MIB))
        proxy.always(Trouble(refuse=True))
        proxy.cut_now()
        yield from in_pieces(bytes(8 * MIB))

    with pytest.raises(ConnectionLost) as caught:
        store.put("value", cut_off())
    assert "left to be swept" in caught.value.__notes__[0]
    proxy.always(None)
    assert list(store.names()) == []
    assert len(everything(store)) == 1


def test_a_connection_cut_while_reading_is_an_error(proxy: Proxy) -> None:
    store, data = through(proxy), value(2, 12 * MIB)
    store.put("value", in_pieces(data))
    with pytest.raises(ConnectionLost), store.get("value") as chunks:  # noqa: PT012 - two steps
        next(chunks)
        proxy.cut_now()
        drain(chunks)
    assert content(store, "value") == data


def test_a_silent_server_is_given_up(proxy: Proxy) -> None:
    store = through(proxy, connect=1.0, answer=0.5)
    store.put("value", iter((b"1",)))
    proxy.cut_now()
    proxy.always(Trouble(delay=2.0))
    with pytest.raises((ConnectionLost, ServerUnreachable)):
        store.read("value")


def test_a_server_killed_in_the_middle_of_a_put() -> None:
    with ssh_server() as server:
        store = sftp_store(server)

        def killing() -> Iterator[bytes]:
            yield from in_pieces(bytes(3 * MIB))
            server.kill()
            yield from in_pieces(bytes(8 * MIB))

        with pytest.raises(ConnectionLost):
            store.put("value", killing())
        assert not (folder_of(store) / "value").exists()
        with pytest.raises(ServerUnreachable):
            list(store.names())


def test_a_source_that_breaks_off_leaves_nothing() -> None:
    store = sftp_store()

    def breaking() -> Iterator[bytes]:
        yield from in_pieces(bytes(9 * MIB))
        raise BrokenError

    with pytest.raises(BrokenError):
        store.put("value", breaking())
    assert everything(store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small file system")
def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    try:
        store = sftp_store(folder=tmp_path / "vault")
        store.put("small", iter((b"1",)))
        free = store.free()
        assert free is not None
        assert 3 * MIB < free < 4 * MIB
        with pytest.raises(NoSpace):
            store.put("large", in_pieces(bytes(9 * MIB)))
        assert everything(store) == ["small"]
        assert store.read("small") == b"1"
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)  # a file may be closing


def test_a_folder_that_may_not_be_written_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh

    async def refused(*_: object) -> None:
        raise asyncssh.SFTPPermissionDenied("Permission denied")

    monkeypatch.setattr(_sftp_files, "create_aside", refused)
    with pytest.raises(AccessRefused, match="Permission denied"):
        sftp_store().put("value", iter((b"1",)))


def test_a_server_that_tells_nonsense_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncssh

    async def lying(*_: object) -> list[Any]:
        return [asyncssh.SFTPName(b"../../etc/passwd", attrs=asyncssh.SFTPAttrs())]

    monkeypatch.setattr(asyncssh.SFTPClient, "readdir", lying)
    with pytest.raises(HoldfastError, match="no name"):
        list(sftp_store().names())
