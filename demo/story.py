"""The story: an application is backed up while it is written to, loses data, and gets it back.

Two backups are judged, each by the strongest witness there is for it:

- the first is made while the writer goes on. The live application has moved on when the copy is
  looked at, so the writer's own log is the witness: the copy must hold exactly the writes up to its
  instants (see `proof`);
- the last is made when the writer has ended, so the application itself is the witness: what it
  counted and answered before the losses must be what it counts and answers after the restore. This
  is the backup that is restored.

No witness is Holdfast's own word, and every claim on the screen was compared when it is shown.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from . import losses
from .commands import Application, Event, Holdfast, Outcome
from .proof import Judgement, during, judge_cache, judge_rows, judge_vectors, read_log
from .questions import QUESTIONS
from .screen import Screen
from .stages import Stage

BASE = 100  # documents before the first backup
WRITING_SECONDS = 1.0  # that the writer has to itself before and after it
CHECKS = 2  # in holdfast.yaml
REFERENCES_BROKEN = 21  # restored, and checks found something

Report = Mapping[str, Any]


class Story:
    """One run, in a folder that is the caller's to remove."""

    def __init__(self, home: Path, stage: Stage, screen: Screen, sabotage: str = "") -> None:
        """``home`` is an empty folder for the application's own files and its configuration."""
        self._screen = screen
        self._sabotage = sabotage
        self._stage = stage
        self._places = stage.places
        shutil.copy(stage.configuration, home / "holdfast.yaml")
        self._application = Application(self._places, home.parent / "writer.log")
        self._holdfast = Holdfast(home, screen)

    def tell(self) -> None:
        """Tell it from the beginning to the end."""
        try:
            self._begin()
            live = self._back_up_under_writing()
        finally:
            went_on = self._application.stop()
        self._judge(live, went_on=went_on)
        reference = self._back_up_at_rest()
        broken = self._lose(reference)
        self._kill_a_restore(reference, broken)
        self._restore(reference)

    # --- while it is written to ---

    def _begin(self) -> None:
        self._screen.chapter(f"1 An application: {self._stage.stores}")
        begun = time.monotonic()
        with self._screen.waiting("indexing") as advance:
            self._application.start(BASE, advance)
        writes = read_log(self._application.log)
        vectors = sum(write.vectors for write in writes)
        self._screen.say(
            f"{BASE} texts found on this machine, {vectors:,} passages with a vector each",
            time.monotonic() - begun,
        )
        self._screen.say("from now on a writer goes on adding texts and asking questions")
        time.sleep(WRITING_SECONDS)

    def _back_up_under_writing(self) -> Outcome:
        self._screen.chapter("2 Backed up while it is written to")
        begun = time.time()
        outcome = self._succeeds("backup")
        ended = time.time()
        time.sleep(WRITING_SECONDS)  # the writes that the end of the backup delayed are in the log
        meanwhile = during(read_log(self._application.log), begun, ended)
        waited = [write.seconds * 1000 for write in meanwhile] or [0.0]
        self._screen.say(
            f"{outcome.document.get('size', 0) / 1e6:.1f} MB, "
            f"skew {outcome.document.get('skew_seconds', 0) * 1000:.0f} ms; "
            f"{len(meanwhile)} writes went on meanwhile, "
            f"the longest took {max(waited):.0f} ms (median {median(waited):.0f} ms)"
        )
        self._screen.claim(
            "the writer wrote during the backup",
            holds=len(meanwhile) > 1,
            otherwise="it stood still",
        )
        verified = self._succeeds("verify", "latest", "--level", "native")
        proofs = verified.document.get("verified", [])
        self._screen.claim(
            "every byte was read back, and every store of the copy opened and counted",
            holds=bool(proofs) and all(proof["passed"] for proof in proofs),
            otherwise=str(proofs),
        )
        return outcome

    def _judge(self, backup: Outcome, *, went_on: bool) -> None:
        """Restore the first backup to the side, and judge it by the writer's log."""
        self._screen.claim(
            "the writer never failed", holds=went_on, otherwise="it had ended by itself"
        )
        restored = self._holdfast.run("restore", "latest", *self._stage.targets)
        problem = restored.said.splitlines()[0] if restored.said else "it said nothing"
        self._screen.claim(
            "it is restored beside the live data",
            holds=restored.status in {0, REFERENCES_BROKEN},
            otherwise=problem,
        )
        report = self._application.report(self._stage.side)
        if self._is_broken(report):
            return
        writes = read_log(self._application.log)
        rows = judge_rows(writes, report, _instant(backup, "rows"))
        slack = backup.seconds if self._stage.asks_for_snapshots else 0.0
        vectors = judge_vectors(writes, report, _instant(backup, "vectors"), slack)
        texts = sum(write.kind == "document" for write in writes)
        self._show_judgement("rows", rows, len(writes), "writes")
        self._show_judgement("vectors", vectors, texts, "texts")
        if self._places.cache:
            cache = judge_cache(writes, report, _instant(backup, "cache"))
            self._show_judgement("counters", cache, texts, "texts")
        self._show_faults(report, may_be_ahead=restored.status == REFERENCES_BROKEN)

    def _show_judgement(self, what: str, judgement: Judgement, count: int, of: str) -> None:
        self._screen.claim(
            f"its {what} are exactly the first {judgement.first} of {count} {of}: all up to then",
            holds=not judgement.problem and judgement.first > 0,
            otherwise=judgement.problem,
        )

    def _show_faults(self, report: Report, *, may_be_ahead: bool) -> None:
        """Nothing may be missing; vectors may be ahead by what was written within the skew."""
        faults = dict(report["faults"])
        ahead = faults.pop("vectors without a chunk")
        self._screen.claim(
            "no passage lacks its vector, each vector is that of its text, each file is whole",
            holds=not any(faults.values()),
            otherwise=_listed(faults),
        )
        self._screen.claim(
            f"vectors written within the skew, whose rows came too late: {ahead}, and reported so",
            holds=bool(ahead) == may_be_ahead,
            otherwise="the restore's own checks say otherwise",
        )

    # --- at rest ---

    def _back_up_at_rest(self) -> Report:
        self._screen.chapter(
            "3 The writer has ended; what the application answers now is noted down"
        )
        reference = self._application.report()
        if self._is_broken(reference):
            return reference
        answer = reference["answers"][0][0]
        self._screen.say(f"“{QUESTIONS[0]}” {answer['title']}: {' '.join(answer['text'].split())}")
        outcome = self._succeeds("backup")
        ours, theirs = reference["counts"], _counts(outcome, self._stage.counts)
        self._screen.claim(
            "the manifest agrees: " + _listed(ours),
            holds=ours == theirs,
            otherwise=_listed(theirs),
        )
        return reference

    def _lose(self, reference: Report) -> Report:
        self._screen.chapter("4 Three losses")
        gone = losses.delete_rows(self._places)
        self._show_loss(f"a clean-up with a wrong condition deletes {gone} documents", reference)
        losses.remove_vectors(self._places)
        self._show_loss(self._stage.vectors_gone, reference)
        spoiled = losses.overwrite_files(self._places)
        return self._show_loss(f"{spoiled} uploads and settings are overwritten", reference)

    def _show_loss(self, text: str, reference: Report) -> Report:
        now = self._application.report()
        same = _same_answers(reference, now)
        lost = now.get("faults", {}).get("uploads lost or altered", 0)
        files = f", {lost} files spoiled" if lost else ""
        self._screen.say(f"{text}: {same} of {len(QUESTIONS)} answers left{files}")
        return now

    # --- and back ---

    def _kill_a_restore(self, reference: Report, broken: Report) -> None:
        self._screen.chapter("5 Restored, and killed in the middle of it")
        killed = self._holdfast.run("restore", "latest", "--yes", kill_at=_switching)
        self._screen.claim(
            "it was killed while it switched the stores",
            holds=killed.status < 0,
            otherwise=f"it ended with {killed.status}: {killed.said}",
        )
        self._succeeds("recover")
        now = self._application.report()
        undone, finished = _same(now, broken), _same(now, reference)
        how = "finished: everything is restored" if finished else "undone: everything is as it was"
        self._screen.claim(
            f"all or nothing: the restore was {how}",
            holds=undone or finished,
            otherwise="the stores are neither as before nor as after: " + _differences(now, broken),
        )

    def _restore(self, reference: Report) -> None:
        self._screen.chapter("6 Restored")
        self._succeeds("restore", "latest", "--yes")
        if self._sabotage:
            losses.sabotage(self._places, self._sabotage)
        now = self._application.report()
        if self._is_broken(now):
            return
        same = _same_answers(reference, now)
        self._screen.claim(
            f"{same} of {len(QUESTIONS)} answers are the same, word for word",
            holds=same == len(QUESTIONS),
        )
        self._screen.claim(
            "every count is back: " + _listed(now["counts"]),
            holds=now["counts"] == reference["counts"],
            otherwise=_differences(now, reference),
        )
        self._screen.claim(
            "every row, vector, file and setting is the same, bit for bit",
            holds=_same(now, reference),
            otherwise="different: " + _differences(now, reference),
        )
        checked = self._succeeds("check").document
        self._screen.claim(
            f"{len(checked.get('integrity', []))} stores are sound, and their references whole",
            holds=checked.get("passed", False) and checked.get("checks") == CHECKS,
            otherwise=_found(checked),
        )

    # --- helpers ---

    def _succeeds(self, *words: str) -> Outcome:
        """Run a command that must end with 0; only a failure is worth a line of its own."""
        outcome = self._holdfast.run(*words)
        if outcome.status != 0:
            self._screen.claim(
                f"`holdfast {words[0]}` ends with 0",
                holds=False,
                otherwise=f"{outcome.status}: {' '.join(outcome.said.split())}",
            )
        return outcome

    def _is_broken(self, report: Report) -> bool:
        problem = report.get("problem", "")
        if problem:
            self._screen.claim("the application starts", holds=False, otherwise=problem)
        return bool(problem)


