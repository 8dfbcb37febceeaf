"""One bucket, and what can be asked of it and done to it: the calls of S3 that we need.

See https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from holdfast.errors import HoldfastError, ServerFailed, SourceMissing, TargetInUse
from holdfast.s3.http import Answer, Client
from holdfast.s3.sign import quoted
from holdfast.s3.xml import (
    Listed,
    Page,
    completion,
    deletion,
    failure_of,
    location,
    page_of,
    tags_of,
    uploads_of,
    value_of,
    versioning,
    writable,
)

from ._objects_entry import Attributes

PAGE = 1000  # what one answer lists, and one request deletes
LARGEST_COPY = 5 << 30  # bytes that one request copies
COPY_PART = 1 << 30
HOME_REGION = "us-east-1"  # the only one that is not named when a bucket is made
GONE, CHANGED = 404, 412
ERROR = 400
Read = TypeVar("Read")


class Bucket:
    """Reads and writes objects of one bucket. May be used by several threads."""

    largest_copy = LARGEST_COPY
    copy_part = COPY_PART

    def __init__(self, client: Client) -> None:
        self.client = client

    @property
    def name(self) -> str:
        """The name of the bucket."""
        return self.client.address.bucket

    # --- the bucket itself ---

    def exists(self) -> bool:
        """Tell whether there is such a bucket. Raises `AccessRefused` if it may not be listed."""
        try:
            self.client.call("GET", query=[("list-type", "2"), ("max-keys", "1")])
        except SourceMissing:
            return False
        return True

    def create(self) -> None:
        """Make the bucket; nothing happens if it is there and ours."""
        region = self.client.signer.region
        body = b"" if region == HOME_REGION else location(region)
        answer = self.client.call("PUT", body=body, accept=(409,))
        if answer.status == 409 and answer.code != "BucketAlreadyOwnedByYou":  # noqa: PLR2004
            raise self._failed(f"the bucket cannot be made: {answer.code}")

    def remove_if_empty(self) -> None:
        """Remove the bucket, unless something is in it.

        We look ourselves: not every server refuses to remove a bucket with content.
        """
        if self.exists() and not any(True for _listed in self._all("")):
            self.client.call("DELETE", accept=(GONE, 409))

    def versioning(self) -> str:
        """Return ``Enabled``, ``Suspended``, or nothing where versions were never kept."""
        query = [("versioning", "")]
        answer = self.client.call("GET", query=query, accept=(GONE, 405, 501))
        return "" if answer.status >= ERROR else self.value(answer, "Status")

    def software(self) -> str:
        """Return what the server calls itself; empty where it says nothing."""
        query = [("list-type", "2"), ("max-keys", "1")]
        return self.client.call("GET", query=query).headers.get("server", "")

    def enable_versioning(self) -> None:
        """Keep versions from now on."""
        body = versioning("Enabled")
        self.client.call("PUT", query=[("versioning", "")], body=body, headers=_checked(body))

    # --- listing ---

    def objects(self, prefix: str) -> Iterator[Listed]:
        """Give what is there now, page by page, in the order of the keys."""
        return self._listed([("list-type", "2"), ("prefix", prefix)])

    def versions(self, prefix: str) -> Iterator[Listed]:
        """Give all versions and marks of deletion: those of one key together, the newest first."""
        return self._listed([("versions", ""), ("prefix", prefix)])

    def _listed(self, query: list[tuple[str, str]]) -> Iterator[Listed]:
        query = [*query, ("encoding-type", "url"), ("max-keys", str(PAGE))]
        after: tuple[tuple[str, str], ...] | None = ()
        while after is not None:
            page = self._page([*query, *after])
            if page.after == after:
                raise self._failed("its list of objects does not go on")
            after = page.after
            yield from page.items

    def _page(self, query: Sequence[tuple[str, str]]) -> Page:
        return self.understood(self.client.call("GET", query=query), page_of, "list of objects")

    # --- reading ---

    def read(  # noqa: PLR0913 - what of an object, and which one
        self,
        key: str,
        version: str = "",
        *,
        start: int = 0,
        length: int | None = None,
        etag: str = "",
        limit: int,
    ) -> Answer:
        """Read an object, or a part; of one that is gone or another one now, status 404 or 412."""
        query = [("versionId", version)] if version else []
        return self.client.get(
            key, query, start=start, length=length, etag=etag, limit=limit, accept=(GONE, CHANGED)
        )

    def head(self, key: str, version: str = "", *, part: int = 0) -> Answer | None:
        """Return the headers of an object, or of one part of its upload; None: it is not there."""
        query = [("versionId", version)] if version else []
        if part:
            query.append(("partNumber", str(part)))
        answer = self.client.call("HEAD", key, query, accept=(GONE, 405))
        return None if answer.status in {GONE, 405} else answer

    def tags(self, key: str, version: str = "") -> dict[str, str]:
        """Return the tags of an object; none of one that is gone."""
        query = [("tagging", ""), *([("versionId", version)] if version else [])]
        answer = self.client.call("GET", key, query, accept=(GONE,))
        return {} if answer.status == GONE else self.understood(answer, tags_of, "tags")

    # --- writing ---

    def put(self, key: str, body: bytes | bytearray, attributes: Attributes) -> str:
        """Write an object of up to 5 GiB; returns its entity tag."""
        return self.client.call("PUT", key, headers=attributes.headers(), body=body).etag

    def copy(self, source: str, into: Bucket, target: str, size: int, *, etag: str = "") -> None:
        """Have the server copy an object into this or another bucket, with all that describes it.

        Raises:
            TargetInUse: it is gone, or with ``etag`` it is another one now.

        """
        if size > self.largest_copy:
            self._copy_parts(source, into, target, etag)
            return
        headers = {"x-amz-copy-source": self._source(source)}
        if etag:
            headers["x-amz-copy-source-if-match"] = etag
        self._put_copy(source, into, target, headers)

    def dress(  # noqa: PLR0913 - what is copied where, and how it is described
        self,
        source: str,
        into: Bucket,
        target: str,
        size: int,
        attributes: Attributes,
        *,
        etag: str,
    ) -> None:
        """Copy an object's content as `copy` does, and describe the copy by ``attributes``."""
        if size > self.largest_copy:
            self._copy_parts(source, into, target, etag, attributes)
            return
        headers = {
            **attributes.headers(),
            "x-amz-copy-source-if-match": etag,
            "x-amz-copy-source": self._source(source),
            "x-amz-metadata-directive": "REPLACE",
            "x-amz-tagging-directive": "REPLACE",
        }
        self._put_copy(source, into, target, headers)

    def _put_copy(self, source: str, into: Bucket, target: str, headers: dict[str, str]) -> None:
        answer = into.client.call("PUT", target, headers=headers, accept=(CHANGED, GONE))
        if answer.status in {CHANGED, GONE}:
            raise self._in_use(source)

    def _copy_parts(
        self,
        source: str,
        into: Bucket,
        target: str,
        etag: str,
        attributes: Attributes | None = None,
    ) -> None:
        head = self.head(source)
        if head is None or (etag and head.etag != etag):
            raise self._in_use(source)
        described = attributes or self.described(source, head)
        upload = Upload(into, target, described)
        size = int(head.headers["content-length"])
        for number, start in enumerate(range(0, size, self.copy_part), 1):
            last = min(start + self.copy_part, size) - 1
            upload.copy(number, self._source(source), head.etag, start, last)
        upload.complete()

    def described(self, key: str, head: Answer, version: str = "") -> Attributes:
        """Return what describes an object whose headers are known; tags cost one more request."""
        counted = head.headers.get("x-amz-tagging-count", "0") != "0"
        return Attributes.of(head.headers, self.tags(key, version) if counted else {})

    def _source(self, key: str) -> str:
        return quoted(f"{self.name}/{key}")

    def delete(self, keys: Iterable[tuple[str, str]]) -> None:
        """Delete keys, or with a version each that version for ever. What is not there is well."""
        waiting = iter(keys)
        while batch := list(islice(waiting, PAGE)):
            sayable = [pair for pair in batch if writable(pair[0])]
            if sayable:
                self._delete_batch(sayable)
            for key, version in batch:
                if not writable(key):
                    query = [("versionId", version)] if version else []
                    self.client.call("DELETE", key, query, accept=(GONE,))

    def _delete_batch(self, batch: Sequence[tuple[str, str]]) -> None:
        body = deletion(batch)
        answer = self.client.call("POST", query=[("delete", "")], body=body, headers=_checked(body))
        if failed := self.understood(answer, failure_of, "result"):
            raise self._failed(f"{failed[0]} cannot be deleted: {failed[1]}")

    def purge(self, prefix: str) -> None:
        """Remove all that begins so, with all its versions, and what was being uploaded there."""
        self.abort_uploads(prefix)
        self.delete((one.key, one.version) for one in self._all(prefix))

    def _all(self, prefix: str) -> Iterator[Listed]:
        """Give all versions, or all objects where the bucket never kept versions."""
        return self.versions(prefix) if self.versioning() else self.objects(prefix)

    def abort_uploads(self, prefix: str) -> None:
        """Give up the uploads in parts that a crash left below a prefix."""
        answer = self.client.call(
            "GET", query=[("uploads", ""), ("prefix", prefix)], accept=(404, 405, 501)
        )
        if answer.status >= ERROR:
            return  # a server that does not know them
        for key, upload in self.understood(answer, uploads_of, "list of uploads"):
            if key.startswith(prefix):
                self.client.call("DELETE", key, [("uploadId", upload)], accept=(GONE,))

    # --- answers ---

    def value(self, answer: Answer, name: str) -> str:
        """Return the text of one element of an answer; empty without one."""
        return self.understood(answer, lambda body: value_of(body, name), name)

    def understood(self, answer: Answer, read: Callable[[bytes], Read], what: str) -> Read:
        """Return what an answer says; raises `ServerFailed` where it makes no sense."""
        try:
            return read(bytes(answer.body))
        except ValueError as error:
            raise self._failed(f"its {what} cannot be read: {error}") from error

    def _in_use(self, key: str) -> HoldfastError:
        where = f"{key} in {self.client.where}"
        users = "a program that changed it just now"
        return TargetInUse(component=self.client.component, path=where, users=users)

    def _failed(self, reason: str) -> HoldfastError:
        return ServerFailed(component=self.client.component, where=self.client.where, reason=reason)


