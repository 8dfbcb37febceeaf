"""Every port fails at every call: a backup is whole or absent, a restore is all old or all new."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    Cancelled,
    HoldfastError,
    NoSpace,
    NothingBackedUp,
    RestoreRolledBack,
    RollbackIncomplete,
    ServicesDown,
    SettleIncomplete,
    SourceUnstable,
    VaultUnavailable,
)
from holdfast.model.artifact import Chunks
from holdfast.model.events import Event
from holdfast.model.manifest import Manifest, Status
from holdfast.ports import Source, Vault
from holdfast.runtime import journal
from holdfast.testing.faults import Calls, FaultySource, FaultyVault
from holdfast.testing.memory_source import MemorySource, World
from holdfast.testing.memory_vault import MemoryVault
from holdfast.verbs.backup import BackupRequest, BackupResult, back_up
from holdfast.verbs.recover import recover
from holdfast.verbs.restore import RestoreRequest, Transaction, restore
from holdfast.verbs.surroundings import Surroundings

NAMES = ("projects", "memory", "uploads")
MOST_CALLS = 80
WAYS = [
    pytest.param(
        after, for_ever, id=f"{'after' if after else 'before'}-{'ever' if for_ever else 'once'}"
    )
    for after in (False, True)
    for for_ever in (False, True)
]


class Clock:
    """A clock that goes on by a second whenever it is asked."""

    def __init__(self) -> None:
        self.seconds = 0

    def now(self) -> datetime:
        self.seconds += 1
        return datetime(2026, 11, 20, 10, self.seconds // 60 % 60, self.seconds % 60, tzinfo=UTC)

    def monotonic(self) -> float:
        return float(self.seconds)


@dataclass
class Scene:
    """Three live stores in a dictionary, two vaults, and what was said."""

    folder: Path
    live: World = field(default_factory=dict)
    vaults: list[MemoryVault] = field(default_factory=lambda: [MemoryVault("a"), MemoryVault("b")])
    events: list[Event] = field(default_factory=list)
    at_event: Callable[[int], None] = lambda _number: None
    _hearing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.fill("first")

    def fill(self, generation: str) -> None:
        for name in NAMES:
            self.live[f"/live/{name}"] = {
                "one": f"{name} {generation}".encode(),
                generation: bytes(200_000) if name == "memory" else b"x",
            }

    def source(self, name: str) -> MemorySource:
        return MemorySource(name, Path("/live", name), self.live)

    @property
    def around(self) -> Surroundings:
        return Surroundings(Clock(), self._hear, self.folder)

    def _hear(self, event: Event) -> None:
        with self._hearing:  # two readers at once must not both be the fifth
            self.events.append(event)
            number = len(self.events)
        self.at_event(number)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def request(scene: Scene, sources: Sequence[Source], vaults: Sequence[Vault]) -> BackupRequest:
    del scene
    return BackupRequest("brain", sources, vaults)


def ordinary(scene: Scene) -> list[Source]:
    return [scene.source(name) for name in NAMES]


def only(vault: MemoryVault) -> Manifest:
    """Return the manifest of the one backup there is."""
    (manifest,) = vault.manifests()
    assert isinstance(manifest, Manifest)
    return manifest


def assert_whole(vault: MemoryVault, names: Sequence[str] = NAMES) -> None:
    """Exactly one backup, which verifies, and holds these components and nothing of others."""
    manifest = only(vault)
    assert vault.verify(manifest, lambda _done: None) == []
    done = [c.name for c in manifest.components if c.status == "completed"]
    assert sorted(done) == sorted(names)
    assert {stored.component for stored in manifest.artifacts} == set(names)
    assert vault._drafts == set()


def empty(vault: MemoryVault) -> bool:
    return not vault.boxes and not vault._drafts


# --- backup ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after", "for_ever"), WAYS)
def test_whatever_fails_in_one_vault_the_other_has_all_of_it(
    tmp_path: Path, *, after: bool, for_ever: bool
) -> None:
    for number in range(1, MOST_CALLS):
        scene = Scene(tmp_path / str(number))
        failing, sound = scene.vaults
        calls = Calls(fail_at=number, after=after, for_ever=for_ever)
        vaults: list[Vault] = [FaultyVault(failing, calls), sound]
        result = back_up(request(scene, ordinary(scene), vaults), scene.around)
        assert_whole(sound)
        assert result.failures == {}
        assert ("a" in result.sealed) != ("a" in result.lost_vaults), number
        if failing.boxes:
            assert_whole(failing)
        else:
            assert empty(failing)
            assert "a" in result.lost_vaults
        if calls.total < number:
            assert result.complete
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize(("after", "for_ever"), WAYS)
def test_whatever_fails_in_the_only_vault_nothing_half_made_is_left(
    tmp_path: Path, *, after: bool, for_ever: bool
) -> None:
    for number in range(1, MOST_CALLS):
        scene = Scene(tmp_path / str(number))
        vault = scene.vaults[0]
        calls = Calls(
            fail_at=number, after=after, for_ever=for_ever, error=lambda: NoSpace(path="disk")
        )
        try:
            back_up(request(scene, ordinary(scene), [FaultyVault(vault, calls)]), scene.around)
        except NoSpace:
            assert empty(vault) or after
        if vault.boxes:
            assert_whole(vault)
        if calls.total < number:
            return
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_source_that_fails_is_dropped_and_the_backup_is_partial(
    tmp_path: Path, name: str, *, after: bool
) -> None:
    others = [other for other in NAMES if other != name]
    for number in range(1, MOST_CALLS):
        scene = Scene(tmp_path / str(number))
        calls = Calls(fail_at=number, after=after, error=unstable, only=("freeze", "release"))
        sources = [s if s.name != name else FaultySource(s, calls) for s in ordinary(scene)]
        result = back_up(request(scene, sources, scene.vaults), scene.around)
        if calls.total < number:
            assert result.complete
            return
        assert list(result.failures) == [name]
        for vault in scene.vaults:
            assert_whole(vault, others)
            assert result.sealed[vault.name].status is Status.PARTIAL
            assert not result.sealed[vault.name].good
    raise AssertionError("it never came to an end")


def unstable() -> HoldfastError:
    return SourceUnstable(component="x", path="/x", reason="it was made to fail")


def dying(at: int, error: Callable[[], BaseException] = unstable) -> Callable[[Chunks], Chunks]:
    """Give chunks until so many bytes came, and then raise."""

    def through(chunks: Chunks) -> Chunks:
        given = 0
        for chunk in chunks:
            if given + len(chunk) > at:
                yield chunk[: at - given]
                raise error()
            given += len(chunk)
            yield chunk
        raise error()

    return through


@pytest.mark.parametrize("vaults", [1, 2])
@pytest.mark.parametrize("at", [0, 10, 100_000, 9 << 20])
@pytest.mark.parametrize("error", [unstable, lambda: NoSpace(path="/scratch")])
def test_a_source_that_dies_while_it_is_read_is_dropped(
    scene: Scene, at: int, vaults: int, error: Callable[[], HoldfastError]
) -> None:
    sources = ordinary(scene)
    sources[1] = FaultySource(sources[1], Calls(), frozen=dying(at, error))
    result = back_up(request(scene, sources, scene.vaults[:vaults]), scene.around)
    assert list(result.failures) == ["memory"]
    for vault in scene.vaults[:vaults]:
        assert_whole(vault, ["projects", "uploads"])


def test_source_and_vault_failing_together_leave_the_other_vault_a_partial_backup(
    scene: Scene,
) -> None:
    sources = ordinary(scene)
    sources[1] = FaultySource(sources[1], Calls(), frozen=dying(100_000))
    for number in range(1, 9):
        scene.vaults = [MemoryVault("a"), MemoryVault("b")]
        calls = Calls(fail_at=number, for_ever=True, only=("put", "discard", "seal", "draft"))
        vaults: list[Vault] = [FaultyVault(scene.vaults[0], calls), scene.vaults[1]]
        result = back_up(request(scene, sources, vaults), scene.around)
        assert list(result.failures) == ["memory"], number
        assert_whole(scene.vaults[1], ["projects", "uploads"])
        assert empty(scene.vaults[0]) or "a" in result.sealed


def test_two_vaults_that_fail_for_their_own_reasons_leave_nothing(scene: Scene) -> None:
    vaults = [FaultyVault(v, Calls(fail_at=1, for_ever=True, only=("put",))) for v in scene.vaults]
    with pytest.raises(VaultUnavailable):
        back_up(request(scene, ordinary(scene), vaults), scene.around)
    assert all(empty(vault) for vault in scene.vaults)


def test_nothing_is_sealed_when_every_source_fails(scene: Scene) -> None:
    calls = Calls(fail_at=1, for_ever=True, error=unstable, only=("freeze",))
    sources = [FaultySource(source, calls) for source in ordinary(scene)]
    with pytest.raises(NothingBackedUp):
        back_up(request(scene, sources, scene.vaults), scene.around)
    assert all(empty(vault) for vault in scene.vaults)


def test_a_bug_in_a_source_seals_nothing(scene: Scene) -> None:
    sources = ordinary(scene)
    sources[1] = FaultySource(sources[1], Calls(), frozen=dying(10, lambda: ValueError("bug")))
    with pytest.raises(ValueError, match="bug"):
        back_up(request(scene, sources, scene.vaults), scene.around)
    assert all(empty(vault) for vault in scene.vaults)


@contextmanager
def interrupts(scene: Scene, *at: int) -> Iterator[None]:
    """Send a real Ctrl-C when the n-th thing happens; the first raises, as the program has it."""

    def strike(number: int) -> None:
        if number in at:
            signal.raise_signal(signal.SIGINT)

    scene.at_event = strike
    try:
        yield
    finally:
        scene.at_event = lambda _number: None


def test_an_interrupted_backup_is_in_all_vaults_or_in_none(tmp_path: Path) -> None:
    for number in range(1, MOST_CALLS):
        scene = Scene(tmp_path / str(number))
        result: BackupResult | None = None
        try:
            with interrupts(scene, number):
                result = back_up(request(scene, ordinary(scene), scene.vaults), scene.around)
        except KeyboardInterrupt:
            assert all(empty(vault) for vault in scene.vaults), number
        else:
            for vault in scene.vaults:
                assert_whole(vault)
        if len(scene.events) < number:
            assert result is not None
            assert result.complete
            assert not result.cancelled
            return
        assert result is None or result.cancelled
    raise AssertionError("it never came to an end")


# --- restore --------------------------------------------------------------------------------------


class Services:
    """Services that remember whether they run."""

    def __init__(self, calls: Calls | None = None, *, watched: bool = False) -> None:
        self.running = True
        self.watched = watched
        self._calls = calls or Calls()

    def stop(self) -> bool:
        with self._calls.call("stop"):
            self.running = False
        return True

    def start(self) -> None:
        with self._calls.call("start"):
            self.running = True

    def check(self) -> None:
        with self._calls.call("check"):
            assert self.running


class FaultyJournal:
    """A journal whose records may fail to be written, or be written and then fail."""

    def __init__(self, log: journal.Journal, calls: Calls) -> None:
        self._log = log
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._log, name)

        def counted(*arguments: Any) -> Any:
            if name == "settle":  # a journal promises that a decision which fails is not recorded
                with self._calls.call(name):
                    pass
                return method(*arguments)
            with self._calls.call(name):
                return method(*arguments)

        return counted


class Restoring:
    """A restore over three live stores, with faults in what the calls are for."""

    def __init__(
        self,
        folder: Path,
        *,
        sources: Calls | None = None,
        log: Calls | None = None,
        services: Calls | None = None,
        watched: bool = False,
        fence: Calls | None = None,
    ) -> None:
        self.scene = Scene(folder)
        back_up(request(self.scene, ordinary(self.scene), self.scene.vaults), self.scene.around)
        self.new = {name: self.scene.source(name).content for name in NAMES}
        self.scene.fill("second")
        self.old = {name: self.scene.source(name).content for name in NAMES}
        self.scene.events.clear()
        self.services = Services(services, watched=watched)
        self._sources = sources or Calls()
        self._log = log or Calls()
        self._fence = fence or Calls()

    def source(self, name: str) -> Source:
        return FaultySource(self.scene.source(name), self._sources)

    def run(self) -> None:
        """Restore, for the source's part."""
        vault = self.scene.vaults[0]
        targets = [self.source(name) for name in NAMES]
        asked = RestoreRequest(vault, only(vault), targets, Path("/staging"), attic=Path("/attic"))
        with journal.begin(self.scene.folder, "run", "brain", "b", "a", NAMES, {}) as log:
            faulty: Any = FaultyJournal(log, self._log)
            restore(asked, Transaction("run", faulty, self.services, self.fence), self.scene.around)

    def fence(self) -> None:
        with self._fence.call("fence"):
            pass

    @property
    def waiting(self) -> bool:
        return bool(journal.open_journals(self.scene.folder))

    def recover(self) -> str:
        """Put it right in a sound world; returns the outcome, empty where nothing waited."""
        if not self.waiting:
            return ""
        services = Services()
        services.running = self.services.running
        self.services = services
        with journal.reopen(self.scene.folder, "run") as log:
            return recover(
                log.state,
                self.scene.source,
                Path("/attic"),
                Transaction("run", log, services, lambda: None),
                self.scene.around,
            )

    @property
    def live(self) -> dict[str, Any]:
        return {name: self.scene.source(name).content for name in NAMES}

    def strays(self) -> list[str]:
        return [place for place in self.scene.live if "~" in place]


