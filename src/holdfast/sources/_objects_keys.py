"""Keys of objects as paths of a tree, and back.

A key is any text of up to 1,024 bytes; a path has parts that are not empty, not ``.`` or ``..``,
and not longer than a file system allows. Most keys are paths already and stay as they are. The
rules for the others are in ``docs/formats/objects.md``; every key has a path, no two keys have the
same one, and the key follows from the path alone.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

LONGEST_PART = 240  # bytes; file systems allow 255
MORE = "%+"  # ends a part whose rest is the next one
FILE_AND_FOLDER = "%-"  # ends a part that would not fit beside what is there; means nothing
VERSIONS = "%versions"  # the folder of what was current once; no key's path begins so
_SPECIAL = {"", ".", ".."}


class NotAKeyError(ValueError):
    """A path of the tree that no key has."""


def path_of(key: str) -> str:
    """Return the path of a key, before it is known whether it fits beside the others."""
    if not ("//" in f"/{key}/" or "%" in key or "/." in f"/{key}" or "\0" in key):
        parts = key.split("/")
        if all(len(part) * 4 <= LONGEST_PART or _size(part) <= LONGEST_PART for part in parts):
            return key
    return "/".join(piece for part in key.split("/") for piece in _pieces(_escaped(part)))


def key_of(path: str) -> str:
    """Return the key of a path.

    Raises:
        NotAKeyError: no key has it.

    """
    parts = []
    begun = ""
    for name in path.split("/"):
        if name.endswith(MORE):
            begun += name.removesuffix(MORE)
            continue
        parts.append(_meant(begun + name.removesuffix(FILE_AND_FOLDER)))
        begun = ""
    if begun:
        raise NotAKeyError(path)
    return "/".join(parts)


def version_folder(key: str) -> str:
    """Return the folder of what a key was once: a file for each version, in their order."""
    return f"{VERSIONS}/{path_of(key)}{FILE_AND_FOLDER}"


def versioned_key(path: str) -> str | None:
    """Return the key that a path holds an old version of; None: it is that of an object.

    Raises:
        NotAKeyError: it is neither.

    """
    first, _slash, rest = path.partition("/")
    if first != VERSIONS:
        return None
    folder = rest.rpartition("/")[0]
    if not folder.endswith(FILE_AND_FOLDER):
        raise NotAKeyError(path)
    return key_of(folder.removesuffix(FILE_AND_FOLDER))


def _escaped(part: str) -> str:
    """Return one part of a key under a name that a file may have, whatever its length."""
    plain = part not in _SPECIAL and not part.startswith("%") and "\0" not in part
    if plain and not part.endswith((MORE, FILE_AND_FOLDER)):
        return part
    data = part.encode("utf-8", "surrogateescape")
    rest = data[1:].replace(b"%", b"%25").replace(b"\0", b"%00")
    name = b"%%%02X%s" % (data[0], rest) if data else b"%"
    if data and data[0] >= 0x80:  # noqa: PLR2004 - the first character is more than one byte
        name = b"".join(b"%%%02X" % byte for byte in data)
    return name.decode("utf-8", "surrogateescape")


def _meant(name: str) -> str:
    if not name.startswith("%"):
        return name
    if name == "%":
        return ""
    data = unquote_to_bytes(name.encode("utf-8", "surrogateescape"))
    part = data.decode("utf-8", "surrogateescape")
    if _escaped(part) != name:
        raise NotAKeyError(name)
    return part


def _pieces(name: str) -> list[str]:
    """Split a name that is too long between characters; only the last piece ends it."""
    pieces = []
    while _size(name) > LONGEST_PART:
        cut = _characters_within(name)
        pieces.append(name[:cut] + MORE)
        name = name[cut:]
    if pieces and (name in _SPECIAL or name.endswith((MORE, FILE_AND_FOLDER))):
        name += FILE_AND_FOLDER
    return [*pieces, name]


def _characters_within(name: str) -> int:
    """Return how many characters of a long name one part has room for."""
    room = LONGEST_PART
    for count, character in enumerate(name):
        room -= _size(character)
        if room < 0:
            return count
    return len(name)


def _size(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))


class Places:
    """Gives each key its path in one tree, in the order that a bucket lists them.

    A name cannot be a file and a folder: where an object's key is also the beginning of other keys,
    ``a`` and ``a/b``, the one that comes second is marked.
    """

    def __init__(self) -> None:
        self._folders: set[str] = set()
        self._files: dict[str, str] = {}  # key → path, of those that the next keys may begin with

    def add(self, key: str) -> tuple[str, list[str]]:
        """Return the path of a key, and the folders above it that were not needed before."""
        while self._files and not key.startswith(last := next(reversed(self._files))):
            del self._files[last]
        folders = []
        path = ""
        *above, name = [_pieces(_escaped(part)) for part in key.split("/")]
        for index, pieces in enumerate(above):
            for piece in pieces:
                path = f"{path}/{piece}" if path else piece
                if piece is pieces[-1] and path == self._files.get(_beginning(key, index + 1)):
                    path += FILE_AND_FOLDER
                if path not in self._folders:
                    self._folders.add(path)
                    folders.append(path)
        for piece in name[:-1]:
            path = f"{path}/{piece}" if path else piece
            if path not in self._folders:
                self._folders.add(path)
                folders.append(path)
        path = f"{path}/{name[-1]}" if path else name[-1]
        if path in self._folders:
            path += FILE_AND_FOLDER
        self._files[key] = path
        return path, folders


def _beginning(key: str, parts: int) -> str:
    return "/".join(key.split("/")[:parts])
