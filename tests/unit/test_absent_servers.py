"""A server that is not installed is announced, and fails its tests: none is skipped."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from servers import ServerAbsentError, postgres, qdrant, redis, s3
from tests import conftest

TESTS = Path(conftest.__file__).parent


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing was installed but Python."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for module in (postgres, redis, conftest):
        monkeypatch.setattr(module, "find_spec", lambda _name: None)
    monkeypatch.setattr(s3, "WEED", tmp_path / "weed")
    monkeypatch.setattr(conftest, "WEED", tmp_path / "weed")
    monkeypatch.setattr(qdrant, "PROGRAM", tmp_path / "qdrant")
    monkeypatch.setattr(conftest, "QDRANT", tmp_path / "qdrant")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "start",
    [
        lambda: postgres.usable_tools.__wrapped__("17"),
        lambda: postgres.usable_tools.__wrapped__("18"),
        lambda: redis.programs.__wrapped__(redis.REDIS_6),
        lambda: redis.programs.__wrapped__(redis.VALKEY),
        s3.shared_server.__wrapped__,
        qdrant.program,
    ],
    ids=["PostgreSQL 17", "PostgreSQL 18", "Redis 6", "Valkey", "S3", "Qdrant"],
)
def test_a_server_that_is_absent_is_an_error(start: object) -> None:
    assert callable(start)
    with pytest.raises(ServerAbsentError):
        start()


@pytest.mark.usefixtures("bare")
def test_the_header_names_what_is_absent() -> None:
    told = "\n".join(conftest.pytest_report_header())
    for name in ("PostgreSQL 17", "PostgreSQL 18", "Redis 6.2", "Redis 7.0", "Valkey", "SeaweedFS"):
        assert re.search(rf"ABSENT: .*{re.escape(name)}", told), name
    assert "ABSENT: Qdrant" in told
    assert "ABSENT: chromadb" in told


def test_no_test_is_skipped_because_something_is_not_installed() -> None:
    skipping = [
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if path != Path(__file__) and "importorskip" in path.read_text("utf-8")
    ]
    assert skipping == []
    assert importlib.util.find_spec("chromadb") is not None
