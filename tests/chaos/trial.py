"""The trial: random commands, killed; and what must be true after each."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.chaos.stores import CONFIG, KNOWN, NAMES, Content
from tests.crash_stack import sealed, strays
from tests.crash_world import ROOT, Commands, Ran, World

PATIENCE = 120.0  # seconds for the writer to do what it is told
SIZES = {"backup": 118, "restore": 265, "prune": 60, "verify": 60, "recover": 105}  # steps, about
CHOICES = {"restore": 52, "backup": 32, "prune": 9, "verify": 7}  # how often, in a hundred


class Violation(AssertionError):
    """Something that must be true is not."""


def demand(condition: object, what: str) -> None:
    if not condition:
        raise Violation(what)


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # commands that came to their end
    recovered: Counter[str] = field(default_factory=Counter)  # outcomes of recoveries
    written: int = 0

    @property
    def total(self) -> int:
        return self.kills.total()

    def __str__(self) -> str:
        kills = ", ".join(f"{verb} {count}" for verb, count in sorted(self.kills.items()))
        outcomes = ", ".join(f"{what} {count}" for what, count in sorted(self.recovered.items()))
        ended = self.ended.total()
        return (
            f"{self.total} kills ({kills}); {ended} commands ended by themselves; "
            f"recovered: {outcomes or 'never'}; {self.written} writes acknowledged"
        )


class Application:
    """The writer's process, as the trial sees it."""

    def __init__(self, folder: Path) -> None:
        self._control = folder / "control"
        self._control.mkdir()
        (self._control / "want").write_text("run\n")
        (self._control / "log").touch()
        self._read = 0
        command = [sys.executable, "-m", "tests.chaos.writer", str(folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def want(self, wanted: str) -> None:
        """Tell it to run or to stop, and wait until it does."""
        state = {"run": "running", "stop": "stopped"}[wanted]
        (self._control / "want").write_text(wanted + "\n")
        until = time.monotonic() + PATIENCE
        while not self._is(state):
            demand(time.monotonic() < until, f"the writer does not become {state}")
            demand(self._process.poll() is None, "the writer has died")
            time.sleep(0.01)

    def _is(self, state: str) -> bool:
        path = self._control / "is"
        return path.exists() and path.read_text().strip() == state

    def wanted(self) -> str:
        """Return what the services were last told."""
        return (self._control / "want").read_text().strip()

    def content(self, folder: Path) -> Content:
        """Return what the stores in a folder hold; nobody may be writing there."""
        out = self._control / "content.json"
        out.unlink(missing_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "out": str(out)}) + "\n")
        self._process.stdin.flush()
        demand(self._process.stdout.readline() == "done\n", f"{folder} cannot be read")
        found: Content = json.loads(out.read_text())
        return found

    def heard(self) -> list[str]:
        """Return what was logged since this was asked last."""
        lines = (self._control / "log").read_text().splitlines()
        news, self._read = lines[self._read :], len(lines)
        demand(not any(line.startswith("crashed") for line in news), "the writer has crashed")
        return news


