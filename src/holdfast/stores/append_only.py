"""A store in which everything stays, as restic's REST server can keep one.

Only what comes and goes by its nature, such as locks, may be deleted or replaced. This holds for
who uses the store by this configuration; who has its keys and means ill needs to be stopped by the
server: by object lock, or by rights that do not include deleting.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import AppendOnly
from ..model.names import safe_path
from ..ports import Store
from ._wrapping import WrappingStore


class AppendOnlyStore(WrappingStore):
    """A store where nothing is deleted or replaced but below the folders ``passing``."""

    def __init__(self, store: Store, passing: Collection[str], where: str) -> None:
        """Take a store; ``where`` names it in errors."""
        super().__init__(store)
        self._passing = frozenset(passing)
        self._where = where

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, in place of an earlier one if it may go."""
        if not self._passes(name) and self._is_there(name):
            raise self._refused(name)
        super().replace(name, data)

    def delete(self, name: str) -> None:
        """Delete what may go; nothing happens, as ever, where there is nothing."""
        if not self._passes(name) and self._is_there(name):
            raise self._refused(name)
        super().delete(name)

    def rename(self, old: str, new: str) -> None:
        """Rename what may go: to any name, for that is how drafts become backups."""
        if not self._passes(old) and self._is_there(old):
            raise self._refused(old)
        super().rename(old, new)

    def _passes(self, name: str) -> bool:
        return safe_path(name, "name").partition("/")[0] in self._passing

    def _is_there(self, name: str) -> bool:
        """Tell whether there is such a name, or a folder with something in it."""
        try:
            with self.get(name):
                return True
        except FileNotFoundError:
            return any(True for _name in self.names(name))

    def _refused(self, name: str) -> AppendOnly:
        return AppendOnly(vault=self._where, path=name)
