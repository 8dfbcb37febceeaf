"""Keys as paths: every key has one, no two have the same, and it leads back to the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.model.names import safe_path
from holdfast.sources._objects_keys import (
    NotAKeyError,
    Places,
    key_of,
    path_of,
    version_folder,
    versioned_key,
)

PARTS = st.one_of(
    st.text(st.sampled_from("a/.%+-\0é😀\udcff25E\n"), max_size=12),
    st.text("a.%", min_size=235, max_size=500),
)
KEYS = st.lists(PARTS.filter(bool), min_size=1, max_size=12, unique=True)


def data(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b.txt", "a/b.txt"),
        ("이야기 ü.txt", "이야기 ü.txt"),
        ("50% off.txt", "50% off.txt"),
        (".hidden", ".hidden"),
        ("../etc/passwd", "%2E./etc/passwd"),
        ("./a", "%2E/a"),
        ("/lead", "%/lead"),
        ("a//b", "a/%/b"),
        ("folder/", "folder/%"),
        ("%41", "%2541"),
        ("nul\0", "%6Eul%00"),
        ("x" * 300, f"{'x' * 240}%+/{'x' * 60}"),
        ("ends%+", "%65nds%25+"),
    ],
)
def test_the_path_of_a_key(key: str, path: str) -> None:
    assert path_of(key) == path
    assert key_of(path) == key


@given(KEYS, st.booleans())
def test_paths_are_safe_and_lead_back(keys: list[str], ordered: bool) -> None:  # noqa: FBT001
    if ordered:
        keys.sort(key=data)
    places = Places()
    files: set[str] = set()
    folders: set[str] = set()
    for key in keys:
        path, above = places.add(key)
        for name in (path, *above):
            safe_path(name, "path")
            assert all(len(data(part)) <= 255 for part in name.split("/"))
        assert not folders & set(above), "a folder comes twice"
        folders.update(above)
        files.add(path)
        assert "/" not in path or path.rpartition("/")[0] in folders
        assert key_of(path) == key_of(path_of(key)) == key
    assert len(files) == len(keys)
    assert not ordered or not files & folders, "a file and a folder have one name"


@given(PARTS.filter(bool))
def test_old_versions_lie_apart_from_all_objects(key: str) -> None:
    folder = version_folder(key)
    safe_path(folder, "path")
    assert versioned_key(f"{folder}/000001") == key
    assert versioned_key(path_of(key)) is None


def test_an_object_whose_key_is_also_a_beginning_has_a_place() -> None:
    places = Places()
    assert places.add("a") == ("a", [])
    assert places.add("a-b") == ("a-b", [])
    assert places.add("a/b") == ("a%-/b", ["a%-"])
    assert places.add("a/b/c") == ("a%-/b%-/c", ["a%-/b%-"])
    assert key_of("a%-/b%-/c") == "a/b/c"


@pytest.mark.parametrize("path", ["%zz", "%41", "a%+", "%versions", "%2", "%2525/%2e"])
def test_a_path_that_stands_for_no_key_is_refused(path: str) -> None:
    with pytest.raises(NotAKeyError):
        key_of(path)


@pytest.mark.parametrize("path", ["%versions/a", "%versions/a/000001", "%versions/a%-/b%+%-/1"])
def test_a_path_that_stands_for_no_version_is_refused(path: str) -> None:
    with pytest.raises(NotAKeyError):
        versioned_key(path)
