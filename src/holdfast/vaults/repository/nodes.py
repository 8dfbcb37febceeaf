"""Nodes: the entries of a tree, as JSON exactly as restic 0.14 to 0.18 write and read it.

"Trees and Data" in restic's design; what it leaves open was read from its program: the order and
omission of fields, Go's mode bits, quoted names, raw bytes of link targets.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .blobs import ID_SIZE
from .damage import DamagedError
from .gotext import quoted, string, time_of, time_text, unquoted

FILE, FOLDER, SYMLINK, FIFO = "file", "dir", "symlink", "fifo"
OTHERS = frozenset({"socket", "dev", "chardev", "irregular"})  # restic's, that we never write

_TYPE_BITS = {FILE: 0, FOLDER: 1 << 31, SYMLINK: 1 << 27, FIFO: 1 << 25}
_SET_BITS = ((0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20))  # set-id, sticky: ours, Go's
_PERMISSIONS = 0o777
_LARGEST = (1 << 63) - 1
_MOST_MODE = (1 << 32) - 1

START = '{"nodes":['
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of a tree. Times are nanoseconds since 1970; ``mode`` has Unix' twelve bits."""

    name: str  # undecodable bytes as `surrogateescape` gives them
    type: str
    mode: int = 0
    mtime: int = 0
    atime: int = 0
    ctime: int = 0
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0  # with the inode: which names are one file
    size: int = 0
    links: int = 0
    target: str = ""  # of a symbolic link
    xattrs: tuple[tuple[str, bytes], ...] = ()
    content: Sequence[bytes] = ()  # of a file: the ids of its data blobs, in order
    subtree: bytes | None = None  # of a folder: the id of its tree


def joined(encoded: Iterable[bytes]) -> bytes:
    """Return the JSON of a tree from that of its nodes, sorted by the bytes of their names."""
    pieces = list(encoded) or [b""]
    pieces[0] = START.encode() + pieces[0]
    pieces[-1] += b"]}\n"
    return b",".join(pieces)  # in one piece: a folder may have a million entries


def encode_node(node: Node) -> bytes:
    """Return the JSON of one node, the fields in the order of restic's, empty ones left out."""
    mtime = time_text(node.mtime)
    atime = mtime if node.atime == node.mtime else time_text(node.atime)
    parts = [
        f'{{"name":{string(quoted(node.name))},"type":"{node.type}"',
        f',"mode":{_go_mode(node)}' if node.mode or _TYPE_BITS[node.type] else "",
        f',"mtime":"{mtime}","atime":"{atime}","ctime":"{time_text(node.ctime)}"',
        f',"uid":{node.uid},"gid":{node.gid}',
    ]
    if node.user:
        parts.append(f',"user":{string(node.user)}')
    if node.group:
        parts.append(f',"group":{string(node.group)}')
    numbers = {n: getattr(node, n) for n in ("inode", "device_id", "size", "links")}
    parts += [f',"{name}":{value}' for name, value in numbers.items() if value]
    if node.target:
        parts.append(f',"linktarget":{string(node.target)}')
        if not is_text(node.target):
            parts.append(f',"linktarget_raw":"{_to_base64(_bytes(node.target))}"')
    if node.xattrs:
        pairs = (f'{{"name":{string(n)},"value":"{_to_base64(v)}"}}' for n, v in node.xattrs)
        parts.append(f',"extended_attributes":[{",".join(pairs)}]')
    if node.type == FILE:
        ids = ",".join([f'"{id_.hex()}"' for id_ in node.content])
        parts.append(f',"content":[{ids}]')
    else:
        parts.append(',"content":null')
    if node.subtree is not None:
        parts.append(f',"subtree":"{node.subtree.hex()}"')
    parts.append("}")
    return "".join(parts).encode()


def decode_tree(document: bytes) -> Iterator[Node]:
    """Give the nodes of a tree, each read when it is asked for: a folder may have millions.

    Raises:
        DamagedError: it is not a tree, is not sorted, or has a name that leads out of its folder.

    """
    return (node for node, _text in decode_texts(document))


def decode_texts(document: bytes) -> Iterator[tuple[Node, str]]:
    """Give the nodes of a tree, each with the very JSON that it is, for `joined`.

    Raises:
        DamagedError: as `decode_tree`.

    """
    try:
        yield from _decode_tree(document.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"a tree is not JSON: {error}") from error


