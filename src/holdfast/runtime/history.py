"""The history of a stack: its catalog made anew, and its audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..verbs.select import list_backups
from .audit import AuditTrail
from .catalog import Catalog
from .rebuild import Rebuilt, rebuild
from .session import Session


def rebuild_catalog(session: Session) -> Rebuilt:
    """Restore the catalog from the manifests in every vault; see `rebuild.rebuild`."""
    manifests = {
        vault.name: [listed.manifest for listed in list_backups(vault, session.stack.name).backups]
        for vault in session.vaults()
    }
    return rebuild(session.state, session.clock, manifests)


@contextmanager
def audit_trail(session: Session) -> Iterator[AuditTrail]:
    """Open the audit trail; raises `CatalogUnusable`."""
    with Catalog(session.state, session.clock) as catalog:
        yield AuditTrail(catalog.database, session.clock)
