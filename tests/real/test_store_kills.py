"""Writers that are killed in the middle: nothing is seen, nothing is in the way, all is swept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.ports import Store
from holdfast.stores import s3, sftp
from servers.s3 import KEY, SECRET, shared_server
from tests.stores_world import new_bucket, s3_store, sftp_store, shared_ssh

MIB = 1 << 20
WRITER = """
import os, signal, sys
from holdfast.model.store_options import StoreOptions
from holdfast.runtime.stores import open_store

def dying():
    for _piece in range(40):
        yield bytes(1 << 20)
    os.kill(os.getpid(), signal.SIGKILL)

options = StoreOptions.model_validate_json(sys.argv[1])
open_store("offsite", options, ()).put("packs/one", dying())
"""


def on_s3() -> tuple[str, Store]:
    bucket, endpoint = new_bucket(), shared_server().endpoint
    options = f"""{{"url": "s3://{bucket}/brain", "endpoint": "{endpoint}",
        "access_key": "{KEY}", "secret_key": "{SECRET}"}}"""
    return options, s3_store(bucket, "brain/")


def on_sftp() -> tuple[str, Store]:
    server = shared_ssh()
    store = sftp_store()
    folder = os.fsdecode(store._root)
    options = f"""{{"url": "sftp://{server.user}@127.0.0.1:{server.port}{folder}",
        "ssh_key": "{server.key}", "known_hosts": "{server.known_hosts}"}}"""
    return options, store


@pytest.mark.parametrize("place", [on_s3, on_sftp])
def test_a_writer_that_is_killed_leaves_what_a_sweep_removes(
    place: Callable[[], tuple[str, Store]], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, store = place()
    here = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", WRITER, options], check=False, cwd=here)
    assert done.returncode == -signal.SIGKILL
    assert list(store.names()) == []
    with pytest.raises(FileNotFoundError):
        store.read("packs/one")
    assert store.sweep() == [], "it may be alive, for all that can be seen"
    store.put("packs/one", (bytes(MIB) for _piece in range(2)))
    monkeypatch.setattr(s3, "LEFT", timedelta(seconds=-60))
    monkeypatch.setattr(sftp, "LEFT", -60)
    [line] = store.sweep()
    assert line.startswith("half-written file packs/")
    assert store.sweep() == []
    assert dict(store.sizes()) == {"packs/one": 2 * MIB}
