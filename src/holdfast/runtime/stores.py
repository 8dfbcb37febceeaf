"""Which store a vault's URL names, and what its options put around it."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, cast

from ..errors import ExtraMissing
from ..ports import Store

if TYPE_CHECKING:
    from ..model.store_options import StoreOptions

STORES = {
    "file": "holdfast.stores.local:LocalStore",
    "s3": "holdfast.stores.s3:S3Store",
    "sftp": "holdfast.stores.sftp:SftpStore",
}
DRIVERS = {"s3": "obstore", "sftp": "asyncssh"}  # extras are called as the schemes


def open_store(vault: str, options: StoreOptions, passing: Collection[str]) -> Store:
    """Return the store of a vault. Nothing is connected to before it is used.

    ``passing`` are the folders of what comes and goes there, such as locks: they are neither put
    under a retention nor kept by an append-only store.

    Raises:
        ExtraMissing: the driver of the store is not installed.

    """
    _expect_driver(options.scheme)
    module, _colon, name = STORES[options.scheme].partition(":")
    kind = getattr(import_module(module), name)
    store = cast("Store", kind.opened(f"vault {vault}", options, passing))
    if options.upload_limit or options.download_limit:
        from ..stores.limited import LimitedStore, Tokens

        limits = (options.upload_limit, options.download_limit)
        up, down = (Tokens(limit) if limit else None for limit in limits)
        store = LimitedStore(store, up, down)
    if options.append_only:
        from ..stores.append_only import AppendOnlyStore

        store = AppendOnlyStore(store, passing, str(options.url))
    return store


def _expect_driver(scheme: str) -> None:
    """Look whether a driver is there, without the time that loading it takes."""
    driver = DRIVERS.get(scheme)
    if driver is not None and find_spec(driver) is None:
        raise ExtraMissing(what=f"a vault at {scheme}://", package=driver, extra=scheme)
