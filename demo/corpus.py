"""Real texts that every machine has: licences, and what installed packages say of themselves."""

from __future__ import annotations

import random
import sysconfig
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHORTEST = 400  # characters; below that there is nothing to find
LONGEST = 24_000  # what is longer is cut: the demonstration is about stores, not about length
CHUNK = 900  # characters that are found and shown as one passage
SCRAP = 120  # what is shorter says nothing by itself and stays with what comes before

# Where to look, in this order; only the second is sure to be there.
_PLACES = (
    (Path("/usr/share/common-licenses"), "*"),
    (Path(sysconfig.get_path("purelib")), "*.dist-info/METADATA"),
    (Path(sysconfig.get_path("purelib")), "*.dist-info/**/*LICEN*"),
    (Path("/usr/share/doc"), "*/README*"),
    (Path("/usr/share/doc"), "*/*.txt"),
    (Path("/usr/share/doc"), "*/copyright"),
)


@dataclass(frozen=True, slots=True)
class Text:
    """A text and what to call it."""

    title: str
    content: str


def gather(most: int) -> list[Text]:
    """Return up to ``most`` texts, on one machine always the same ones.

    A paragraph is kept where it is met first: half of all licences are each other's copies, and
    passages that are equal would be equally good answers, in any order.
    """
    texts: list[Text] = []
    seen = {""}
    for path in _candidates():
        text = _read(path, seen)
        if text is not None:
            texts.append(text)
        if len(texts) == most:
            break
    return texts


def mixed(text: Text, seed: int) -> Text:
    """Return a new text of the same words, for a writer that has run out of real ones."""
    words = text.content.split()
    random.Random(seed).shuffle(words)
    return Text(f"{text.title}, mixed {seed}", " ".join(words))


def _candidates() -> Iterator[Path]:
    for folder, pattern in _PLACES:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _read(path: Path, seen: set[str]) -> Text | None:
    """Return what is new in a file; None where that is not text, too short, or not ours to read."""
    try:
        content = path.read_text("utf-8")[:LONGEST]
    except (OSError, UnicodeDecodeError):
        return None
    new = {key: part for part in content.split("\n\n") if (key := _key(part)) not in seen}
    seen.update(new)
    content = "\n\n".join(new.values())
    if len(content) < SHORTEST or "\0" in content:
        return None
    return Text(_title(path), content)


def _key(paragraph: str) -> str:
    return " ".join(paragraph.lower().split())


def _title(path: Path) -> str:
    """Return a name a person knows: the package and the file, or the licence alone."""
    if path.parent.name == "common-licenses":
        return path.name
    package = next((p for p in path.parts if p.endswith(".dist-info")), path.parent.name)
    return f"{package.removesuffix('.dist-info').split('-')[0]} {path.name}"


def passages(content: str) -> list[str]:
    """Cut a text into passages of about `CHUNK` characters, between paragraphs where possible."""
    found: list[str] = []
    for paragraph in content.split("\n\n"):
        for piece in textwrap.wrap(" ".join(paragraph.split()), CHUNK):
            # A scrap may go over the limit, but only one of them.
            room = CHUNK if len(piece) < SCRAP else CHUNK - len(piece)
            if found and len(found[-1]) < room:
                found[-1] += "\n" + piece
            else:
                found.append(piece)
    return found
