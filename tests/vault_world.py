"""Plain vaults with small backups in them, and what must be true of them after anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from holdfast.model.manifest import Manifest
from holdfast.ports import Store, Vault
from holdfast.testing import vault_contract
from holdfast.testing._trips import silent
from holdfast.testing.vault_contract import INSTANT, samples
from holdfast.vaults.plain import PlainOptions, PlainVault

LAYOUTS = {"boxed": "{backup_id}/{artifact}", "flat": "{component}/{stem}_{timestamp}{suffix}"}
EARLIER = "backup_20260203_120000"  # what `keep_earlier` keeps
LATER = "backup_20260204_120000"  # what `keep` keeps


def make_vault(store: Store, layout: str) -> PlainVault:
    options = PlainOptions(url=Path("unused"), layout=LAYOUTS[layout])
    return PlainVault("plain", store, options)


def keep(vault: Vault, instant: datetime = INSTANT) -> Manifest:
    """Seal a small backup."""
    small = samples(b"row\n" * 50, {"one": b"1" * 300, "two": b""})
    return vault_contract.keep(vault, instant, small)


def keep_earlier(vault: Vault) -> Manifest:
    return keep(vault, INSTANT - timedelta(days=1))


def keep_two(vault: Vault) -> Manifest:
    keep_earlier(vault)
    return keep(vault)


def all_whole(vault: Vault) -> set[str]:
    """Return the ids there are; every one of them must be whole."""
    found = list(vault.manifests())
    for manifest in found:
        assert isinstance(manifest, Manifest), manifest
        assert vault.verify(manifest, silent) == []
    return {manifest.id for manifest in found}


def assert_no_strangers(vault: Vault, store: Store) -> None:
    """See that every name in the store belongs to a backup that exists, or is the vault's own."""
    owned = {".holdfast/marks.lock"}
    for manifest in vault.manifests():
        assert isinstance(manifest, Manifest)
        owned |= {stored.path for stored in manifest.artifacts}
        owned |= {f"{stored.path}.meta" for stored in manifest.artifacts}
        for home in (manifest.id, f"manifests/{manifest.id}"):
            owned |= {f"{home}/{name}" for name in ("metadata.json", "SHA256SUMS", "RESTORE.md")}
        owned.add(f".holdfast/marks/{manifest.id}.json")
    assert set(store.names()) <= owned
