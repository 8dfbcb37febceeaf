"""The manifest's codec: nothing is lost, and no bytes make it fail in an unforeseen way."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import BackupDamaged, BackupTooNew
from holdfast.model.facts import Facts
from holdfast.model.manifest import (
    FORMAT,
    Component,
    Form,
    Manifest,
    Status,
    Stored,
    decode,
    encode,
)
from holdfast.model.names import RESERVED_IDS

TEXT = st.text(max_size=8)
LETTERS = "abcXYZ019_-."
NAMES = st.text(LETTERS, min_size=1, max_size=8).filter(lambda name: name[0] not in "-.")
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
START = datetime(1971, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(0, 7 * 10**15).map(lambda us: START + timedelta(microseconds=us))
NATURALS = st.integers(0, 2**60)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
STRINGS = st.dictionaries(TEXT, TEXT, max_size=2)
SECONDS = st.floats(0, 1e6, allow_nan=False)
FACTS = st.builds(
    Facts,
    st.dictionaries(TEXT, st.integers(), max_size=2),
    st.dictionaries(TEXT, JSON, max_size=2),
    st.lists(TEXT, max_size=2).map(tuple),
)
COMPONENTS = st.builds(
    Component,
    name=NAMES,
    source=TEXT,
    status=st.sampled_from(["completed", "failed"]),
    instant=st.none() | INSTANTS,
    seconds=SECONDS,
    exact=st.booleans(),
    evidence=st.booleans(),
    version=TEXT,
    tools=STRINGS,
    facts=FACTS,
    error=TEXT,
)
ARTIFACTS = st.builds(
    Stored,
    component=st.just("first"),
    name=PATHS,
    form=st.sampled_from(Form),
    path=PATHS,
    size=NATURALS,
    sha256=st.integers(0, 2**256 - 1).map("{:064x}".format),
    encoding=st.sampled_from(["identity", "zstd", "tar+zstd", "tar+gzip"]),
    content_size=NATURALS,
    entries=NATURALS,
    part=TEXT,
    labels=STRINGS,
)


def assemble(manifest: Manifest, components: list[Component], artifacts: list[Stored]) -> Manifest:
    """Let every artifact belong to a component that there is."""
    first = replace(sample().components[0], name="first")
    return replace(manifest, components=(first, *components), artifacts=tuple(artifacts))


MANIFESTS = st.builds(
    assemble,
    st.builds(
        Manifest,
        id=NAMES.filter(lambda name: name not in RESERVED_IDS),
        stack=TEXT,
        created_at=INSTANTS,
        sequence=NATURALS,
        status=st.sampled_from(Status),
        components=st.just(()),
        artifacts=st.just(()),
        holdfast=TEXT,
        plan=TEXT,
        host=TEXT,
        description=TEXT,
        skew_seconds=SECONDS,
        notes=st.lists(TEXT, max_size=2).map(tuple),
    ),
    st.lists(COMPONENTS, max_size=2, unique_by=lambda c: c.name).map(
        lambda found: [c for c in found if c.name != "first"]
    ),
    st.lists(ARTIFACTS, max_size=3, unique_by=lambda a: a.path),
)


def sample() -> Manifest:
    instant = datetime(2026, 2, 4, 12, tzinfo=UTC)
    record = Component("projects", "sqlite", "completed", instant, facts=Facts({"rows/x": 3}))
    kept = Stored("projects", "p.db", Form.STREAM, "b/projects.db", 9, "0" * 64, "identity", 9)
    return Manifest("b", "brain", instant, 1, Status.COMPLETED, (record,), (kept,), holdfast="0.1")


@given(MANIFESTS)
def test_what_is_written_is_read_back(manifest: Manifest) -> None:
    assert decode(encode(manifest), manifest.id) == manifest


@given(MANIFESTS)
def test_writing_is_always_the_same(manifest: Manifest) -> None:
    assert encode(decode(encode(manifest), manifest.id)) == encode(manifest)


def test_lone_surrogates_survive() -> None:
    manifest = replace(sample(), host="\udcff\ud800", notes=("\udc80",))
    assert decode(encode(manifest), "b") == manifest


@given(st.binary(max_size=60))
def test_no_bytes_fail_in_an_unforeseen_way(data: bytes) -> None:
    with pytest.raises((BackupDamaged, BackupTooNew)):
        decode(data, "b")


@given(JSON)
def test_no_json_fails_in_an_unforeseen_way(document: Any) -> None:
    with pytest.raises((BackupDamaged, BackupTooNew)):
        decode(json.dumps(document).encode(), "b")


@given(st.data())
def test_mutations_fail_as_foreseen_or_mean_what_they_say(data: st.DataObject) -> None:
    """Replace any one value of a manifest by any other: it is refused, or read as it stands."""
    document = json.loads(encode(sample()))
    path = data.draw(st.sampled_from(list(places(document))))
    new = data.draw(JSON | NATURALS | st.just(None) | st.floats() | st.just("../x"))
    put(document, path, new)
    try:
        manifest = decode(json.dumps(document).encode(), "b")
    except (BackupDamaged, BackupTooNew):
        return
    again = json.loads(encode(manifest))
    assert decode(encode(manifest), "b") == manifest
    assert again.keys() >= set(document)


@given(st.data())
def test_missing_fields_are_refused(data: st.DataObject) -> None:
    document = json.loads(encode(sample()))
    path = data.draw(st.sampled_from([p for p in places(document) if is_field(document, p)]))
    parent = at(document, path[:-1])
    del parent[path[-1]]
    with pytest.raises(BackupDamaged):
        decode(json.dumps(document).encode(), "b")


@given(st.integers(0, 2000), st.integers(0, 255))
def test_changed_bytes_fail_as_foreseen(position: int, value: int) -> None:
    data = bytearray(encode(sample()))
    data[position % len(data)] = value
    with suppress(BackupDamaged, BackupTooNew):
        decode(bytes(data), "b")


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(BackupDamaged):
        decode(b"[" * 100_000, "b")


def test_a_newer_format_is_refused_by_name() -> None:
    document = json.loads(encode(sample()))
    document["format"] = FORMAT + 1
    with pytest.raises(BackupTooNew, match=str(FORMAT + 1)):
        decode(json.dumps(document).encode(), "b")


def test_the_manifest_of_another_backup_is_refused() -> None:
    with pytest.raises(BackupDamaged, match="manifest of b"):
        decode(encode(sample()), "c")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "", "a//b"])
def test_paths_that_leave_the_vault_are_refused(path: str) -> None:
    document = json.loads(encode(sample()))
    document["artifacts"][0]["path"] = path
    with pytest.raises(BackupDamaged):
        decode(json.dumps(document).encode(), "b")


def test_a_partial_or_evidential_backup_is_not_good() -> None:
    manifest = sample()
    assert manifest.good
    assert not replace(manifest, status=Status.PARTIAL).good
    evidence = replace(manifest.components[0], evidence=True)
    assert not replace(manifest, components=(evidence,)).good


Path = tuple[str | int, ...]


def places(document: Any, path: Path = ()) -> list[Path]:
    """Return the path of every value in a document."""
    found = [path] if path else []
    if isinstance(document, dict):
        items: list[tuple[str | int, Any]] = list(document.items())
    elif isinstance(document, list):
        items = list(enumerate(document))
    else:
        items = []
    for key, value in items:
        found += places(value, (*path, key))
    return found


def at(document: Any, path: Path) -> Any:
    for key in path:
        document = document[key]
    return document


def put(document: Any, path: Path, value: Any) -> None:
    at(document, path[:-1])[path[-1]] = value


def is_field(document: Any, path: Path) -> bool:
    """Whether the last step of a path is a field that every document of its kind has."""
    return isinstance(at(document, path[:-1]), dict) and "counts" not in path[:-1]
