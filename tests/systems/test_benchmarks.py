from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.measure import BenchmarkFailed, Command, Figures, Sample, alternate, run, shell
from benchmarks.page import renewed, whole
from benchmarks.table import Row, Section, seconds_row, text, unmet

ROOT = Path(__file__).parents[2]


def figures(*seconds: float, finished: bool = True) -> Figures:
    return Figures("it", tuple(Sample(s, 1_000_000, finished=finished) for s in seconds))


def test_commands_are_run_in_turn_and_the_first_round_is_not_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    one, other = (Command(name, shell(f"echo {name} >> {log}")) for name in "ab")

    measured = alternate([one, other], 2)

    assert log.read_text().split() == ["a", "b"] * 3
    assert [len(found.samples) for found in measured] == [2, 2]


def test_a_command_that_fails_is_never_a_figure() -> None:
    with pytest.raises(BenchmarkFailed, match="it ended with 3: no luck"):
        run(Command("it", shell("echo no luck >&2; exit 3")))


def test_a_failure_inside_a_pipeline_is_a_failure() -> None:
    with pytest.raises(BenchmarkFailed):
        run(Command("it", shell("false | cat")))


def test_a_command_is_ended_at_its_limit_with_all_its_processes(tmp_path: Path) -> None:
    sample = run(Command("it", shell(f"sleep 60 & echo $! > {tmp_path / 'pid'}; wait"), limit=2.0))

    assert not sample.finished
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30  # the kernel ends it in its own time
    while running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running(process: int) -> bool:
    """Tell whether a process still runs; one that ended and was not yet waited for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_whoever_measures_is_small_because_the_kernel_counts_it_too() -> None:
    script = """
from importlib import import_module
from benchmarks import __main__ as program
from benchmarks.measure import Command, run
for case in program.CASES:
    import_module(f"benchmarks.cases.{case}")
print(run(Command("it", ["true"])).peak)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 40_000_000


def test_the_peak_is_that_of_the_largest_process_of_a_command() -> None:
    script = f"{sys.executable} -c 'bytearray(200_000_000)' | cat"
    assert run(Command("it", shell(script))).peak > 200_000_000


def test_processor_seconds_count_the_children_of_a_command() -> None:
    script = f"{sys.executable} -c 'for i in range(10_000_000): pass' | cat"
    busy, idle = run(Command("busy", shell(script))), run(Command("idle", ["sleep", "0.3"]))
    assert busy.cpu > 0.1 > idle.cpu


def test_what_a_command_wrote_is_weighed_before_it_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = shell(f"mkdir -p {out}/in && head -c 3000 /dev/zero | tee {out}/a > {out}/in/b")
    sample = run(Command("it", script, after=lambda: shutil.rmtree(out), output=out))

    assert sample.size == 6000
    assert not out.exists()


def test_a_bar_is_met_or_not_by_the_ratio_of_the_medians() -> None:
    peer = figures(1.0, 2.0, 9.0)

    met = seconds_row(figures(1.0, 2.6, 2.7), peer=peer, most=1.3)
    missed = seconds_row(figures(1.0, 2.7, 2.8), peer=peer, most=1.3)

    assert (met.ratio, met.met, met.spread) == ("1.30 x", True, "1.00-2.70")
    assert (missed.ratio, missed.met) == ("1.35 x", False)
    assert unmet([Section("", "", (met, missed))]) == [missed]


def test_without_a_peer_a_bar_is_seconds() -> None:
    assert seconds_row(figures(0.2), most=0.15).met is False
    assert seconds_row(figures(0.1), most=0.15).met is True


def test_a_command_that_did_not_finish_has_no_time() -> None:
    row = seconds_row(figures(30.0, finished=False), peer=figures(1.0), most=1.0)
    assert (row.median, row.ratio, row.met) == ("did not finish", "", None)


def test_a_table_has_a_line_for_each_row_with_its_verdict() -> None:
    row = Row("it", "1.00 s", bar="≤ 1 x", met=False, peak=42_000_000, runs=5)
    last = text(Section("Title", "About.", (row,))).splitlines()[-1]
    assert last.split() == ["it", "1.00", "s", "≤", "1", "x", "no", "42", "5"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_case_runs_and_prints_its_rows(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--small", "--runs", "1", "--folder", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for row in (
        "holdfast --version",
        "holdfast list --json",
        "Holdfast, the copy alone",
        "Holdfast backup: copy, hash, count, seal, sync",
        "tar | gzip -1",
        "Holdfast backup, tar.gz",
        "Holdfast backup, tar.zst",
        "Holdfast restore --target",
        "Holdfast verify, native",
        "the longest of all, per GB",
        "these figures mean nothing",
    ):
        assert row in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_is_measured_again_takes_its_place_on_the_page() -> None:
    def measured(title: str, median: str, peak: int) -> Section:
        return Section(title, f"About {title}.", (Row("ours", median, peak=peak, ours=True),))

    first = [measured("A", "1 s", 1_000_000), measured("A b", "2 s", 2_000_000)]
    page = whole([*first, measured("C", "3 s", 3_000_000)], "Measured then.")
    again = renewed(page, [measured("A b", "9 s", 9_000_000)], "Measured now.")
    assert again == page.replace("| 2 s |", "| 9 s |").replace("2 MB", "9 MB").replace(
        "|  | 2 |", "|  | 9 |"
    ).replace("About A b.", "About A b. Measured now.")
    with pytest.raises(LookupError):
        renewed(page, [measured("B", "1 s", 1)], "Measured now.")
