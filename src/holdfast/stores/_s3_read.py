"""Reading, listing and deleting objects, by obstore: it works without the interpreter's lock.

Its errors become rows of our table here; what it says is long, and only its gist is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import (
    AccessRefused,
    ConnectionLost,
    HoldfastError,
    ServerFailed,
    ServerUnreachable,
    ValueTooShort,
    VaultUnavailable,
)
from ..model.artifact import CHUNK, Chunks
from ..s3.http import FIRST_PAUSE, LONGEST_PAUSE, SHOWN, Client
from ..s3.xml import page_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig
    from obstore.store import S3Store as Bucket

PIECE = 8 << 20  # bytes that one request reads; one more piece is read ahead
PAGE = 1000  # names that one request lists or deletes
RENEWED = timedelta(minutes=5)  # after which credentials are asked for again
REFUSED = {401, 403}
BEYOND = 416
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>|\(code: (\w+)\)")
_UNTRUSTED = re.compile(r"InvalidCertificate\((?:\s*Other\(\s*OtherError\()?\s*(\w+)")
_SAID = re.compile(r"<Message>([^<]*)</Message>")


class Reader:
    """Reads one bucket. ``client`` says which, as whom, and how patiently."""

    def __init__(self, client: Client) -> None:
        """Connect to nothing yet."""
        self._client = client
        self._met = False
        self._keeps_empty_folders = False

    def meet(self) -> None:
        """Ask for the bucket, if that was not done: some servers make one when it is written to.

        Raises:
            As `Client.call`: the bucket is not there, or not ours.

        """
        if self._met:
            return
        answer = self._client.call("GET", query=[("list-type", "2"), ("max-keys", "1")])
        # It has true folders, and lists them for a while after the last object in them has gone.
        self._keeps_empty_folders = "seaweedfs" in answer.headers.get("server", "").lower()
        self._met = True

    # --- objects ---

    def read(self, key: str, name: str) -> bytes:
        """Return an object whole. Raises ``FileNotFoundError`` where there is none."""
        import obstore

        with self._translated(name):
            return obstore.get(self._bucket, key).bytes().to_bytes()

    def part(self, key: str, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of an object."""
        import obstore

        with self._translated(name):
            found = obstore.get_range(self._bucket, key, start=start, length=length).to_bytes()
        if len(found) < length:
            raise self._too_short(name)
        return found

    def chunks(self, key: str, name: str) -> Chunks:
        """Give the bytes of an object in chunks of at most `CHUNK`; asks for the first at once.

        What is no larger than `PIECE` takes one request, for they tell the size of the whole.
        """
        import obstore

        try:
            with self._translated(name):
                found = obstore.get(self._bucket, key, options={"range": (0, PIECE)})
                first, meta = found.bytes().to_bytes(), found.meta
        except ValueTooShort:  # it has no first byte
            return iter(())
        if len(first) != min(PIECE, meta["size"]):
            raise self._too_short(name)
        return self._pieces(key, name, first, meta["size"], meta["e_tag"])

    def _pieces(self, key: str, name: str, first: bytes, size: int, etag: str | None) -> Chunks:
        view = memoryview(first)
        if size == len(view):
            yield from _in_chunks(view)
            return
        with ThreadPoolExecutor(1) as ahead:
            for start in range(PIECE, size, PIECE):
                length = min(PIECE, size - start)
                coming = ahead.submit(self._piece, key, name, start, length, etag)
                yield from _in_chunks(view)
                view = memoryview(coming.result())
        yield from _in_chunks(view)

    def _piece(self, key: str, name: str, start: int, length: int, etag: str | None) -> bytes:
        """Return a piece, only if the object is still the one whose size is known."""
        import obstore

        options: dict[str, Any] = {"range": (start, start + length)}
        if etag is not None:
            options["if_match"] = etag
        with self._translated(name):
            found = obstore.get(self._bucket, key, options=options).bytes().to_bytes()  # type: ignore[arg-type]
        if len(found) != length:
            raise self._too_short(name)
        return found

    # --- lists ---

    def listed(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give key and size of every object below a folder, which ends with a slash or is empty."""
        import obstore

        with self._translated(folder):
            for page in obstore.list(self._bucket, folder or None, chunk_size=PAGE):
                yield from ((found["path"], found["size"]) for found in page)

    def folders(self, folder: str) -> Sequence[str]:
        """Return the keys of the folders right below a folder, in which something is."""
        import obstore

        with self._translated(folder):
            found = obstore.list_with_delimiter(self._bucket, folder or None)["common_prefixes"]
        if not self._keeps_empty_folders:
            return found
        return [key for key in found if self._holds_something(f"{key.rstrip('/')}/")]

    def _holds_something(self, folder: str) -> bool:
        query = [("list-type", "2"), ("max-keys", "1"), ("prefix", folder)]
        return bool(page_of(bytes(self._client.call("GET", query=query).body)).items)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are none the worse for it."""
        import obstore

        with self._translated(keys[0] if keys else ""):
            obstore.delete(self._bucket, keys)

    # --- how ---

    @cached_property
    def _bucket(self) -> Bucket:
        """The bucket, once the server was asked for it: so its true region is known."""
        from obstore.store import S3Store as Bucket

        client, patience = self._client, self._client.patience
        self.meet()
        region = client.signer.region
        base = client.address.base(region)
        if client.address.virtual:
            parts = urlsplit(base)
            base = f"{parts.scheme}://{client.address.host(region)}{parts.path}"
        options: ClientConfig = {
            "allow_http": base.startswith("http://"),
            "allow_invalid_certificates": False,
            "connect_timeout": timedelta(seconds=patience.connect),
            "read_timeout": timedelta(seconds=patience.answer),
            "timeout": timedelta(days=1),  # of a whole piece, on the slowest line
        }
        if client.ca is not None:
            options["root_certificate"] = client.ca.read_bytes()
        return Bucket(
            client.address.bucket,
            region=region,
            endpoint=base.rstrip("/"),
            virtual_hosted_style_request=client.address.virtual,
            # What is not said here is taken from variables of the environment, which were set for
            # other programs: they would have us read, and delete, where we do not write.
            aws_endpoint_url_s3=base.rstrip("/"),
            s3_express=False,
            skip_signature=False,
            request_payer=False,
            disable_bulk_delete=False,
            client_options=options,
            retry_config={
                "max_retries": patience.attempts - 1,
                "retry_timeout": timedelta(minutes=3),
                "backoff": {
                    "init_backoff": timedelta(seconds=FIRST_PAUSE),
                    "max_backoff": timedelta(seconds=LONGEST_PAUSE),
                    "base": 2,
                },
            },
            credential_provider=self._credentials,
        )

    def _credentials(self) -> Any:
        found = self._client.signer.credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token or None,
            "expires_at": datetime.now(UTC) + RENEWED,
        }

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._translation(str(error), name) from None  # it may quote the request

    def _translation(self, text: str, name: str) -> Exception:
        status = int(_first(_STATUS, text) or 0)
        code, said = _first(_CODE, text), _first(_SAID, text)
        if code == "NoSuchBucket":
            return self._no_bucket()
        if status == 404:  # noqa: PLR2004
            return FileNotFoundError(2, "no such value", name)
        if status == BEYOND:
            return self._too_short(name)
        if status or code:
            reason = f"{name}: {code or status} {said}".strip()[:SHOWN]
            refused = status in REFUSED or code == "AccessDenied"
            return self._row(AccessRefused if refused else ServerFailed, reason)
        return self._unanswered(text)

    def _unanswered(self, text: str) -> HoldfastError:
        """Return what is wrong where no server said that."""
        reason = text.partition("\n")[0].rpartition(" - ")[2][:SHOWN]
        if found := _UNTRUSTED.search(text):
            return self._row(ServerUnreachable, f"its certificate is refused: {found[1]}")
        if "HTTP error" not in text:
            return self._row(ServerFailed, reason)
        return self._row(ServerUnreachable if "Connect" in text else ConnectionLost, reason)

    def _row(self, row: type[HoldfastError], reason: str) -> HoldfastError:
        return row(component=self._client.component, where=self._client.where, reason=reason)

    def _no_bucket(self) -> VaultUnavailable:
        client = self._client
        return VaultUnavailable(
            vault=client.component, path=client.where, reason="there is no such bucket"
        )

    def _too_short(self, name: str) -> ValueTooShort:
        reason = "it ends before the bytes that were asked for"
        return ValueTooShort(vault=self._client.component, path=name, reason=reason)


def _in_chunks(view: memoryview) -> Chunks:
    return (view[at : at + CHUNK] for at in range(0, len(view), CHUNK))


def _first(pattern: re.Pattern[str], text: str) -> str:
    """Return what the first match has in its groups, or nothing."""
    found = pattern.search(text)
    return next(filter(None, found.groups()), "") if found else ""