def each_failure(
    folder: Path, over: str, *, after: bool, for_ever: bool, watched: bool = False
) -> Iterator[tuple[int, Restoring, BaseException | None]]:
    """Restore once for each call that can fail; gives the world after it, and what was raised."""
    for number in range(1, MOST_CALLS):
        calls = Calls(fail_at=number, after=after, for_ever=for_ever, error=unstable)
        faults: dict[str, Any] = {over: calls}
        restoring = Restoring(folder / str(number), watched=watched, **faults)
        raised = None
        try:
            restoring.run()
        except HoldfastError as error:
            raised = error
        if calls.total < number:
            assert raised is None
            assert restoring.live == restoring.new
            return
        yield number, restoring, raised
    raise AssertionError("it never came to an end")


def settle_accounts(number: int, restoring: Restoring, raised: BaseException | None) -> None:
    """What was said must be true now, and after a recovery all is old, or all is new."""
    in_force = raised is None or isinstance(raised, SettleIncomplete | ServicesDown)
    expected = restoring.new if in_force else restoring.old
    if isinstance(raised, RollbackIncomplete):
        assert restoring.waiting, number
    elif in_force or not restoring.waiting:
        assert restoring.live == expected, number
    if raised is None:
        assert not restoring.waiting, number
    assert restoring.recover() in {"", "completed" if in_force else "rolled_back"}, number
    assert restoring.live == expected, number
    assert restoring.strays() == [], number
    assert not restoring.waiting, number


