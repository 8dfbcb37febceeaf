"""Which store a vault's URL names, and what its options put around it."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import TYPE_CHECKING, cast

from ..ports import Store

if TYPE_CHECKING:
    from ..model.store_options import StoreOptions

STORES = {
    "file": "holdfast.stores.local:LocalStore",
    "s3": "holdfast.stores.s3:S3Store",
    "sftp": "holdfast.stores.sftp:SftpStore",
}


def open_store(vault: str, options: StoreOptions, passing: Collection[str]) -> Store:
    """Return the store of a vault. Nothing is connected to before it is used.

    ``passing`` are the folders of what comes and goes there, such as locks: they are neither put
    under a retention nor kept by an append-only store.
    """
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