class Trial:
    """One stack, one writer, and as many kills as were asked for."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tally = Tally()
        self._chance = random.Random(seed)
        self._folder = folder
        self._expected: Content = {name: [] for name in NAMES}
        self._backups: dict[str, Content] = {}
        self._since_sweep = 0
        self._sizes = dict(SIZES)

    def run(self, kills: int) -> None:
        """Go on until so many commands were killed; raises `Violation`."""
        (self._folder / "holdfast.yaml").write_text(CONFIG)
        with Commands() as commands, Application(self._folder) as self._application:
            self._world = World(self._folder, commands)
            self._application.want("run")
            time.sleep(1)
            self._cycle("backup", kill=False)
            shown = 0
            while self.tally.total < kills:
                verbs = list(CHOICES)
                (verb,) = self._chance.choices(verbs, [CHOICES[v] for v in verbs])
                self._cycle(verb, kill=True)
                if self.tally.total // 25 > shown:
                    shown = self.tally.total // 25
                    print(self.tally, flush=True)
            self._cycle("backup", kill=False)
            self._tidy()

    # --- one command ---

    def _cycle(self, verb: str, *, kill: bool) -> None:
        known = sealed(self._world)
        before = dict(self._expected)
        target = self._chance.choice(sorted(self._backups)) if self._backups else ""
        words = {
            "restore": ("restore", target, "--yes"),
            "prune": ("prune", "--yes"),
            "verify": ("verify", "all"),
        }.get(verb, (verb,))
        ran = self._run(verb, words, kill=kill)
        self._recover(ran)
        self._compare(verb, target, before)
        self._look_at_vault(verb, known, before)
        if not ran.killed:
            demand(ran.status == 0, f"{words} ended with {ran.status}: {ran.err}")
        self._since_sweep += 1
        if self._since_sweep >= 10:
            self._cycle_of_sweeping()

    def _run(self, verb: str, words: tuple[str, ...], *, kill: bool) -> Ran:
        """Run a command, to be killed at a random step or after a random time."""
        if not kill:
            ran = self._world.holdfast(*words)
        elif self._chance.random() < 0.6:
            # Half of them late, where the switch and the decision are.
            size = self._sizes[verb]
            step = self._chance.randint(self._chance.choice([1, size * 2 // 3]), size)
            ran = self._world.holdfast(*words, kill_at=step, torn=self._chance.random() < 0.5)
        else:
            process = self._world.commands.start(self._folder, *words)
            time.sleep(self._chance.uniform(0.02, 1.5))
            with suppress(ProcessLookupError):  # it was quicker, and may even be waited for
                os.kill(process, signal.SIGKILL)
            ran = self._world.commands.finish()
        (self.tally.kills if ran.killed else self.tally.ended)[verb] += 1
        self._sizes[verb] = ran.steps or self._sizes[verb]  # it grows with what is stored
        return ran

    def _recover(self, ran: Ran) -> None:
        """Recover if that is asked for, sometimes killed in the middle of it as well."""
        while "holdfast recover" in (said := self._world.done("list").err):
            demand(ran.killed, f"a command that was not killed left this: {said}")
            refused = self._world.holdfast("backup")
            demand(refused.status == 1, f"a backup ran on an interrupted restore: {refused.out}")
            kill = self._chance.random() < 0.2
            recovery = self._run("recover", ("recover", "--json"), kill=kill)
            if not recovery.killed:
                demand(recovery.status == 0, f"recovery failed: {recovery.err}")
                self.tally.recovered.update(recovery.document["recovered"].values())

    # --- what must be true ---

    def _compare(self, verb: str, target: str, before: Content) -> None:
        """The live data is what it was and what was written since; or exactly the backup, so."""
        demand(self._application.wanted() == "run", "the services were left stopped")
        self._application.want("run")
        self._application.want("stop")
        news = self._application.heard()
        written = [line.split() for line in news if line[0].isdigit()]
        self.tally.written += len(written)
        stop = next(i for i, line in enumerate(news) if line == "stopped")
        earlier, later = _by_store(news[:stop]), _by_store(news[stop:])
        live = self._application.content(self._folder / "data")
        self._look_for_strays()
        kept = {n: before[n] + earlier[n] + later[n] for n in NAMES}
        possible = {"kept": kept}
        if verb == "restore":
            possible["restored"] = {n: self._backups[target][n] + later[n] for n in NAMES}
        self._timeline = kept
        self._application.want("run")
        if live not in possible.values():
            raise Violation(f"{verb} {target}: {_differences(live, possible)}")
        self._expected = live

    def _look_for_strays(self) -> None:
        found = {path.name for path in (self._folder / "data").iterdir()}
        demand(found <= KNOWN, f"beside the live data: {sorted(found - KNOWN)}")

    def _look_at_vault(self, verb: str, known: dict[str, dict[str, str]], before: Content) -> None:
        now = sealed(self._world)
        listed = self._world.backups()
        demand(listed == now.keys(), f"listed {listed}, there are {now.keys()}")
        for name in now.keys() & known.keys():
            demand(now[name] == known[name], f"{name} was changed")
        gone = known.keys() - now.keys()
        demand(not gone or verb == "prune", f"{verb} deleted {gone}")
        demand(not gone or max(known) in now, "the newest backup was deleted")
        self._world.done("verify", "all")
        for name in sorted(now.keys() - known.keys()):
            self._backups[name] = self._content_of(name)
            self._judge_backup(name, before)
        for name in gone:
            del self._backups[name]

    def _content_of(self, backup: str) -> Content:
        target = self._folder / "target"
        self._world.done("restore", backup, "--target", target, "--yes")
        gathered = self._folder / "gathered"
        gathered.mkdir()
        for store, name in (("logged", "logged.db"), ("plain", "plain.db")):
            (target / store / name).rename(gathered / name)
        for store in ("vectors", "files"):
            (target / store).rename(gathered / store)
        content = self._application.content(gathered)
        shutil.rmtree(gathered)
        shutil.rmtree(target)
        return content

    def _judge_backup(self, name: str, before: Content) -> None:
        """A backup holds all that was acknowledged before it began, and nothing out of order."""
        content = self._backups[name]
        for store in NAMES:
            found, timeline = content[store], self._timeline[store]
            prefix = timeline[: len(found)]
            whole = set(before[store]) <= set(found) <= set(timeline)
            ordered = store == "files" or found == prefix
            demand(whole and ordered, f"{name} {store}: {found[-5:]} is not of {timeline[-9:]}")

    def _cycle_of_sweeping(self) -> None:
        self._since_sweep = -1
        self._cycle("backup", kill=False)
        self._tidy()
        self._since_sweep = 0

    def _tidy(self) -> None:
        demand(strays(self._world) == [], f"left behind: {strays(self._world)}")
        self._world.done("audit", "verify")


def _by_store(lines: list[str]) -> Content:
    found: Content = {name: [] for name in NAMES}
    for line in lines:
        if line[0].isdigit():
            number, store = line.split()
            found[store].append(int(number))
    return found


def _differences(live: Content, possible: dict[str, Content]) -> str:
    lines = []
    for what, content in possible.items():
        for store in NAMES:
            lost = sorted(set(content[store]) - set(live[store]))
            more = sorted(set(live[store]) - set(content[store]))
            lines.append(
                f"{what} {store}: lost {len(lost)} {lost[:5]}, more {len(more)} {more[:5]}"
            )
    return "; ".join(lines)
