"""Chroma servers that die, refuse, fail, stall or lie, and connections that break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    NoScratch,
    NoSpace,
    ServerFailed,
    ServerUnreachable,
    SourceMissing,
    SourceUnfit,
    TargetUnfit,
)
from holdfast.sources import _chroma_server, _chroma_server_fill
from holdfast.sources._chroma_server_api import Api
from servers.chroma import ChromaServer, Database, chroma_server
from servers.proxy import Proxy, Trouble
from tests.chroma_server_world import as_stream, export, new_name, rows, source_of

COUNT = 600
TOKEN = "a-token-that-nobody-may-see"


@pytest.fixture(scope="module")
def server(chroma: ChromaServer) -> ChromaServer:
    return chroma


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_chroma_server, "PAUSE", 0.02)


@pytest.fixture(scope="module")
def mortal() -> Iterator[ChromaServer]:
    """A server that tests may kill, if they start it again."""
    with chroma_server() as server:
        yield server


@pytest.fixture(scope="module")
def filled(server: ChromaServer) -> Database:
    """A database that is only read."""
    place = server.create_database(new_name())
    for name in ("alpha", "beta"):
        place.create(name).call("add", **rows([f"id {number}" for number in range(COUNT)]))
    return place


@pytest.fixture
def proxy(server: ChromaServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def url_of(proxy: Proxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def whole(done: Any) -> bool:
    return {name: len(found) for name, found in done.records.items()} == {
        "alpha": COUNT,
        "beta": COUNT,
    }


# --- reading ---


@pytest.mark.parametrize("size", [0, 100, 20_000, 40_000])
def test_an_answer_that_breaks_off_is_asked_for_again(
    filled: Database, proxy: Proxy, tmp_path: Path, size: int
) -> None:
    proxy.cut_after(size, times=2)
    assert whole(export(source_of(filled, url_of(proxy)), tmp_path / "work"))
    assert proxy.accepted > 2


def test_answers_that_always_break_off_are_given_up(
    filled: Database, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.always(Trouble(down=3000))
    with pytest.raises(ConnectionLost) as caught:
        export(source_of(filled, url_of(proxy)), tmp_path / "work")
    assert url_of(proxy) in str(caught.value)


def test_passing_failures_are_outlasted(filled: Database, proxy: Proxy, tmp_path: Path) -> None:
    proxy.fail(503, times=1)
    proxy.fail(500, times=1)
    assert whole(export(source_of(filled, url_of(proxy)), tmp_path / "work"))


def test_a_server_that_always_fails_is_quoted(
    filled: Database, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.always(Trouble(answer=_answer(500, b'{"error":"InternalError","message":"no disk"}')))
    with pytest.raises(ServerFailed, match="no disk"):
        export(source_of(filled, url_of(proxy), tries=2), tmp_path / "work")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_token_is_refused_and_never_shown(
    filled: Database, proxy: Proxy, tmp_path: Path, status: int
) -> None:
    said = f"Bearer {TOKEN} is not known".encode()
    proxy.always(Trouble(answer=_answer(status, said)))
    source = source_of(filled, url_of(proxy), token=TOKEN)
    with pytest.raises(AccessRefused) as caught:
        export(source, tmp_path / "work")
    probe = source.probe()
    assert not probe.reachable
    shown = f"{caught.value} {caught.value.hint} {probe} {source.options!r} {source.where}"
    assert TOKEN not in shown
    assert TOKEN not in str(source.staging("tag1", tmp_path).token)


def test_slow_answers_are_waited_for_and_silence_is_not(
    filled: Database, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.always(Trouble(delay=0.02))
    slow = source_of(filled, url_of(proxy), answer_timeout=5)
    assert whole(export(slow, tmp_path / "work"))
    proxy.always(Trouble(delay=3))
    before = time.monotonic()
    with pytest.raises(ConnectionLost, match="silent"):
        export(source_of(filled, url_of(proxy), answer_timeout=0.2, tries=2), tmp_path / "again")
    assert time.monotonic() - before < 3


def test_a_host_that_is_gone_is_unreachable(filled: Database, tmp_path: Path) -> None:
    with Proxy(1) as proxy:
        url = url_of(proxy)
    source = source_of(filled, url, tries=1)
    with pytest.raises(ServerUnreachable):
        export(source, tmp_path / "work")
    with pytest.raises(ServerUnreachable):
        source.facts()
    assert not source.probe().reachable
    assert "reached" in source.probe().problems[0]


def test_a_server_without_tls_is_no_https_server(filled: Database, tmp_path: Path) -> None:
    source = source_of(filled, f"https://127.0.0.1:{filled.server.port}", tries=1)
    with pytest.raises(ServerUnreachable):
        export(source, tmp_path / "work")


def test_another_kind_of_server_is_found_out(
    filled: Database, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.always(Trouble(answer=_answer(200, b"<html>It works!</html>")))
    with pytest.raises(SourceUnfit, match="Chroma"):
        export(source_of(filled, url_of(proxy)), tmp_path / "work")
    proxy.always(Trouble(answer=_answer(404, b"nothing here")))
    assert not source_of(filled, url_of(proxy)).probe().reachable


@pytest.mark.parametrize(
    "options",
    [{"tenants": ("acme",)}, {"databases": ("nowhere",)}, {"collections": ("alpha", "omega")}],
)
def test_what_was_named_must_be_there(
    filled: Database, tmp_path: Path, options: dict[str, Any]
) -> None:
    source = source_of(filled, **options)
    with pytest.raises(SourceMissing):
        export(source, tmp_path / "work")
    assert not source.probe().reachable


def test_only_what_was_named_is_copied(filled: Database, tmp_path: Path) -> None:
    done = export(source_of(filled, collections=("beta",)), tmp_path / "work")
    assert set(done.records) == {"beta"}
    assert done.facts.counts == {"vectors/beta": COUNT, "collections": 1}


def test_a_server_killed_in_the_middle_of_an_export(
    mortal: ChromaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = mortal.create_database(new_name())
    place.create("prose").call("add", **rows([f"id {number}" for number in range(COUNT)]))
    real, calls = Api.records, []

    def records(self: Api, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            mortal.kill()
        return real(self, *arguments, **options)

    monkeypatch.setattr(Api, "records", records)
    with pytest.raises((ServerUnreachable, ConnectionLost)):
        export(source_of(place, tries=2), tmp_path / "work")
    assert mortal.start()
    assert len(export(source_of(place), tmp_path / "again").records["prose"]) == COUNT


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"documents": None}, "no records"),
        ({"documents": []}, "gaps"),
        ({"ids": ["x"] * 60}, "not asked for"),
        ({"embeddings": [None] * 60}, "does not give"),
        ({"embeddings": [[0.5] * 8] * 59 + [[0.5]]}, "vector"),
        ({"embeddings": [[None] * 8] * 60}, "finite"),
    ],
)
def test_a_server_that_lies_is_not_believed(
    filled: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: dict[str, Any],
    reason: str,
) -> None:
    real = Api._json

    def lying(self: Api, said: bytes) -> Any:
        return real(self, said) | lie if said.startswith(b'{"ids"') else real(self, said)

    monkeypatch.setattr(Api, "_json", lying)
    with pytest.raises(ServerFailed, match=reason):
        export(source_of(filled, page_size=60), tmp_path / "work")


def test_ids_that_are_listed_without_records_are_not_waited_for_for_ever(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Api._json

    def forget(self: Api, said: bytes) -> Any:
        answer = real(self, said)
        if isinstance(answer, dict) and "id 7" in answer.get("ids", ()):
            place = answer["ids"].index("id 7")
            for name in ("ids", "embeddings", "documents", "metadatas", "uris"):
                del answer[name][place]
        return answer

    monkeypatch.setattr(Api, "_json", forget)
    with pytest.raises(ServerFailed, match="does not give"):
        export(source_of(filled), tmp_path / "work")


def test_a_full_disk_is_named(filled: Database, tmp_path: Path) -> None:
    workspace = tmp_path / "work"
    workspace.mkdir()
    (workspace / "export.jsonl").symlink_to("/dev/full")
    with pytest.raises(NoSpace), source_of(filled).freeze(workspace):
        pass


# --- writing ---


def text_of(filled: Database, folder: Path) -> bytes:
    return export(source_of(filled), folder).text


@pytest.mark.parametrize("trouble", ["answer", "request", "refused"])
def test_writing_goes_on_after_a_connection_broke(
    filled: Database, proxy: Proxy, tmp_path: Path, trouble: str
) -> None:
    text = text_of(filled, tmp_path / "work")
    target = filled.server.database(new_name())
    source = source_of(target, url_of(proxy))
    if trouble == "answer":
        proxy.cut_after(3000, times=2)
    elif trouble == "request":
        proxy.cut_upload_after(40_000, times=2)
    else:
        proxy.refuse(times=2)
    staged = source.staging("tag1", tmp_path / "staging")
    staged.fill([as_stream(text)])
    staged.activate()
    assert proxy.accepted > 2
    for name in ("alpha", "beta"):
        assert target.collection(name).records() == filled.collection(name).records()


@pytest.mark.parametrize("times", [1, 99], ids=["for-a-moment", "for-ever"])
@pytest.mark.parametrize(
    "lie",
    [{"embeddings": [None]}, {"documents": ["another"]}, {"embeddings": [[0.25] * 8]}, 7],
    ids=["no-vector", "another-text", "another-vector", "another-count"],
)
def test_what_was_written_is_looked_at_again_before_it_is_doubted(
    filled: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lie: Any,
    times: int,
) -> None:
    text = text_of(filled, tmp_path / "work")
    real, lies = Api._json, iter([lie] * times)
    monkeypatch.setattr(_chroma_server_fill, "PAUSES", (0.01, 0.01))

    def lying(self: Api, said: bytes) -> Any:
        answer = real(self, said)
        if isinstance(answer, int) and isinstance(lie, int):
            return next(lies, answer)
        sampled = isinstance(answer, dict) and len(answer.get("ids", ())) == 1
        return answer | next(lies, {}) if sampled and isinstance(lie, dict) else answer

    monkeypatch.setattr(Api, "_json", lying)
    staged = source_of(filled.server.database(new_name())).staging("tag1", tmp_path / "staging")
    if times == 1:
        staged.fill([as_stream(text)])
    else:
        with pytest.raises(ServerFailed, match="written"):
            staged.fill([as_stream(text)])
    staged.revert()


def test_a_server_killed_while_it_is_restored_into(
    filled: Database, mortal: ChromaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = text_of(filled, tmp_path / "work")
    place = mortal.create_database(new_name())
    place.create("alpha").call("add", **rows(["only this"]))
    source = source_of(place, tries=1)
    real, calls = Api.add, []

    def add(self: Api, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            mortal.kill()
        real(self, *arguments)

    monkeypatch.setattr(Api, "add", add)
    staged = source.staging("tag1", tmp_path / "staging")
    with pytest.raises((ServerUnreachable, ConnectionLost)):
        staged.fill([as_stream(text)])
    with pytest.raises(HoldfastError):
        staged.revert()
    assert mortal.start()
    source.reopen(staged.token).revert()
    assert sorted(place.collections()) == ["alpha"]
    assert set(place.collection("alpha").records()) == {"only this"}


def test_a_switch_whose_answers_are_lost_is_finished_or_reverted(
    server: ChromaServer, tmp_path: Path
) -> None:
    place = server.create_database(new_name())
    for name in ("alpha", "beta"):
        place.create(name).call("add", **rows(["one", "two"]))
    text = export(source_of(place), tmp_path / "work").text
    place.collection("alpha").call("delete", ids=["two"])
    before = {name: place.collection(name).records() for name in ("alpha", "beta")}
    for cut in range(7):
        staged = source_of(place).staging(f"tag{cut}", tmp_path / f"tag{cut}")
        staged.fill([as_stream(text)])
        with Proxy(server.port) as proxy:
            through = source_of(place, tries=1).reopen({**staged.token, "url": url_of(proxy)})
            for act in (through.activate, through.revert):
                for count in range(1, cut + 1):  # each time it gets one answer further
                    proxy.always(Trouble(down=200 * count))
                    with suppress(HoldfastError):
                        act()
                proxy.always(None)
                act()
                counted = place.collection("alpha").count()
                assert counted == (2 if act == through.activate else 1)
        assert {name: place.collection(name).records() for name in place.collections()} == before


def test_without_the_program_a_twin_is_another_database(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_server, "chroma_program", lambda: None)
    text = text_of(filled, tmp_path / "work")
    databases = filled.server.databases()
    source = source_of(filled)
    with source.scratch(tmp_path) as twin:
        assert not twin.facts().counts
        staged = twin.staging("tag1", tmp_path / "staging")
        staged.fill([as_stream(text)])
        staged.activate()
        assert twin.facts().counts == source.facts().counts
        everything = source_of(filled, databases=None)
        (name,) = set(filled.server.databases()) - set(databases)
        assert not [title for title in everything.facts().counts if name in title]
        with pytest.raises(NoScratch), everything.scratch(tmp_path):
            pass
    assert filled.server.databases() == databases


def test_a_twin_that_cannot_be_started_is_explained(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_chroma_server, "chroma_program", lambda: "/bin/false")
    with pytest.raises(NoScratch, match="does not start"), source_of(filled).scratch(tmp_path):
        pass


def test_settings_that_a_server_does_not_know_are_named(filled: Database, tmp_path: Path) -> None:
    text = text_of(filled, tmp_path / "work").replace(b'"space":"l2"', b'"space":"taxicab"')
    place = filled.server.database(new_name())
    staged = source_of(place).staging("tag1", tmp_path / "staging")
    with pytest.raises(TargetUnfit, match="alpha"):
        staged.fill([as_stream(text)])
    staged.revert()
    assert place.name not in filled.server.databases()


def test_a_backup_of_other_collections_is_not_taken(filled: Database, tmp_path: Path) -> None:
    text = text_of(filled, tmp_path / "work")
    place = filled.server.create_database(new_name())
    staged = source_of(place, collections=("beta",)).staging("tag1", tmp_path / "staging")
    with pytest.raises(TargetUnfit, match="alpha"):
        staged.fill([as_stream(text)])
    staged.revert()
    assert place.collections() == {}


def _answer(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Made up\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
