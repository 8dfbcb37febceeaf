"""What is measured: one module for each case, each with one function ``measure``."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from ..stack import Options, remove
from ..table import Section


def measure_apart(name: str, work: Path, how: Options) -> Section:
    """Measure a case in a process of its own: what it starts is no smaller than who starts it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_measure, name, work, how).result()


def _measure(name: str, work: Path, how: Options) -> Section:
    case = import_module(f".{name}", __package__)
    work.mkdir()
    section: Section = case.measure(work / "data", how)
    remove(work)
    return section
