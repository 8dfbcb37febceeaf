"""Runs a program and ends it when the process that wanted it is gone, however that ended.

Started as ``python -I -S _command_guard.py CONTROL PROGRAM ARGUMENT…``. The wanting process holds
the other end of the pipe ``CONTROL`` and never writes to it: its end of file means that nobody
waits for the program any more. The exit status is the program's, or 128 and the signal's number.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

NOT_FOUND = 127
BY_SIGNAL = 128


def main() -> None:
    """Read the command line, run the program, and exit as it does."""
    control = int(sys.argv[1])
    os.set_inheritable(control, False)  # noqa: FBT003 - as the function is declared
    child = os.fork()
    if child == 0:
        _become(sys.argv[2:])
    # Only the program may hold its pipes: their ends are how others see that it has ended.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    over = threading.Lock()
    threading.Thread(target=_watch, args=(control, child, over), daemon=True).start()
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    with over:  # the process id stays the program's until it is waited for
        _pid, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else BY_SIGNAL - code)


def _become(argv: list[str]) -> None:
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the program that was asked for, without a shell
    except OSError as error:
        os.write(2, f"{argv[0]}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND)


def _watch(control: int, child: int, over: threading.Lock) -> None:
    os.read(control, 1)
    with over:
        os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
