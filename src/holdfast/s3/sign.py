"""Signing requests to S3: AWS Signature Version 4, in headers.

See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html. The secret never
leaves this module: what is sent is a keyed hash of the request, good for some minutes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

NOTHING = hashlib.sha256(b"").hexdigest()  # of a request without a body
ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who asks. ``token`` belongs to credentials that end after some hours."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


class Signer:
    """Signs requests for one region."""

    def __init__(self, credentials: Callable[[], Credentials], region: str) -> None:
        """Ask for ``credentials`` anew for each request, so that they may change meanwhile."""
        self.credentials = credentials
        self.region = region
        self._key: tuple[str, str, str, bytes] = ("", "", "", b"")

    def signed(  # noqa: PLR0913, PLR0917 - the parts of a request, in their order
        self,
        method: str,
        host: str,
        path: str,
        query: Query,
        headers: Mapping[str, bytes],
        body_sha256: str = NOTHING,
        now: datetime | None = None,
    ) -> dict[str, bytes]:
        """Return the headers to send: those given, which have lower-case names, and the signature.

        ``path`` is quoted already, as it will be sent; ``query`` is not.
        """
        instant = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        credentials = self.credentials()
        sent = {
            **headers,
            "host": host.encode(),
            "x-amz-content-sha256": body_sha256.encode(),
            "x-amz-date": instant.encode(),
        }
        if credentials.token:
            sent["x-amz-security-token"] = credentials.token.encode()
        names = ";".join(sorted(sent))
        request = hashlib.sha256(
            b"\n".join(
                [
                    method.encode(),
                    path.encode(),
                    canonical(query).encode(),
                    *(b"%s:%s" % (name.encode(), _squeezed(sent[name])) for name in sorted(sent)),
                    b"",
                    names.encode(),
                    body_sha256.encode(),
                ]
            )
        ).hexdigest()
        scope = f"{instant[:8]}/{self.region}/{SERVICE}/aws4_request"
        text = f"{ALGORITHM}\n{instant}\n{scope}\n{request}"
        signature = hmac.digest(
            self._signing_key(credentials, instant[:8]), text.encode(), "sha256"
        )
        sent["authorization"] = (
            f"{ALGORITHM} Credential={credentials.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature.hex()}"
        ).encode()
        return sent

    def _signing_key(self, credentials: Credentials, day: str) -> bytes:
        """Return the key of a day, which is made of the secret in four steps and then kept."""
        region, secret = self.region, credentials.secret_key
        kept = self._key
        if kept[:3] != (day, region, secret):
            key = f"AWS4{secret}".encode()
            for part in (day, region, SERVICE, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = kept = (day, region, secret, key)
        return kept[3]


def canonical(query: Query) -> str:
    """Return a query string in the one form that is signed and sent."""
    pairs = sorted((quoted(name, safe=""), quoted(value, safe="")) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in pairs)


def quoted(text: str, safe: str = "/") -> str:
    """Return a key or value as S3 quotes it; undecodable bytes are kept by ``surrogateescape``."""
    return quote(text.encode("utf-8", "surrogateescape"), safe=f"{safe}-_.~")


def _squeezed(value: bytes) -> bytes:
    return b" ".join(value.split())
