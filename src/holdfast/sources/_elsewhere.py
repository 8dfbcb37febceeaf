"""Other places for stores that lie in the file system: what ``--target NAME=…`` may name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from holdfast.errors import UsageInvalid


def local_path(url: str, component: str) -> Path:
    """Return the absolute path that a path or a ``file:`` URL names.

    Raises:
        UsageInvalid: it names something that is not on this machine.

    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        return Path(unquote(parts.path)).absolute()
    if "://" in url:
        problem = f"{component} can be restored to a path, not to {parts.scheme}://…"
        raise UsageInvalid(problem=problem)
    return Path(url).expanduser().absolute()
