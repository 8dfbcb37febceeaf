"""A short chaos; ``make chaos`` runs a long one."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.trial import Trial, Violation
from tests.crash_world import Ran


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_nothing_is_lost_in_a_short_chaos(tmp_path: Path) -> None:
    seed = secrets.randbelow(1 << 32)
    trial = Trial(tmp_path, seed)
    try:
        trial.run(15)
    except AssertionError as violation:
        violation.add_note(f"seed {seed}")
        raise
    assert trial.tally.total >= 15


class Saboteur(Trial):
    """A trial in which something takes a write away that was acknowledged."""

    def _recover(self, ran: Ran) -> None:
        super()._recover(ran)
        with closing(sqlite3.connect(self._folder / "data" / "plain.db", timeout=60)) as database:
            database.execute("DELETE FROM numbers WHERE number = (SELECT min(number) FROM numbers)")
            database.commit()


@pytest.mark.slow
def test_a_write_that_is_lost_is_seen(tmp_path: Path) -> None:
    with pytest.raises(Violation, match="plain: lost 1"):
        Saboteur(tmp_path, 1).run(1)
