"""The application: a process that writes while it is wanted to, and reads stores when asked.

``control/want`` says what it is to do, ``control/is`` what it does, ``control/log`` what was
acknowledged. The work is done by forked children, so that stopping lets go of every file.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.chaos.stores import NAMES, Stores

PAUSE = 0.02  # seconds between two writes
POLL = 0.01


class Writer:
    """The application's parent process."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._control = folder / "control"
        self._log = (self._control / "log").open("a", buffering=1)
        self._worker = 0

    def serve(self) -> None:
        """Do what is wanted until the standard input ends."""
        while True:
            self._obey()
            ready, _, _ = select.select([sys.stdin], [], [], POLL)
            if ready:
                line = sys.stdin.readline()
                if not line:
                    self._stop()
                    return
                request = json.loads(line)
                _forked(partial(_dump, Path(request["folder"]), Path(request["out"])), wait=True)
                sys.stdout.write("done\n")
                sys.stdout.flush()

    def _obey(self) -> None:
        wanted = (self._control / "want").read_text().strip()
        if wanted == "run" and not self._worker:
            self._log.write("started\n")
            self._worker = _forked(self._work)
            self._say("running")
        elif wanted == "stop" and self._worker:
            self._stop()

    def _stop(self) -> None:
        if self._worker:
            os.kill(self._worker, signal.SIGTERM)
            _pid, status = os.waitpid(self._worker, 0)
            self._worker = 0
            if status:
                self._log.write(f"crashed {status}\n")
            self._log.write("stopped\n")
        self._say("stopped")

    def _say(self, state: str) -> None:
        aside = self._control / "is.new"
        aside.write_text(state + "\n")
        aside.rename(self._control / "is")

    def _work(self) -> None:
        """Write until told to stop; what was begun is finished, acknowledged and noted."""
        over: list[int] = []

        def stop(number: int, _frame: FrameType | None) -> None:
            over.append(number)

        signal.signal(signal.SIGTERM, stop)
        number = self._last_number()
        stores = Stores(self._data)
        chance = random.Random(number)
        while not over:
            number += 1
            store = chance.choice(NAMES)
            stores.add(store, number)
            self._log.write(f"{number} {store}\n")
            time.sleep(PAUSE)

    def _last_number(self) -> int:
        lines = (self._control / "log").read_text().splitlines()
        return next((int(line.split()[0]) for line in reversed(lines) if line[0].isdigit()), 0)


def _dump(folder: Path, out: Path) -> None:
    content = Stores(folder).content()
    out.write_text(json.dumps(content))


def _forked(work: Callable[[], object], *, wait: bool = False) -> int:
    child = os.fork()
    if child == 0:
        _run_and_exit(work)
    if wait:
        _pid, status = os.waitpid(child, 0)
        if status:
            raise AssertionError(f"a child of the writer ended with {status}")
    return child


def _run_and_exit(work: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - a child must not go on as a second writer
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    import chromadb  # noqa: F401 - once, before the children are forked

    Writer(Path(sys.argv[1])).serve()
