"""What people read can be translated: messages, hints and results are looked up when shown."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast import i18n
from holdfast.errors import BackupNotFound


def compiled(messages: dict[str, str]) -> bytes:
    """A GNU ``.mo`` file: header, two tables of (length, offset), texts that end with a zero."""
    pairs = sorted({"": "Content-Type: text/plain; charset=UTF-8\n", **messages}.items())
    count = len(pairs)
    start = 28 + 16 * count
    tables: tuple[list[int], list[int]] = ([], [])
    texts = b""
    for side in (0, 1):
        for pair in pairs:
            text = pair[side].encode()
            tables[side].extend((len(text), start + len(texts)))
            texts += text + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, count, 28, 28 + 8 * count, 0, 0)
    return head + b"".join(struct.pack(f"<{2 * count}I", *table) for table in tables) + texts


@pytest.fixture
def korean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "ko" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    messages = {
        "there is no backup {backup} in {where}": "{where}에 백업 {backup}이(가) 없습니다",
        "`holdfast list` shows what there is": "`holdfast list`로 확인하세요",
    }
    (folder / "holdfast.mo").write_bytes(compiled(messages))
    monkeypatch.setattr(i18n, "LOCALES", tmp_path)
    monkeypatch.setenv("HOLDFAST_LANG", "ko")
    i18n._translations.cache_clear()
    yield
    i18n._translations.cache_clear()


@pytest.mark.usefixtures("korean")
def test_errors_and_hints_speak_the_readers_language() -> None:
    error = BackupNotFound(backup="b1", where="local")
    assert str(error) == "local에 백업 b1이(가) 없습니다"
    assert error.hint == "`holdfast list`로 확인하세요"


def test_without_a_translation_the_text_is_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_LANG", "xx")
    i18n._translations.cache_clear()
    assert str(BackupNotFound(backup="b1", where="local")) == "there is no backup b1 in local"
    i18n._translations.cache_clear()