def _switching(event: Event) -> bool:
    return (event["event"], event.get("step")) == ("StepStarted", "switch")


def _instant(backup: Outcome, component: str) -> float:
    """Return when a component was held still; 0 where the backup says nothing of it."""
    found = backup.document.get("components", {}).get(component, {}).get("instant")
    return datetime.fromisoformat(found).timestamp() if found else 0.0


def _counts(backup: Outcome, names: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    """Return a manifest's counts under the application's names for them."""
    parts = backup.document.get("components", {})
    return {
        name: parts.get(component, {}).get("counts", {}).get(count, -1)
        for name, (component, count) in names.items()
    }


def _found(checked: Report) -> str:
    """Return what `holdfast check` found wrong, in one line."""
    integrity = [line for lines in checked.get("integrity", {}).values() for line in lines]
    violated = [f"{one['check']}: {one['count']}" for one in checked.get("violations", [])]
    return "; ".join(integrity + violated) or "nothing was checked"


def _same(one: Report, other: Report) -> bool:
    return not _different(one, other)


def _different(one: Report, other: Report) -> list[str]:
    if "digests" not in one or "digests" not in other:
        return ["the application does not start"]
    return [name for name, digest in one["digests"].items() if digest != other["digests"][name]]


def _differences(one: Report, other: Report) -> str:
    return ", ".join(_different(one, other))


def _same_answers(one: Report, other: Report) -> int:
    pairs = zip(one.get("answers", []), other.get("answers", []), strict=False)
    return sum(mine == theirs for mine, theirs in pairs)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
