"""Finding databases in a folder by how their files begin. Runs in a process of its own.

Looking at a file means opening and closing it, which would drop the locks that the asking process
itself may hold on it.
"""

from __future__ import annotations

import os
import stat

from ._sqlite_format import COMPANIONS, HEADER_SIZE, parse_header

DEEPEST = 6
MOST = 200  # databases; and nothing a person would want to see proposed has more
SKIPPED = {"node_modules", "__pycache__", "site-packages", "venv", "env.bak", "lost+found"}
CHROMA = "chroma.sqlite3"  # a store of its own kind, of which this file is a part


def find(folder: str) -> list[str]:
    """Return the paths of databases below ``folder``, in order, at most `MOST`."""
    found: list[str] = []
    for root, folders, files in os.walk(folder, followlinks=False):
        if not _worth_it(root, folder, folders, files):
            folders.clear()
            continue
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in SKIPPED
        )
        for name in sorted(files):
            path = os.path.join(root, name)  # noqa: PTH118 - a plain string
            if not name.endswith(COMPANIONS) and is_database(path):
                found.append(path)
            if len(found) >= MOST:
                return found
        if root.count(os.sep) - folder.rstrip(os.sep).count(os.sep) >= DEEPEST:
            folders.clear()
    return found


def _worth_it(root: str, top: str, folders: list[str], files: list[str]) -> bool:
    """Leave out what belongs to other kinds of store, to tools, and to Holdfast itself."""
    if CHROMA in files or "pyvenv.cfg" in files:
        return False
    if "metadata.json" in files and "SHA256SUMS" in files:
        return False
    return root == top or ".holdfast" not in {*folders, *files}


def is_database(path: str) -> bool:
    """Tell whether a file begins as a database does; one that cannot be read does not."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        return parse_header(os.pread(descriptor, HEADER_SIZE, 0)) is not None
    except OSError:
        return False
    finally:
        os.close(descriptor)
