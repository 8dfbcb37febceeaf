"""Real Chroma stores for tests: a writer whose every operation can be replayed in a model.

Chroma never lives in the process of the tests: a process of its own imports it once and forks for
each writer (``write``, until it is ended or for a number of operations) and each reader (``dump``).

The plan of operations depends on nothing but the seed. Each is one call, which Chroma commits as
one transaction, and the log says when it began and when it was answered.
"""

from __future__ import annotations

import atexit
import os
import pickle
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from tests.forking import Forked, Task, ask, channel, fork_on_request

COLLECTIONS = {"prose": "l2", "speech": "cosine", "code": "l2", "images": "ip"}
DIMENSION = 16
BATCH = 100

Record = dict[str, Any]  # vector, document, metadata
World = dict[str, dict[str, Record]]  # collection → id → record


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: a verb, a collection, and for each id what is given with it."""

    verb: str
    collection: str
    ids: list[str]
    vectors: Any = None
    documents: list[str] | None = None
    metadatas: list[dict[str, Any]] | None = None

    def arguments(self) -> dict[str, Any]:
        given = {
            "embeddings": self.vectors,
            "documents": self.documents,
            "metadatas": self.metadatas,
        }
        return {"ids": self.ids} | {
            name: value for name, value in given.items() if value is not None
        }


@dataclass
class Plan:
    """An endless plan of operations, the same for the same seed."""

    seed: int
    dimension: int = DIMENSION
    batch: int = BATCH
    names: list[str] = field(default_factory=lambda: list(COLLECTIONS))

    def operations(self) -> Iterator[Operation]:
        chance = random.Random(self.seed)
        vectors = np.random.default_rng(self.seed)
        known: dict[str, list[str]] = {name: [] for name in self.names}
        number = 0
        while True:
            collection = chance.choice(self.names)
            ids = known[collection]
            verb = chance.choices(["add", "update", "upsert", "delete", "mixed"], [5, 2, 2, 1, 1])[
                0
            ]
            if len(ids) < 2 * self.batch:
                verb = "add"
            if verb in {"add", "mixed"}:
                chosen = [f"{collection}-{number + i}" for i in range(self.batch)]
                number += self.batch
                if verb == "mixed":  # what is there already, or not: the first is ignored by add
                    chosen[:5] = chance.sample(ids, 5)
            else:
                chosen = chance.sample(ids, chance.randint(1, self.batch))
            if verb == "update":
                chosen[:2] = [f"{collection}-absent-{number}", f"{collection}-{number}"]
            yield self._operation(verb, collection, chosen, vectors, chance)
            if verb == "delete":
                gone = set(chosen)
                known[collection] = [name for name in ids if name not in gone]
            elif verb in {"add", "mixed"}:
                ids += chosen[5:] if verb == "mixed" else chosen

    def _operation(
        self, verb: str, collection: str, ids: list[str], vectors: Any, chance: random.Random
    ) -> Operation:
        if verb == "delete":
            return Operation(verb, collection, ids)
        stamp = chance.randrange(1 << 30)
        given = vectors.normal(size=(len(ids), self.dimension)).astype("f4")
        documents = [f"{name} as of {stamp}" for name in ids]
        metadatas = [{"stamp": stamp, "shelf": name[-1], "weight": stamp / 8} for name in ids]
        if verb == "update" and chance.random() < 0.3:
            return Operation(verb, collection, ids, metadatas=metadatas)
        return Operation(
            "add" if verb == "mixed" else verb, collection, ids, given, documents, metadatas
        )


def applied(world: World, operation: Operation) -> None:
    """Do to the model what Chroma does to the store."""
    records = world.setdefault(operation.collection, {})
    for index, name in enumerate(operation.ids):
        if operation.verb == "delete":
            records.pop(name, None)
            continue
        there = name in records
        if (operation.verb == "add" and there) or (operation.verb == "update" and not there):
            continue
        record = dict(records.get(name, {}))
        if operation.vectors is not None:
            record["vector"] = operation.vectors[index]
        if operation.documents is not None:
            record["document"] = operation.documents[index]
        if operation.metadatas is not None:
            record["metadata"] = operation.metadatas[index]
        records[name] = record


def differences(world: World, found: World) -> list[str]:
    """Say where what was found is not exactly the model; vectors are compared bit by bit.

    But for cosine: there Chroma keeps a vector as direction and length, and gives back the product.
    """
    problems = []
    for collection in sorted({*world, *found}):
        there, wanted = found.get(collection, {}), world.get(collection, {})
        if there.keys() != wanted.keys():
            lost, ghosts = len(wanted.keys() - there.keys()), len(there.keys() - wanted.keys())
            problems.append(f"{collection}: {lost} lost, {ghosts} ghosts")
            continue
        for name, record in wanted.items():
            if not _equal(record, there[name], exactly=COLLECTIONS.get(collection) != "cosine"):
                problems.append(f"{collection}/{name}: {record} became {there[name]}")
                break
    return problems


def _equal(one: Record, other: Record, *, exactly: bool) -> bool:
    if (one["document"], one["metadata"]) != (other["document"], other["metadata"]):
        return False
    if exactly:
        return bool(np.array_equal(one["vector"], other["vector"]))
    return bool(np.allclose(one["vector"], other["vector"], rtol=1e-5, atol=1e-5))


# --- the programs --------------------------------------------------------------------------------


def client_of(job: dict[str, Any]) -> Any:
    import chromadb
    from chromadb.config import Settings

    settings = Settings(anonymized_telemetry=False)
    if "port" in job:
        return chromadb.HttpClient(host="127.0.0.1", port=job["port"], settings=settings)
    return chromadb.PersistentClient(path=job["path"], settings=settings)


def opened(client: Any, name: str, threshold: int | None) -> Any:
    space = COLLECTIONS.get(name, "l2")
    hnsw: dict[str, Any] = {"space": space} | ({"sync_threshold": threshold} if threshold else {})
    return client.get_or_create_collection(
        name, configuration={"hnsw": hnsw}, embedding_function=None
    )


def write(job: dict[str, Any]) -> None:
    """Carry out the plan; without a number of operations, until someone ends us."""
    plan = Plan(job["seed"], **job.get("plan", {}))
    client = client_of(job)
    places = {name: opened(client, name, job.get("threshold")) for name in plan.names}
    with Path(job.get("log", os.devnull)).open("a", buffering=1) as log:
        for number, operation in enumerate(islice(plan.operations(), job.get("operations"))):
            while os.path.exists(job.get("pause", "")):  # noqa: PTH110 - asked for often
                time.sleep(0.002)
            log.write(f"{number} began {time.time()!r}\n")
            getattr(places[operation.collection], operation.verb)(**operation.arguments())
            log.write(f"{number} ended {time.time()!r}\n")
            time.sleep(job.get("rest", 0))


def dump(job: dict[str, Any]) -> None:
    """Write everything that a store holds into a file, after making it answer queries."""
    client = client_of(job)
    world: World = {}
    for listed in client.list_collections():
        collection = client.get_collection(listed.name, embedding_function=None)
        content = collection.get(include=["embeddings", "documents", "metadatas"])
        if len(content["ids"]) != collection.count():
            raise SystemExit(f"{listed.name}: get and count disagree")
        if len(content["ids"]):
            near = collection.query(query_embeddings=[content["embeddings"][0]], n_results=1)
            if not near["ids"][0]:
                raise SystemExit(f"{listed.name}: a query has no answer")
        rows = zip(content["embeddings"], content["documents"], content["metadatas"], strict=True)
        world[listed.name] = {
            name: {
                "vector": np.asarray(vector, "f4").tolist(),
                "document": document,
                "metadata": metadata,
            }
            for name, (vector, document, metadata) in zip(content["ids"], rows, strict=True)
        }
    with Path(job["out"]).open("wb") as out:
        pickle.dump(world, out)


# --- how tests use them --------------------------------------------------------------------------


@cache
def _programs() -> socket.socket:
    """Start the process that runs the programs; it ends with this one."""
    asking, answering = channel()
    command = [sys.executable, "-m", "tests.chroma_world", str(answering.fileno())]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # threads do not outlive a fork
    with answering:
        server = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=environment,
            pass_fds=[answering.fileno()],
            stdin=subprocess.DEVNULL,
        )

    def end() -> None:
        asking.close()
        server.wait(20)

    atexit.register(end)
    return asking


def started(program: str, errors: Path, **job: Any) -> Forked:
    """Begin one of the programs; what it complains of is written to ``errors``."""
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in job.items()}
    return ask(_programs(), {"program": program, "errors": str(errors), "job": plain})


def run(program: str, **job: Any) -> None:
    """Run one of the programs to its end; raises with what it complained of."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder, "errors")
        if not started(program, errors, **job).wait():
            raise AssertionError(errors.read_text()[-2000:])


