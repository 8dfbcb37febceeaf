"""Object lock: values that the server itself keeps for some days, whoever asks it to delete them.

See https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..errors import AccessRefused, RetentionHolds, ServerFailed
from ..s3.http import Client

MODE, UNTIL = "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
HOLD = "x-amz-object-lock-legal-hold"
VERSION = "x-amz-version-id"
REFUSED, MISSING = 403, 404


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is written now cannot be deleted; ``mode`` is governance or compliance."""

    mode: str
    days: int

    def headers(self) -> dict[str, str]:
        """Return what to say with a request that makes an object."""
        until = datetime.now(UTC) + timedelta(days=self.days)
        return {MODE: self.mode.upper(), UNTIL: until.strftime("%Y-%m-%dT%H:%M:%SZ")}


def check_kept(client: Client, key: str) -> None:
    """Raise `ServerFailed` unless an object that was just written is locked: some only say so."""
    answer = client.call("HEAD", key)
    if not answer.headers.get(MODE) or not answer.headers.get(UNTIL):
        raise ServerFailed(
            component=client.component,
            where=client.where,
            reason=f"{key} is not locked though that was asked for: "
            "object lock is not enabled for this bucket, or not known to this server",
        )


def delete_unlocked(client: Client, key: str) -> None:
    """Delete an object for good, and not just hide it; nothing happens if there is none.

    A bucket with object lock keeps versions: to delete a key only marks it, and to delete the
    version frees its bytes. What versions there were before, under the same key, stay.

    Raises:
        RetentionHolds: it is still locked.

    """
    answer = client.call("HEAD", key, accept=(MISSING,))
    if answer.status == MISSING:
        return
    found = answer.headers
    if found.get(HOLD, "").upper() == "ON" or _is_ahead(found.get(UNTIL, "")):
        raise _holds(client, key, found)
    query = [("versionId", version)] if (version := found.get(VERSION)) else []
    answer = client.call("DELETE", key, query, accept=(MISSING, REFUSED))
    if answer.status == REFUSED:
        if UNTIL in found:  # the server's clock is behind ours
            raise _holds(client, key, found)
        reason = f"{key}: {answer.code}"
        raise AccessRefused(component=client.component, where=client.where, reason=reason)


def _holds(client: Client, key: str, found: Mapping[str, str]) -> RetentionHolds:
    path = f"s3://{client.address.bucket}/{key}"
    return RetentionHolds(path=path, until=found.get(UNTIL) or "its legal hold ends")


def _is_ahead(until: str) -> bool:
    """Tell whether a time that the server named is to come; one we cannot read is."""
    if not until:
        return False
    try:
        return datetime.fromisoformat(until) > datetime.now(UTC)
    except (ValueError, TypeError):
        return True
