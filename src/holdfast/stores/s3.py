"""A store in a bucket: Amazon's, or any that speaks S3.

A value is one object. It appears whole, with the last request that makes it, and the server itself
refuses to make it where there is one; there are no folders and nothing is renamed. What cannot be
sent in one request goes up in parts, which are thrown away where the whole does not come about.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import SourceMissing, VaultUnavailable
from ..model.artifact import Chunks
from ..model.names import safe_path
from ..model.urls import bucket_and_prefix
from ..s3.credentials import credentials_of
from ..s3.http import Address, Client, Patience
from ..s3.sign import Signer
from ._aside import is_aside
from ._s3_conditions import Conditions
from ._s3_keys import key_of, name_of
from ._s3_read import PAGE, Reader
from ._s3_retention import Retention, delete_unlocked
from ._s3_upload import PART, Uploads
from ._s3_uploads_left import remove_left

if TYPE_CHECKING:
    from ..model.store_options import StoreOptions

LEFT = timedelta(days=1)  # without a new part: nobody works on an upload any more


class S3Store:
    """Values below ``prefix``, which is empty or ends with a slash.

    Args:
        client: says which bucket, as whom, and how patiently.
        prefix: what all keys begin with.
        look: look before writing where the server does not refuse by itself; see `Conditions`.
        retention: under which the server keeps what is put, but what lies below ``passing``.
        passing: folders of what comes and goes, such as locks.
        part: bytes that one request sends at most.

    """

    renames: ClassVar[bool] = False

    def __init__(  # noqa: PLR0913 - each is one property of a store, given by name
        self,
        client: Client,
        prefix: str = "",
        *,
        look: bool = False,
        retention: Retention | None = None,
        passing: Collection[str] = (),
        part: int = PART,
    ) -> None:
        """Connect to nothing yet."""
        self._client = client
        self._prefix = prefix
        self._passing = tuple(f"{folder}/" for folder in passing)
        self._retention = retention
        self._reader = Reader(client)
        conditions = Conditions(client, prefix, look=look)
        self._uploads = Uploads(client, conditions, retention, part)
        weakref.finalize(self, client.close)

    @classmethod
    def opened(cls, vault: str, options: StoreOptions, passing: Collection[str]) -> S3Store:
        """Return the store of a vault; what lies below ``passing`` is put under no retention."""
        bucket, prefix = bucket_and_prefix(str(options.url))
        credentials = credentials_of(
            vault, str(options.url), options.access_key, options.secret_key, options.session_token
        )
        client = Client(
            vault,
            Address.of(bucket, options.endpoint, options.addressing),
            Signer(credentials, options.region),
            Patience(options.attempts, options.connect_timeout, options.timeout),
            ca=Path(options.ca) if options.ca else None,
        )
        retention = None
        if options.lock_mode is not None and options.lock_days is not None:
            retention = Retention(options.lock_mode, options.lock_days)
        look = options.creation == "look"
        return cls(client, prefix, look=look, retention=retention, passing=passing)

    def put(self, name: str, chunks: Chunks) -> int:
        """Store bytes under a free name; a failing read leaves nothing."""
        key = self._key(name)
        with self._translated():
            self._reader.meet()
            return self._uploads.create(key, chunks, locked=not name.startswith(self._passing))

    def replace(self, name: str, data: bytes) -> None:
        """Store a small value, in place of an earlier one."""
        key = self._key(name)
        with self._translated():
            self._reader.meet()
            self._uploads.overwrite(key, data)

    @contextmanager
    def get(self, name: str) -> Iterator[Chunks]:
        """Give the bytes of a name in chunks, of the value that it has now."""
        key = self._key(name)
        with self._translated():
            chunks = self._reader.chunks(key, name)
        yield chunks

    def read(self, name: str) -> bytes:
        """Return a value whole."""
        key = self._key(name)
        with self._translated():
            return self._reader.read(key, name)

    def part(self, name: str, start: int, length: int) -> bytes:
        """Return exactly these bytes of a value: one request."""
        key = self._key(name)
        with self._translated():
            return self._reader.part(key, name, start, length)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Give every name below a folder, a page at a time."""
        yield from (name for name, _size in self.sizes(prefix))

    def sizes(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give every name below a folder with its size; sizes cost no request of their own."""
        folder = self._folder(prefix)
        with self._translated():
            for key, size in self._reader.listed(folder):
                name = name_of(self._prefix, key)
                if not is_aside(name):
                    yield name, size

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Give the first part of the names below a folder, where more follows it."""
        folder = self._folder(prefix)
        with self._translated():
            found = self._reader.folders(folder)
        yield from (name_of(folder, key.rstrip("/")) for key in found)

    def delete(self, name: str) -> None:
        """Delete a name, or a folder with everything in it.

        Under a retention this deletes for good; without one, a bucket that keeps versions keeps
        them.

        Raises:
            RetentionHolds: the server keeps it for a while yet.

        """
        key = self._key(name)
        with self._translated():
            below = (found for found, _size in self._reader.listed(f"{key}/"))
            keys = chain((key,), below)
            while page := list(islice(keys, PAGE)):
                self._delete(page)

    def _delete(self, keys: list[str]) -> None:
        if self._retention is None:
            self._reader.delete(keys)
            return
        for key in keys:
            delete_unlocked(self._client, key)

    def rename(self, old: str, new: str) -> None:
        """Refuse: whoever calls this did not look at ``renames``."""
        bug = f"cannot rename {old} to {new}: a bucket has no renames"
        raise NotImplementedError(bug)

    def path(self, name: str) -> Path | None:
        """Return nothing: it lies in no file system."""
        safe_path(name, "name")
        return None

    def free(self) -> int | None:
        """Return nothing: a bucket grows."""
        return None

    def sweep(self) -> list[str]:
        """Throw away parts of uploads that nobody has worked on for a day."""
        with self._translated():
            left = remove_left(self._client, self._prefix, datetime.now(UTC) - LEFT)
        return [f"half-written file {name_of(self._prefix, key)}" for key in left]

    # --- how ---

    def _key(self, name: str) -> str:
        return key_of(self._prefix, safe_path(name, "name"))

    def _folder(self, name: str) -> str:
        return f"{key_of(self._prefix, safe_path(name, 'folder'))}/" if name else self._prefix

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except SourceMissing as error:  # as the client says it, which serves sources too
            if error.fields["component"] != self._client.component:
                raise  # of a source whose chunks we were given
            raise VaultUnavailable(
                vault=self._client.component,
                path=self._client.where,
                reason="there is no such bucket",
            ) from error
