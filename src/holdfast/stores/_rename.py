"""Renaming without ever overwriting, which Python's own functions cannot.

``renameat2(RENAME_NOREPLACE)`` is one atomic step, for files and folders alike, on the file
systems of Linux that matter, FAT and SMB included. A few (NFS, some in user space) refuse the flag:
there a file gets a second name by ``link``, which never overwrites either, and loses its first one;
a folder is renamed plainly, which fails by itself where a file or a folder with content is in the
way.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from functools import cache

_NOREPLACE = 1
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def rename_free(old: str, new: str, old_folder: int, new_folder: int) -> None:
    """Rename ``old`` in one open folder to ``new`` in another; both are single names.

    Raises:
        FileExistsError: the new name is taken.

    """
    try:
        _renameat2(old, new, old_folder, new_folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        _rename_otherwise(old, new, old_folder, new_folder)


def _renameat2(old: str, new: str, old_folder: int, new_folder: int) -> None:
    # Python's own renames tell its audit hooks, and so does this one.
    sys.audit("os.rename", old, new, old_folder, new_folder)
    call = _library().renameat2
    if call(old_folder, os.fsencode(old), new_folder, os.fsencode(new), _NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), old, None, new)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.renameat2.argtypes = [
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    ]
    return library


def _rename_otherwise(old: str, new: str, old_folder: int, new_folder: int) -> None:
    found = os.stat(old, dir_fd=old_folder, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        try:
            os.rename(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.ENOTDIR}:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
            raise
        return
    os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    os.unlink(old, dir_fd=old_folder)