@pytest.mark.parametrize(("after", "for_ever"), WAYS)
@pytest.mark.parametrize("over", ["sources", "log", "fence"])
def test_whatever_fails_the_live_data_is_all_old_or_all_new(
    tmp_path: Path, over: str, *, after: bool, for_ever: bool
) -> None:
    for trial in each_failure(tmp_path, over, after=after, for_ever=for_ever):
        settle_accounts(*trial)
        assert trial[1].services.running, trial[0]


@pytest.mark.parametrize(("after", "for_ever"), WAYS)
@pytest.mark.parametrize("watched", [False, True])
def test_services_that_fail_do_not_harm_the_data(
    tmp_path: Path, *, after: bool, for_ever: bool, watched: bool
) -> None:
    trials = each_failure(tmp_path, "services", after=after, for_ever=for_ever, watched=watched)
    for number, restoring, raised in trials:
        assert raised is not None
        settle_accounts(number, restoring, raised)
        assert restoring.services.running or for_ever or isinstance(raised, ServicesDown)


def test_services_that_could_not_all_be_stopped_are_started_again(tmp_path: Path) -> None:
    calls = Calls(fail_at=1, after=True, error=unstable, only=("stop",))
    restoring = Restoring(tmp_path, services=calls)
    with pytest.raises(SourceUnstable):
        restoring.run()
    assert restoring.services.running
    assert restoring.live == restoring.old