def _decode_tree(text: str) -> Iterator[tuple[Node, str]]:
    if not text.startswith(START):
        raise DamagedError("a tree does not begin as one")
    at, last = len(START), b""
    while not text.startswith("]", at):
        start = at
        found, at = _DECODER.raw_decode(text, start)
        node = decode_node(found)
        name = _bytes(node.name)
        if name <= last:
            raise DamagedError(f"the name {node.name!r} is not in order, or comes twice")
        last = name
        yield node, text[start:at]
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("]", at):
            raise DamagedError("a tree has no comma between two nodes")


def decode_node(found: Any) -> Node:
    """Return the node that a JSON object says; nothing in it is believed unchecked.

    Raises:
        DamagedError: it is not a node, or has a name that leads out of its folder.

    """
    if not isinstance(found, dict):
        raise DamagedError("a node is not an object")
    type_ = _text(found, "type")
    if type_ not in _TYPE_BITS and type_ not in OTHERS:
        raise DamagedError(f"a node has the type {type_!r}, which is not known")
    mtime, atime = found.get("mtime"), found.get("atime")
    changed = time_of(mtime)
    return Node(
        name=_name(_text(found, "name")),
        type=type_,
        mode=_unix_mode(_number(found, "mode", _MOST_MODE)),
        mtime=changed,
        atime=changed if atime == mtime else time_of(atime),
        ctime=time_of(found.get("ctime")),
        uid=_number(found, "uid", _MOST_MODE),
        gid=_number(found, "gid", _MOST_MODE),
        user=_text(found, "user"),
        group=_text(found, "group"),
        inode=_number(found, "inode"),
        device_id=_number(found, "device_id"),
        size=_number(found, "size") if type_ == FILE else 0,
        links=_number(found, "links"),
        target=_target(found) if type_ == SYMLINK else "",
        xattrs=tuple(_attributes(found.get("extended_attributes") or ())),
        content=_content(found.get("content") or ()) if type_ == FILE else (),
        subtree=_id(found.get("subtree")) if type_ == FOLDER else None,
    )


def _name(text: str) -> str:
    name = unquoted(text)
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise DamagedError(f"the name {name!r} leads out of its folder")
    return name


def _target(found: dict[str, Any]) -> str:
    if raw := found.get("linktarget_raw"):
        target = _from_base64(raw).decode("utf-8", "surrogateescape")
    else:
        target = _text(found, "linktarget")
    if not target or "\0" in target:
        raise DamagedError("a symbolic link has no target")
    return target


def _attributes(found: Any) -> Iterator[tuple[str, bytes]]:
    if not isinstance(found, list | tuple):
        raise DamagedError("extended attributes are not a list")
    for pair in found:
        if not isinstance(pair, dict):
            raise DamagedError("an extended attribute is not an object")
        yield _text(pair, "name"), _from_base64(pair.get("value") or "")


def _content(found: Any) -> Sequence[bytes]:
    if not isinstance(found, list | tuple):
        raise DamagedError("a file's content is not a list")
    return [_id(id_) for id_ in found]


def _id(found: object) -> bytes:
    id_ = bytes.fromhex(found) if isinstance(found, str) else b""
    if len(id_) != ID_SIZE:
        raise DamagedError("a node refers to no id")
    return id_


def _text(found: dict[str, Any], field: str) -> str:
    value = found.get(field, "")
    if not isinstance(value, str) or not is_text(value):
        raise DamagedError(f"{field} is not text")
    return value


def _number(found: dict[str, Any], field: str, most: int = 2 * _LARGEST + 1) -> int:
    value = found.get(field, 0)
    if not isinstance(value, int) or not 0 <= value <= most:
        raise DamagedError(f"{field} is not a number that can be")
    return value


def _go_mode(node: Node) -> int:
    mode = _TYPE_BITS[node.type] | node.mode & _PERMISSIONS
    for ours, gos in _SET_BITS:
        mode |= gos if node.mode & ours else 0
    return mode


def _unix_mode(mode: int) -> int:
    found = mode & _PERMISSIONS
    for ours, gos in _SET_BITS:
        found |= ours if mode & gos else 0
    return found


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def is_text(text: str) -> bool:
    """Tell whether text can be UTF-8: no undecodable bytes, no half of a pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _to_base64(data: bytes) -> str:
    return b64encode(data).decode()


def _from_base64(text: object) -> bytes:
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else b""
    except ValueError as error:
        raise DamagedError("a node holds what is not base64") from error
