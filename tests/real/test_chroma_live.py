"""Copies of Chroma folders that are written to all the while: each is one state of the writer's."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from holdfast.sources._chroma_check import check_indexes
from holdfast.sources._chroma_folder import ChromaFolder
from holdfast.sources._chroma_options import ChromaOptions
from holdfast.sources._tree import write_tree
from tests.chroma_world import Writer, content_of, served

LONGEST_WAIT = 3.5  # seconds; these stores are far below a GB
VARIANTS = {"default": (None, False), "threshold-100": (100, False), "http": (100, True)}
TRIALS = {"default": 20, "threshold-100": 20, "http": 6}


def tell(line: str) -> None:
    """Say what was seen; pytest shows it when a test fails, or with ``-s``."""
    sys.stdout.write(f"{line}\n")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "chroma"
    folder.mkdir()
    return folder


@pytest.fixture(params=list(VARIANTS))
def writer(request: pytest.FixtureRequest, store: Path, tmp_path: Path) -> Iterator[Writer]:
    """A writer that has written for a while, in this process's stead or through a server."""
    threshold, through_server = VARIANTS[request.param]
    seed = random.randrange(1 << 30)
    tell(f"seed {seed}")
    with ExitStack() as stack:
        place = {"port": stack.enter_context(served(store))} if through_server else {"path": store}
        writer = stack.enter_context(Writer(tmp_path, seed=seed, threshold=threshold, **place))
        writer.wait_for(60)
        yield writer


def one_trial(store: Path, folder: Path, writer: Writer) -> str:
    """Freeze once, restore what was frozen, and return what was wrong with it."""
    source = ChromaFolder("memory", ChromaOptions(path=store))
    workspace, restored = folder / "workspace", folder / "restored"
    for fresh in (workspace, restored):
        shutil.rmtree(fresh, ignore_errors=True)
    workspace.mkdir()
    began = time.time()
    with source.freeze(workspace) as frozen:
        ended = time.time()
        write_tree(frozen.artifacts[0], restored)  # type: ignore[arg-type]
        facts = frozen.facts()
    writer.wait_for(3)
    with writer.paused():
        found = content_of(restored)
        prefix = writer.prefix(found, began, ended)
    counted = {f"vectors/{name}": len(records) for name, records in found.items()}
    held, attempts = facts.details["writers_held_seconds"], facts.details["attempts"]
    tell(f"prefix {prefix}; writers held {held} s, attempts {attempts}")
    if facts.counts != counted | {"collections": len(found)}:
        return f"{facts.counts} were counted, Chroma has {counted}"
    return "" if prefix is not None else "it is no state that the store was in"


def trials(store: Path, folder: Path, writer: Writer, number: int) -> None:
    problems = []
    for _ in range(number):
        problems.append(one_trial(store, folder, writer))
        writer.wait_for(random.randrange(1, 10))
    waits = sorted(writer.waits())
    tell(f"writes: {len(waits)}, median {waits[len(waits) // 2]:.3f} s, longest {waits[-1]:.3f} s")
    assert problems == [""] * number
    assert writer.alive()
    assert waits[-1] < LONGEST_WAIT


@pytest.mark.timeout(120)
def test_a_copy_is_one_state_of_the_store(store: Path, tmp_path: Path, writer: Writer) -> None:
    trials(store, tmp_path, writer, 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_of_many_copies_is_one_state_of_the_store(
    store: Path, tmp_path: Path, writer: Writer, request: pytest.FixtureRequest
) -> None:
    trials(store, tmp_path, writer, TRIALS[request.node.callspec.params["writer"]])


@pytest.mark.parametrize("database_first", [True, False], ids=["database-first", "indexes-first"])
def test_a_copy_made_file_by_file_while_it_is_written_to_is_found_out(
    store: Path, tmp_path: Path, *, database_first: bool
) -> None:
    with Writer(tmp_path, seed=5, threshold=100, path=store) as writer:
        writer.wait_for(60)
        copy = tmp_path / "copy"
        parts = [{"chroma.sqlite3"}, {path.name for path in store.iterdir() if path.is_dir()}]
        for part in parts if database_first else reversed(parts):
            for name in part:
                place = store / name
                (shutil.copytree if place.is_dir() else shutil.copyfile)(place, _made(copy) / name)
            writer.wait_for(
                20
            )  # what a large store takes to be copied, the application goes on for
    assert check_indexes(copy, tmp_path / "scratch")


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def test_a_live_store_is_counted_while_it_is_written_to(store: Path, tmp_path: Path) -> None:
    source = ChromaFolder("memory", ChromaOptions(path=store))
    with Writer(tmp_path, seed=6, path=store) as writer:
        writer.wait_for(20)
        for _ in range(20):
            source.facts()
        writer.wait_for(5)
    counts = {name: n for name, n in source.facts().counts.items() if name != "collections"}
    assert counts == {
        f"vectors/{name}": len(records) for name, records in content_of(store).items()
    }
