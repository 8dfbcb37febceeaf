"""A bucket, or a part of one, as the live objects of a component."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice

from holdfast.errors import SourceMissing, SourceUnreadable
from holdfast.model.artifact import TreeItems
from holdfast.model.urls import bucket_and_prefix
from holdfast.s3.credentials import credentials_of
from holdfast.s3.http import Client, Patience
from holdfast.s3.sign import Signer
from holdfast.s3.xml import Listed

from ._exclude import excluder
from ._objects_bucket import Bucket
from ._objects_options import ObjectsOptions
from ._objects_read import Reader
from ._objects_staged import HIDDEN
from ._objects_tally import Tally

LABEL = "minio"
SAMPLED = 2000  # objects
LOOKING = 2  # attempts, where another store can stand in


class BucketStore:
    """The objects of a bucket whose keys begin with a prefix, hidden ones left out."""

    label = LABEL

    def __init__(self, component: str, options: ObjectsOptions) -> None:
        """Touch nothing."""
        self._component = component
        self._options = options
        self.prefix = bucket_and_prefix(options.url or "")[1]
        self._excluded = excluder(options.exclude)
        self._credentials = credentials_of(
            component,
            self.where,
            options.access_key,
            options.secret_key,
            options.session_token,
        )

    @property
    def where(self) -> str:
        """Say which bucket, and which server: never as whom."""
        host = self._options.address.host(self._options.region)
        url = (self._options.url or "").rstrip("/")
        return url if self._options.endpoint is None else f"{url} at {host}"

    def bucket(self, *, attempts: int | None = None) -> Bucket:
        """Return the bucket, with connections of its own."""
        options = self._options
        patience = Patience(attempts or options.attempts, options.connect_timeout, options.timeout)
        signer = Signer(self._credentials, options.region)
        return Bucket(Client(self._component, options.address, signer, patience, self._context()))

    def _context(self) -> ssl.SSLContext | None:
        ca = self._options.ca
        if ca is None:
            return None
        try:
            return ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SourceUnreadable(component=self._component, path=ca, reason=reason) from error

    @contextmanager
    def open(self, *, attempts: int | None = None) -> Iterator[Bucket]:
        """Give the bucket, and close its connections afterwards."""
        bucket = self.bucket(attempts=attempts)
        try:
            yield bucket
        finally:
            bucket.client.close()

    def exists(self, *, attempts: int | None = None) -> bool:
        """Tell whether there is such a bucket."""
        with self.open(attempts=attempts) as bucket:
            return bucket.exists()

    def demand(self) -> None:
        """Raise `SourceMissing` unless there is such a bucket."""
        if not self.exists():
            raise SourceMissing(component=self._component, path=self.where)

    def belongs(self, key: str) -> bool:
        """Tell whether an object belongs to backups; ``key`` is without the prefix."""
        folder = False
        return HIDDEN not in key.split("/") and bool(key) and not self._excluded(key, folder)

    @property
    def hidden(self) -> str:
        """What the keys of restores begin with, in the bucket `aside`: no backup has such keys.

        Where it is not beside the live objects, it says whose it is: others may stage there too.
        """
        if self._options.aside is None:
            return f"{self.prefix}{HIDDEN}/"
        above = bucket_and_prefix(self._options.aside)[1]
        return f"{above}{HIDDEN}/{self._options.address.bucket}/{self.prefix}"

    @property
    def aside(self) -> BucketStore:
        """Where restores stage objects and keep what they replaced: here, if not elsewhere."""
        if self._options.aside is None:
            return self
        moved = {"url": self._options.aside, "aside": None}
        return BucketStore(self._component, self._options.model_copy(update=moved))

    def versioning(self) -> str:
        """Return ``Enabled``, ``Suspended`` or nothing."""
        with self.open() as bucket:
            return bucket.versioning()

    def count(self, tally: Tally) -> None:
        """Count what is there, without reading it."""
        with self.open() as bucket:
            self._reader(bucket).count(tally)

    def items(self, tally: Tally, made_ns: int) -> TreeItems:
        """Give the objects as files of a tree."""
        with self.open() as bucket:
            yield from self._reader(bucket).items(tally, made_ns)

    def software(self) -> str:
        """Return what the server calls itself."""
        with self.open() as bucket:
            return bucket.software()

    def sample(self) -> int:
        """Return how many bytes are in the first pages of the list: a bucket may have millions."""
        with self.open() as bucket:
            return sum(one.size for one in islice(self.there(bucket), SAMPLED))

    def keys(self) -> Iterator[str]:
        """Give the keys of the objects, without the prefix."""
        with self.open() as bucket:
            for one in self.there(bucket):
                yield one.key

    def there(self, bucket: Bucket) -> Iterator[Listed]:
        """Give what is there and belongs to backups, with keys without the prefix."""
        for one in bucket.objects(self.prefix):
            key = one.key.removeprefix(self.prefix)
            if self.belongs(key):
                yield replace(one, key=key)

    def _reader(self, bucket: Bucket) -> Reader:
        options = self._options
        return Reader(
            bucket,
            self.prefix,
            options.concurrency,
            self.belongs,
            options.versions and bool(bucket.versioning()),
            options.tags,
            options.checksums,
        )