class Upload:
    """One object that is made of parts. Each part may be sent by another thread."""

    def __init__(self, bucket: Bucket, key: str, attributes: Attributes) -> None:
        """Begin it."""
        self._call: Callable[..., Answer] = bucket.client.call
        self._bucket = bucket
        self._key = key
        self._parts: dict[int, str] = {}
        answer = self._call("POST", key, [("uploads", "")], headers=attributes.headers())
        self._id = ("uploadId", bucket.value(answer, "UploadId"))

    def put(self, number: int, body: bytes | bytearray) -> None:
        """Send one part."""
        query = [("partNumber", str(number)), self._id]
        self._parts[number] = self._call("PUT", self._key, query, body=body).etag

    def copy(self, number: int, source: str, etag: str, start: int, last: int) -> None:
        """Take one part from another object, which must still be that one."""
        headers = {
            "x-amz-copy-source": source,
            "x-amz-copy-source-if-match": etag,
            "x-amz-copy-source-range": f"bytes={start}-{last}",
        }
        query = [("partNumber", str(number)), self._id]
        answer = self._call("PUT", self._key, query, headers=headers)
        self._parts[number] = self._bucket.value(answer, "ETag")

    def complete(self) -> str:
        """Let the object exist; returns its entity tag.

        An answer may be lost after the object was made: then the upload is gone, and it is there.
        """
        body = completion(sorted(self._parts.items()))
        answer = self._call("POST", self._key, [self._id], body=body, accept=(GONE,))
        if answer.status != GONE:
            return self._bucket.value(answer, "ETag")
        head = self._bucket.head(self._key)
        if head is None:
            raise ServerFailed(
                component=self._bucket.client.component,
                where=self._bucket.client.where,
                reason=f"{self._key}: its upload is gone",
            )
        return head.etag

    def abort(self) -> None:
        """Give it up."""
        self._call("DELETE", self._key, [self._id], accept=(GONE,))


def _checked(body: bytes) -> dict[str, str]:
    """Return the checksum that S3 demands where a document changes a bucket."""
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return {"content-md5": base64.b64encode(digest).decode()}
