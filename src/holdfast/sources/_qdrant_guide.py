"""How to restore a backup of Qdrant by hand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from ._guide import reading
from ._http import path
from ._qdrant_backup import ALIASES_PART, COLLECTIONS_PART, collection_of

URL = '"${QDRANT_URL:-http://localhost:6333}"'
KEY, FILE = ".qdrant-key", "restored.snapshot"  # in the target folder, for a while


def guide(paths: Mapping[str, str]) -> Sequence[str]:
    """Return the lines: each snapshot is uploaded under its collection's name.

    The key comes from ``$QDRANT_API_KEY`` and goes through a file: what stands on a command line
    can be seen by everybody. So does each snapshot: curl would hold what it gets through a pipe in
    memory. What was uploaded stays on the server until it is deleted there.
    """
    lines = [
        "# QDRANT_URL says where the server is, QDRANT_API_KEY is its key (if it has one).",
        "# Of a cluster, run the upload of each node's snapshot on that node.",
        'mkdir -p "$TARGET"',
        f'(umask 077; printf "api-key: %s\\n" "${{QDRANT_API_KEY:-}}" > "$TARGET"/{KEY})',
    ]
    for part, place in paths.items():
        if part not in {ALIASES_PART, COLLECTIONS_PART}:
            lines += _uploading(collection_of(part), place)
    if ALIASES_PART in paths:
        lines.append(
            f'{reading(paths[ALIASES_PART])} | (cd "$TARGET" && curl -fsS -X POST -H @{KEY} '
            f'-H "Content-Type: application/json" --data-binary @- {URL}/collections/aliases)'
        )
    return [*lines, f'rm -f "$TARGET"/{KEY} "$TARGET"/{FILE}']


def _uploading(collection: str, place: str) -> list[str]:
    upload = shlex.quote(path("collections", collection, "snapshots", "upload"))
    uploaded = shlex.quote(path("collections", collection, "snapshots", FILE))
    here = 'cd "$TARGET" && curl -fsS'
    return [
        f'{reading(place)} > "$TARGET"/{FILE}',
        f"({here} -X POST -H @{KEY} -F snapshot=@{FILE} {URL}{upload}'?priority=snapshot')",
        f"({here} -X DELETE -H @{KEY} {URL}{uploaded})",
    ]
