"""One server of commands for all tests that crash them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash_world import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    with Commands() as server:
        yield server