def make_store(path: Path, **job: Any) -> Path:
    """Make a store by a number of operations of a plan, and return its folder."""
    run("write", path=path, **job)
    return path


def content_of(path: Path) -> World:
    """Return everything in a store, read by Chroma from a copy: opening would change it."""
    with tempfile.TemporaryDirectory() as folder:
        copy, out = Path(folder, "copy"), Path(folder, "out")
        shutil.copytree(path, copy)
        run("dump", path=copy, out=out)
        with out.open("rb") as file:
            world: World = pickle.load(file)  # noqa: S301 - our own program wrote it
    return world


class Writer:
    """A process that carries out a plan until it is ended, and its log."""

    def __init__(self, folder: Path, **job: Any) -> None:
        self.seed: int = job["seed"]
        self.log = folder / "operations.log"
        self._pause = folder / "pause"
        self._process = started("write", folder / "errors", log=self.log, pause=self._pause, **job)
        self._plan = _Replay(self.seed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()

    def alive(self) -> bool:
        return self._process.poll() is None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it begin no operation for a while: it would only take the processor from others."""
        self._pause.touch()
        try:
            yield
        finally:
            self._pause.unlink()

    def events(self) -> dict[int, dict[str, float]]:
        """Return when each operation began, and ended if it did."""
        found: dict[int, dict[str, float]] = {}
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        for line in lines:
            if line.endswith("\n"):
                number, event, instant = line.split()
                found.setdefault(int(number), {})[event] = float(instant)
        return found

    def wait_for(self, more: int, *, seconds: float = 60) -> None:
        """Wait until that many more operations were answered."""
        goal = self.answered() + more
        deadline = time.monotonic() + seconds
        while self.answered() < goal:
            if not self.alive() or time.monotonic() > deadline:
                raise AssertionError("the writer stopped")
            time.sleep(0.02)

    def answered(self) -> int:
        return sum("ended" in times for times in self.events().values())

    def waits(self) -> list[float]:
        """Return how long each operation took, in seconds."""
        return [t["ended"] - t["began"] for t in self.events().values() if "ended" in t]

    def prefix(self, found: World, began: float, ended: float) -> int | None:
        """Return after how many operations the store was exactly as found.

        Only a state counts that there may have been between two instants; None: none was.
        """
        events = self.events().values()
        fewest = sum(times.get("ended", ended) < began for times in events)
        most = sum(times["began"] <= ended for times in events)
        for number in range(fewest, most + 1):
            if not differences(self._plan.world_after(number), found):
                return number
        return None


class _Replay:
    """The model of a plan. It goes on from where it was asked last, unless asked of before."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._begin()

    def _begin(self) -> None:
        self._operations = Plan(self._seed).operations()
        self._number = 0
        self._world: World = {name: {} for name in COLLECTIONS}

    def world_after(self, number: int) -> World:
        """Return what the store holds after a number of operations."""
        if number < self._number:
            self._begin()
        for operation in islice(self._operations, number - self._number):
            applied(self._world, operation)
        self._number = number
        return self._world


@contextmanager
def served(path: Path) -> Iterator[int]:
    """Run ``chroma run`` on a folder, and give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("chroma"))
    server = subprocess.Popen(
        [program, "run", "--path", str(path), "--host", "127.0.0.1", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
    )
    try:
        _wait_for_port(server, port)
        yield port
    finally:
        server.terminate()
        server.wait(20)


def _wait_for_port(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(600):
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError("chroma run did not start")


# --- in the process that forks --------------------------------------------------------------------


def _carry_out(task: Task, _descriptors: list[int]) -> None:
    errors = os.open(task["errors"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(errors, 2)
    programs: dict[str, Callable[[dict[str, Any]], None]] = {"write": write, "dump": dump}
    programs[task["program"]](task["job"])


if __name__ == "__main__":
    import chromadb  # noqa: F401 - once, for all who are forked

    fork_on_request(socket.socket(fileno=int(sys.argv[1])), _carry_out)
