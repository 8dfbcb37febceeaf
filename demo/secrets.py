"""Invented passwords: those of the servers that the full demonstration starts for itself.

They reach Holdfast as they should, by the environment; `holdfast.yaml` only names them.
"""

from __future__ import annotations

from collections.abc import Mapping

S3_KEY = "AKIDDEMONSTRATION"
S3_SECRET = "a-secret-of-the-demonstration"  # noqa: S105 - invented, for a server that ends with us
QDRANT_KEY = "a-key-of-the-demonstration"
REDIS_PASSWORD = "a-password-of-the-demonstration"  # noqa: S105 - the same

ENVIRONMENT: Mapping[str, str] = {
    "S3_KEY": S3_KEY,
    "S3_SECRET": S3_SECRET,
    "QDRANT_API_KEY": QDRANT_KEY,
    "REDIS_PASSWORD": REDIS_PASSWORD,
}
