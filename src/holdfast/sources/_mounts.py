"""What kind of file system a path lies on, and whether its locks reach other machines."""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
SHARED = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "drvfs", "fakeowner", "gfs2", "glusterfs"),
    *("gpfs", "grpcfuse", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "osxfs", "prl_fs"),
    *("smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
}
_DIRECT = {"ext4", "xfs"}
LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuseblk"}
_OCTAL = re.compile(r"\\([0-7]{3})")


def shared_file_system(path: Path) -> str:
    """Return the type of the network or host file system that ``path`` lies on; empty: a local one.

    Locks there are kept by each machine for itself, or by a server that may forget them. Where the
    kernel does not say what is mounted, the answer is empty.
    """
    kind = _type_of(os.path.realpath(path))
    fuse = kind.startswith("fuse") and kind not in LOCAL_FUSE
    return kind if kind in SHARED or fuse else ""


def takes_direct(path: Path) -> bool:
    """Tell whether ``O_DIRECT`` is worth using for large files where ``path`` lies.

    Only where it is known to do what it says: some file systems refuse it, some go through the
    cache all the same, and some compress or check only what goes through it.
    """
    return _type_of(os.path.realpath(path)) in _DIRECT


def _type_of(real: str) -> str:
    """Return the type of the innermost mount that a path lies in; the last one listed is on top."""
    best, kind = "", ""
    for point, mounted in _mounts():
        inside = point in {"/", real} or real.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, mounted
    return kind


def _mounts() -> list[tuple[str, str]]:
    try:
        text = MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return []
    return [_parsed(line) for line in text.splitlines() if " - " in line]


def _parsed(line: str) -> tuple[str, str]:
    before, _dash, after = line.partition(" - ")
    point = _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), before.split(" ")[4])
    return point, after.split(" ")[0]
