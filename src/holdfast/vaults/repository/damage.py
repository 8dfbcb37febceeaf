"""What the format modules raise about bytes that are not what they should be.

They do not know which file the bytes come from; whoever read the file adds its name at the border
and makes it a row of the error table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from holdfast.errors import RepositoryDamaged


class DamagedError(Exception):
    """Bytes of a repository that cannot be what was written; the text says why."""


@contextmanager
def damage_in(where: str, file: str) -> Iterator[None]:
    """Name the file that damage was found in; ``where`` is the repository, as a person knows it.

    Raises:
        RepositoryDamaged: the block raised `DamagedError`.

    """
    try:
        yield
    except DamagedError as error:
        raise RepositoryDamaged(where=where, path=file, reason=str(error)) from error
