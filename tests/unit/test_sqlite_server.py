"""The process that holds a database, when whoever asks it dies."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdfast.sources._sqlite_holder import Holder


@pytest.mark.parametrize("torn", [b"\x00\x00", b"\x00\x00\x00\x20", b'\x00\x00\x00\x20{"do": "l'])
def test_a_request_that_was_torn_ends_it_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], torn: bytes
) -> None:
    holder = Holder("rows", tmp_path / "bank.db", 1)
    reading, writing = os.pipe()
    socket.send_fds(holder._control, [torn], [writing])
    holder.close()
    os.close(reading)
    os.close(writing)
    assert holder._process.returncode == 0
    assert capfd.readouterr().err == ""
