"""Dumps that wait in files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from holdfast.errors import NoSpace, TargetUnfit
from holdfast.model.artifact import CHUNK, Chunks, Stream

from ._swap import FULL


def opener(path: Path) -> Callable[[], AbstractContextManager[Chunks]]:
    """Return what opens a file as a stream is opened."""

    @contextmanager
    def opened() -> Iterator[Chunks]:
        with path.open("rb", buffering=0) as file:
            yield iter(lambda: file.read(CHUNK), b"")

    return opened


def spool(stream: Stream, path: Path, component: str) -> Stream:
    """Write a stream into a new private file, which appears whole and durable.

    Raises:
        NoSpace, TargetUnfit: it cannot be written.

    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file, stream.open() as chunks:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) or 0 :]
            os.fsync(file.fileno())
        partial.rename(path)
        _sync(path.parent)
    except OSError as error:
        if error.errno in FULL:
            raise NoSpace(path=path) from error
        reason = error.strerror or str(error)
        raise TargetUnfit(component=component, path=path, reason=reason) from error
    return replace(stream, open=opener(path), path=path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