def test_a_way_back_that_fails_for_one_is_gone_for_the_others(tmp_path: Path) -> None:
    restoring = Restoring(tmp_path)
    broken = Calls(fail_at=1, for_ever=True, error=lambda: OSError("unforeseen"), only=("revert",))
    source = restoring.source

    def partly_broken(name: str) -> Source:
        if name == "memory":
            return FaultySource(restoring.scene.source(name), broken)
        return source(name)

    restoring.source = partly_broken  # type: ignore[method-assign]
    restoring._log = Calls(fail_at=1, error=unstable, only=("settle",))
    with pytest.raises(RollbackIncomplete, match="unforeseen"):
        restoring.run()
    live = restoring.live
    assert live == restoring.old | {"memory": restoring.new["memory"]}
    assert restoring.recover() == "rolled_back"
    assert restoring.live == restoring.old
    assert restoring.strays() == []


def test_a_failure_after_the_switch_says_that_all_was_put_back(tmp_path: Path) -> None:
    restoring = Restoring(tmp_path, fence=Calls(fail_at=2, error=unstable))
    with pytest.raises(RestoreRolledBack):
        restoring.run()
    assert restoring.live == restoring.old
    assert not restoring.waiting


@pytest.mark.parametrize("watched", [False, True])
def test_services_start_before_the_decision_only_where_they_can_be_asked(
    tmp_path: Path, *, watched: bool
) -> None:
    running: list[bool] = []

    def refusal() -> HoldfastError:
        running.append(restoring.services.running)
        return unstable()

    log = Calls(fail_at=1, only=("settle",), error=refusal)
    restoring = Restoring(tmp_path, watched=watched, log=log)
    with pytest.raises(RestoreRolledBack):
        restoring.run()
    assert running == [watched]
    assert restoring.live == restoring.old


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("again", [0, 1, 3])
def test_an_interrupted_restore_is_put_back_or_finished(
    tmp_path: Path, again: int, *, watched: bool
) -> None:
    finished = 0
    with ExitStack() as handlers:
        handlers.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        for number in range(1, MOST_CALLS):
            signal.signal(signal.SIGINT, _once)
            restoring = Restoring(tmp_path / str(number), watched=watched)
            cancelled = False
            try:
                with interrupts(restoring.scene, number, number + again):
                    restoring.run()
            except (KeyboardInterrupt, Cancelled):
                cancelled = True
            assert restoring.live == (restoring.old if cancelled else restoring.new), number
            assert not restoring.waiting, number
            assert restoring.services.running, number
            assert restoring.strays() == [], number
            if len(restoring.scene.events) < number:
                assert finished > 0
                assert not cancelled
                return
            finished += not cancelled
    raise AssertionError("it never came to an end")


def _once(_number: int, _frame: object) -> None:
    """As the command line has it: the first Ctrl-C raises, the later ones are passed over."""
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    raise KeyboardInterrupt
