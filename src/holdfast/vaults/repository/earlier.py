"""The files of an earlier backup's folder, as the JSON of their nodes.

What did not change is stored again just as it lies there, so most nodes are only compared and never
needed as such. One expression takes the node of an ordinary file apart, and finds it only in the
very form that `nodes.encode_node` gives it, with nothing in it that `nodes.decode_node` would not
believe; that is five times as fast as decoding and encoding it. All other nodes are decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from holdfast.model.artifact import Entry

from . import nodes
from .damage import DamagedError
from .gotext import EARLIEST, LATEST, time_text
from .nodes import Node

_NUMBER, _SMALL = r"[1-9][0-9]{0,17}", r"(?:0|[1-9][0-9]{0,8})"  # below 2**63, below 2**32
_MODE = r"(?:[1-9][0-9]?|[1-4][0-9]{2}|50[0-9]|51[01])"  # permissions alone, 0 is left out
_NAME, _WORD = r"[ !#-%'-.0-;=?-\[\]-~]+", r"[ !#-%'-;=?-\[\]-~]+"  # nothing to quote or escape
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{0,8}[1-9])?Z"
_ID, _MOST_IDS = r'"[0-9a-f]{64}"', 999  # with more to find, an expression needs much memory
_FILE = re.compile(
    rf'{{"name":"(?P<name>(?!\.\.?"){_NAME})","type":"file"(?:,"mode":{_MODE})?'
    rf',"mtime":"(?P<mtime>{_TIME})","atime":"(?P=mtime)","ctime":"(?P<ctime>{_TIME})"'
    rf',"uid":{_SMALL},"gid":{_SMALL}(?:,"user":"{_WORD}")?(?:,"group":"{_WORD}")?'
    rf',"inode":(?P<inode>{_NUMBER})(?:,"device_id":{_NUMBER})?(?:,"size":(?P<size>{_NUMBER}))?'
    rf'(?:,"links":{_NUMBER})?,"content":\[(?P<content>(?:{_ID}(?:,{_ID}){{0,{_MOST_IDS}}})?)\]}}'
)
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that need not be read: its node as JSON, and the ids of its data blobs."""

    encoded: bytes
    content: Sequence[bytes]


class Folder:
    """The nodes of one folder of an earlier backup."""

    def __init__(self, document: bytes) -> None:
        """Take the JSON of a tree. Raises `DamagedError` as `nodes.decode_tree` does."""
        try:
            self._found = dict(_nodes(document.decode()))
        except (ValueError, RecursionError) as error:
            raise DamagedError(f"a tree is not JSON: {error}") from error

    def subtree(self, name: str) -> bytes | None:
        """Return the id of the tree of a folder in this one; None where there is none."""
        found = self._found.get(name)
        return found.subtree if isinstance(found, Node) else None

    def same(self, name: str, entry: Entry) -> Kept | None:
        """Return the file of this name, if it has the size, the times and the inode of an entry."""
        found = self._found.get(name)
        if found is None:
            return None
        if isinstance(found, Node):
            same = _is_same(found, entry)
            return Kept(nodes.encode_node(found), found.content) if same else None
        return (
            Kept(found[0].encode(), _ids(found["content"])) if _looks_same(found, entry) else None
        )


def _nodes(text: str) -> Iterator[tuple[str, Node | re.Match[str]]]:
    if not text.startswith(nodes.START):
        raise DamagedError("a tree does not begin as one")
    at, last = len(nodes.START), b""
    while not text.startswith("]", at):
        found: Node | re.Match[str] | None = _FILE.match(text, at)
        if isinstance(found, re.Match):
            name, at = found["name"], found.end()
        else:
            decoded, at = _DECODER.raw_decode(text, at)
            found = nodes.decode_node(decoded)
            name = found.name
        raw = name.encode("utf-8", "surrogateescape")
        if raw <= last:
            raise DamagedError(f"the name {name!r} is not in order, or comes twice")
        last = raw
        yield name, found
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("]", at):
            raise DamagedError("a tree has no comma between two nodes")


def _is_same(node: Node, entry: Entry) -> bool:
    return (
        node.type == nodes.FILE
        and node.size == entry.size
        and node.mtime == entry.mtime_ns
        and node.ctime == entry.ctime_ns
        and node.inode == entry.inode
    )


def _looks_same(found: re.Match[str], entry: Entry) -> bool:
    """Compare text: a time has only one, but for those that are so far away that none is right."""
    return (
        found["inode"] == str(entry.inode)
        and (found["size"] or "0") == str(entry.size)
        and _is_time(found["mtime"], entry.mtime_ns)
        and (
            found["ctime"] == found["mtime"]
            if entry.ctime_ns == entry.mtime_ns
            else _is_time(found["ctime"], entry.ctime_ns)
        )
    )


def _is_time(text: str, nanoseconds: int) -> bool:
    return EARLIEST <= nanoseconds <= LATEST and text == time_text(nanoseconds)


def _ids(content: str) -> list[bytes]:
    return [bytes.fromhex(text) for text in content[1:-1].split('","')] if content else []
