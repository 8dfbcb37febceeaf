"""Removing folders of any depth and permissions, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from holdfast.sources._remove import remove_folder


def test_a_folder_goes_with_all_that_is_in_it_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("x")
    (root / "a" / "link").symlink_to(tmp_path / "outside")
    os.link(tmp_path / "outside" / "kept", root / "second name")
    os.mkfifo(root / "pipe")
    remove_folder(root)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside" / "kept").read_text() == "x"


def test_a_folder_deeper_than_any_path_goes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _level in range(1500):
        os.mkdir("d" * 50, dir_fd=fd)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.close(fd)
        fd = below
    os.close(fd)
    remove_folder(root)
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("x")
    (tmp_path / "link").symlink_to("outside")
    with pytest.raises(OSError, match="irectory"):
        remove_folder(tmp_path / "link")
    assert (tmp_path / "outside" / "kept").exists()


def test_folders_without_permissions_go_too() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own no other user may enter
        remove_as_somebody(Path(folder))


def remove_as_somebody(place: Path) -> None:
    place.chmod(0o777)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from holdfast.sources._remove import remove_folder\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "root = Path(sys.argv[1])\n"
        "(root / 'a' / 'b').mkdir(parents=True); (root / 'a' / 'b' / 'c').write_text('x')\n"
        "for folder in (root / 'a' / 'b', root / 'a', root): folder.chmod(0)\n"
        "remove_folder(root)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, place / "root"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == []
