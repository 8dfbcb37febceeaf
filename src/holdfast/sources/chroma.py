"""Chroma: a folder that it persists into (``path``), or a server that is reached by HTTP (``url``).

One kind, two ways to reach it. A folder is copied exactly while it is written to, see
`_chroma_folder`; a server is asked for its content, see `_chroma_server`. What the two give is not
the same and is not restored by the other, because a folder cannot be made from outside a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from holdfast.model.facts import Discovery
from holdfast.model.options import Options
from holdfast.ports import Role, Source

from ._chroma_folder import ChromaFolder
from ._chroma_open import require
from ._chroma_options import ChromaOptions

__all__ = ["ChromaOptions", "ChromaSource"]


class ChromaSource:
    """The kind. Called with options, it gives the source that they ask for, never one of itself."""

    kind: ClassVar[str] = "chroma"
    role: ClassVar[Role] = Role.VECTORS
    options_model: ClassVar[type[Options]] = ChromaOptions

    def __new__(cls, name: str, options: Options) -> Source:  # type: ignore[misc]  # as pathlib.Path
        """Return the source; touches nothing."""
        if not isinstance(options, ChromaOptions):
            raise TypeError(f"{type(options).__name__} are not options of Chroma")
        if options.url is None:
            return ChromaFolder(name, options)
        require("httpx", "a Chroma server")
        from ._chroma_server import ChromaServer

        return ChromaServer(name, options)

    @classmethod
    def discover(cls, folder: Path) -> Iterable[Discovery]:
        """Find folders, and servers in compose files and ``.env``."""
        from ._chroma_server_find import find

        return (*ChromaFolder.discover(folder), *find(folder, cls.kind))
