"""The commands and URLs that a configuration names: services and hooks."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ..errors import CommandFailed, HealthFailed
from ..model.stack import Services

COMMAND_SECONDS = 600.0
POLL_SECONDS = 0.5
ANSWER_SECONDS = 10.0
SHOWN = 200  # characters of a failed command's last line


class Commands:
    """The services of a stack: stopped, started, and asked whether they are well."""

    def __init__(self, services: Services, folder: Path) -> None:
        """Commands run in ``folder``, that of the configuration file."""
        self._services = services
        self._folder = folder

    @property
    def watched(self) -> bool:
        """Whether there is a health URL to ask."""
        return bool(self._services.health)

    def stop(self) -> bool:
        """Stop the services; returns whether there was a command for it."""
        if not self._services.stop:
            return False
        run_command("services.stop", self._services.stop, self._folder)
        return True

    def start(self) -> None:
        """Start the services."""
        if self._services.start:
            run_command("services.start", self._services.start, self._folder)

    def check(self) -> None:
        """Wait until every health URL answers with success, as long as the configuration allows."""
        deadline = time.monotonic() + self._services.health_timeout.total_seconds()
        for url in self._services.health:
            while reason := _unwell(url):
                if time.monotonic() >= deadline:
                    raise HealthFailed(what=url, reason=reason)
                time.sleep(POLL_SECONDS)


def run_command(
    what: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run a command without a shell; its output is shown only if it fails, and then its last line.

    Raises:
        CommandFailed: it cannot be started, takes too long, or ends with a status other than 0.

    """
    # In a session of its own: a Ctrl-C of the terminal is for us, and what the command leaves
    # running must not die by a later one. Into a file: that may keep a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            status = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=COMMAND_SECONDS,
                check=False,
            ).returncode
        except OSError as error:
            raise _failed(what, command, f"cannot be started: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise _failed(what, command, f"was ended after {COMMAND_SECONDS:.0f} s") from error
        if status:
            last = _last_line(output)
            raise _failed(what, command, f"ended with status {status}{last and ': '}{last}")


def _last_line(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4 * SHOWN))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:SHOWN] if lines else ""


def _failed(what: str, command: Sequence[str], outcome: str) -> CommandFailed:
    return CommandFailed(what=what, command=shlex.join(command), outcome=outcome)


def _unwell(url: str) -> str:
    """Return why a URL does not answer with success; empty if it does."""
    import urllib.error  # on use: with all that it needs, it takes a twentieth of every start
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):  # noqa: S310 - checked on loading
            return ""
    except urllib.error.HTTPError as error:
        return f"it answers {error.code}"
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
