"""Repositories in a bucket on bad days: several at once, servers that are busy, cut off or late."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from holdfast.errors import LOCKED, HoldfastError, RepositoryLocked
from holdfast.model.artifact import Chunks
from holdfast.model.manifest import Manifest
from holdfast.ports import Store
from holdfast.s3 import http as s3_http
from holdfast.stores import _s3_read
from holdfast.testing._trips import read_artifact
from holdfast.testing.faults import Calls, FaultyStore
from holdfast.vaults.repository import locks
from holdfast.vaults.repository.vault import RepositoryVault
from servers.proxy import FAILURE, Proxy, Trouble
from servers.s3 import SECRET, shared_server
from tests.restic_world import RESTICS, restic
from tests.stores_world import s3_store, shared_bucket
from tests.upkeep_world import contents, keep, new_vault, small_packs, vault_on

pytestmark = [pytest.mark.timeout(120)]
BUSY = FAILURE % (503, 8, b"SlowDown")


@pytest.fixture
def prefix() -> str:
    return secrets.token_hex(6)


def check(prefix: str) -> None:
    """Let a real restic look at everything there is."""
    url = f"s3:{shared_server().endpoint}/{shared_bucket()}/{prefix}"
    restic("0.18", url, "check", "--read-data")


needs_restic = pytest.mark.skipif(not Path(RESTICS["0.18"]).exists(), reason="restic is absent")


# --- several at once ---


class LateStore(FaultyStore):
    """A store whose lists show what is new only after a while, and what is gone at once.

    ``put_at`` is what all clients of one server share: when each name came.
    """

    LAG = 0.75 * locks.LATE

    def __init__(self, store: Store, put_at: dict[str, float]) -> None:
        super().__init__(store, Calls())
        self._put_at = put_at

    def put(self, name: str, chunks: Chunks) -> int:
        size = super().put(name, chunks)
        self._put_at[name] = time.monotonic()
        return size

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        settled = time.monotonic() - self.LAG
        found = super().sizes(prefix)
        yield from (one for one in found if self._put_at.get(one[0], 0.0) < settled)

    def names(self, prefix: str = "") -> Iterator[str]:
        return (name for name, _size in self.sizes(prefix))


@needs_restic
@pytest.mark.parametrize("late", [False, True], ids=["prompt", "late"])
def test_two_writers_and_a_pruner(
    prefix: str, monkeypatch: pytest.MonkeyPatch, *, late: bool
) -> None:
    """The pruner is refused while others write, or they wait; nothing that was sealed is lost."""
    monkeypatch.setattr(locks, "_ASKED_AGAIN", 0.05)
    put_at: dict[str, float] = {}

    def vault(**options: Any) -> RepositoryVault:
        store = s3_store(prefix=f"{prefix}/")
        return vault_on(LateStore(store, put_at) if late else store, **options)

    keep(new_vault(s3_store(prefix=f"{prefix}/")), 0, range(4))

    def write(lane: int) -> list[str]:
        own, made = vault(lock_wait=60), []
        for turn in range(3):
            made.append(keep(own, 10 * lane + turn, range(turn, turn + 5)).id)
            if turn == 1:
                own.delete(made.pop(0))
        return made

    def tidy() -> list[int]:
        own, ended = vault(lock_wait=1), []
        for _turn in range(5):
            try:
                own.prune(tolerated=0.0)
                ended.append(0)
            except RepositoryLocked as error:
                ended.append(error.exit_status)
        return ended

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(write, lane) for lane in (1, 2)]
        pruner = threads.submit(tidy)
        kept = {backup_id for writer in writers for backup_id in writer.result()}
        assert set(pruner.result()) <= {0, LOCKED}
    time.sleep(LateStore.LAG if late else 0.0)
    before = read(vault())
    assert kept < before.keys()
    vault().prune(tolerated=0.0)
    assert read(vault()) == before
    check(prefix)


def read(vault: RepositoryVault) -> dict[str, object]:
    """Read every backup, without waiting for listings at each of the many locks for that."""
    with patch.object(locks, "LATE", 0.0):
        return contents(vault)


@pytest.mark.parametrize("upkeep", ["prune", "repair_index"])
def test_who_reads_after_upkeep_finds_the_new_index(prefix: str, upkeep: str) -> None:
    """However late lists show it; the old one is gone at once."""
    new_vault(s3_store(prefix=f"{prefix}/"))
    store = LateStore(s3_store(prefix=f"{prefix}/"), {})
    vault = vault_on(store)
    with small_packs():
        first, second = keep(vault, 0, range(8)), keep(vault, 1, range(4, 12))
    time.sleep(LateStore.LAG)
    vault.delete(first.id)
    with small_packs():
        getattr(vault, upkeep)()
    assert list(vault_on(store).manifests()) == [second]


# --- servers in trouble ---


class RoughProxy(Proxy):
    """A proxy that makes trouble for most connections, of every kind, as chance has it."""

    def roughly(self, seed: int) -> None:
        """Begin: connections that live already are cut."""
        chance = random.Random(seed)
        self._planned = [self._trouble(chance) for _connection in range(5000)]
        self.cut_now()

    def honestly(self) -> None:
        """Make no more trouble."""
        self._planned = []
        self.cut_now()

    @staticmethod
    def _trouble(chance: random.Random) -> Trouble:
        size = round(10 ** chance.uniform(1, 4.5))
        kinds = (
            Trouble(answer=BUSY),
            Trouble(down=size),
            Trouble(up=size),
            Trouble(refuse=True),
            Trouble(delay=0.002),
            Trouble(),
        )
        return chance.choices(kinds, (3, 3, 3, 1, 1, 2))[0]


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[RoughProxy]:
    monkeypatch.setattr(s3_http, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(_s3_read, "FIRST_PAUSE", 0.002)
    monkeypatch.setattr(locks, "LATE", 0.0)
    with RoughProxy(shared_server().port) as proxy:
        yield proxy


@needs_restic
@pytest.mark.parametrize("seed", range(4))
def test_whatever_the_server_does_nothing_is_lost(
    prefix: str, proxy: RoughProxy, seed: int
) -> None:
    """Each of backup, restore and prune succeeds or ends with one clear error; then it works."""
    quiet = new_vault(s3_store(prefix=f"{prefix}/"))
    with small_packs():
        first, _second = keep(quiet, 0, range(10)), keep(quiet, 1, range(5, 15))
    before = contents(quiet)
    rough = vault_on(s3_store(prefix=f"{prefix}/", endpoint=f"http://127.0.0.1:{proxy.port}"))

    def attempt(work: Callable[[], object]) -> None:
        proxy.roughly(seed)
        said = outcome(work)
        proxy.honestly()
        quiet.unlock(everything=True)  # of a run that could not even delete its lock
        assert "\n" not in said
        assert SECRET not in said

    def back_up(vault: RepositoryVault) -> None:
        with small_packs():
            keep(vault, 2, range(12, 30))

    def prune(vault: RepositoryVault) -> None:
        with small_packs():
            vault.prune(tolerated=0.0)

    attempt(lambda: back_up(rough))
    assert before.items() <= contents(quiet).items()
    if len(contents(quiet)) == len(before):
        back_up(quiet)
    after = contents(quiet)
    assert len(after) == 3

    attempt(lambda: contents_equal(rough, after))
    quiet.delete(first.id)
    del after[first.id]
    attempt(lambda: prune(rough))
    assert contents(vault_on(s3_store(prefix=f"{prefix}/"))) == after
    prune(quiet)
    assert contents(vault_on(s3_store(prefix=f"{prefix}/"))) == after
    check(prefix)


def outcome(work: Callable[[], object]) -> str:
    """Do something; return the error that it ended with, and nothing if it did not."""
    try:
        work()
    except HoldfastError as error:
        return str(error)
    return ""


def contents_equal(vault: RepositoryVault, wanted: dict[str, object]) -> None:
    """See that a restore gives the right bytes, if it gives any."""
    for manifest in vault.manifests():
        assert isinstance(manifest, Manifest)
        found = [read_artifact(vault.artifact(manifest, one)) for one in manifest.artifacts]
        assert found == wanted[manifest.id]
