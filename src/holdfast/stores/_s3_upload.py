"""Writing to a bucket: whole or not at all, never over another value, and in bounded memory.

What fits into one part is sent by one request. The rest goes up in parts that nobody sees until the
last request puts them together; where that is not to be, they are thrown away. Each object carries
a mark of its own, which tells whether a request whose answer got lost had been heard.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from ..errors import HoldfastError, ServerFailed
from ..model.artifact import Chunks
from ..s3.http import Answer, Client
from ..s3.sign import Query
from ..s3.xml import completion, problem_in, value_of
from ._s3_conditions import CONFLICT, MISSING, TAKEN, Conditions
from ._s3_retention import MODE, Retention, check_kept

PART = 32 << 20  # bytes; packs of a repository fit into one
GROWING = 2500  # parts, after which they double: so 10,000 of them hold more than 1 TB
MARK = "x-amz-meta-holdfast-write"
INVALID = 400


class Uploads:
    """Writes objects of one bucket. May be used by several threads.

    Each writer holds two parts in memory: one that is filled while another goes up.
    """

    def __init__(
        self, client: Client, conditions: Conditions, retention: Retention | None, part: int = PART
    ) -> None:
        self._client = client
        self._conditions = conditions
        self._retention = retention
        self._part = part
        self._with_md5 = retention is not None  # S3 wants it with a lock; it takes time
        self._lock_proved = False

    def create(self, key: str, chunks: Chunks, *, locked: bool) -> int:
        """Write an object where there is none; returns how many bytes.

        With ``locked`` it is put under the retention that is configured, if one is.

        Raises:
            BackupExists: the key is taken.
            As `Client.call`.

        """
        described = {MARK: secrets.token_hex(16)}
        if locked and self._retention is not None:
            described |= self._retention.headers()
        parts = _parts(chunks, self._part)
        first = next(parts, bytearray())
        if len(first) < self._part:
            self._create_whole(key, first, described)
            size = len(first)
        else:
            self._conditions.refuse_taken(key)
            self._conditions.for_completion(key)  # now, before gigabytes go up for nothing
            size = self._create_of_parts(key, first, parts, described)
        self._prove_lock(key, described)
        return size

    def overwrite(self, key: str, data: bytes) -> None:
        """Write a small object, in place of an earlier one."""
        self._send("PUT", key, body=data)

    # --- one request ---

    def _create_whole(self, key: str, body: bytearray, described: dict[str, str]) -> None:
        headers = {**described, **self._conditions.for_put(key)}
        for _turn in self._client.patience.turns():
            answer = self._send("PUT", key, (), headers, body, (TAKEN, CONFLICT))
            if answer.status != CONFLICT:
                break
        if answer.status in {TAKEN, CONFLICT} and not self._is_ours(key, described):
            raise self._conditions.taken(key)

    def _is_ours(self, key: str, described: Mapping[str, str]) -> bool:
        """Tell whether an object is what we wrote: by a request whose answer got lost."""
        found = self._client.call("HEAD", key, accept=(MISSING,))
        return found.headers.get(MARK) == described[MARK]

    # --- in parts ---

    def _create_of_parts(
        self, key: str, first: bytearray, rest: Iterator[bytearray], described: dict[str, str]
    ) -> int:
        begun = self._send("POST", key, [("uploads", "")], described)
        upload = value_of(bytes(begun.body), "UploadId")
        try:
            size, body = self._send_parts(key, upload, first, rest)
            self._complete(key, upload, body, described)
        except BaseException as error:
            self._abort(key, upload, error)
            raise
        return size

    def _send_parts(
        self, key: str, upload: str, first: bytearray, rest: Iterator[bytearray]
    ) -> tuple[int, bytes]:
        """Send every part; returns the size of all, and the document that puts them together."""
        etags: list[str] = []
        size = len(first)
        with ThreadPoolExecutor(1) as sender:
            going = sender.submit(self._send_part, key, upload, 1, first)
            for number, part in enumerate(rest, 2):
                etags.append(going.result())
                size += len(part)
                going = sender.submit(self._send_part, key, upload, number, part)
            etags.append(going.result())
        return size, completion(enumerate(etags, 1))

    def _send_part(self, key: str, upload: str, number: int, part: bytearray) -> str:
        query = [("partNumber", str(number)), ("uploadId", upload)]
        return self._send("PUT", key, query, body=part).etag

    def _complete(self, key: str, upload: str, body: bytes, described: dict[str, str]) -> None:
        headers = self._conditions.for_completion(key)
        query = [("uploadId", upload)]
        answer = self._client.call("POST", key, query, headers, body, (MISSING, CONFLICT, TAKEN))
        if answer.status not in {MISSING, CONFLICT, TAKEN} or self._is_ours(key, described):
            return
        self._conditions.refuse_taken(key)
        raise self._failed(f"{key}: {answer.code or answer.status}")

    def _abort(self, key: str, upload: str, error: BaseException) -> None:
        """Throw the parts away; a failure to do so must not hide what failed first."""
        try:
            self._client.call("DELETE", key, [("uploadId", upload)], accept=(MISSING,))
        except HoldfastError as also:
            error.add_note(f"its parts could not be removed, and are left to be swept: {also}")

    # --- both ---

    def _send(  # noqa: PLR0913, PLR0917 - the parts of a request, in their order
        self,
        method: str,
        key: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: bytes | bytearray = b"",
        accept: Collection[int] = (),
    ) -> Answer:
        """Send a request, with an MD5 of its body once the server has asked for that."""
        checked = dict(headers or {})
        if self._with_md5 and method == "PUT":
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            checked["content-md5"] = base64.b64encode(digest).decode()
        answer = self._client.call(method, key, query, checked, body, {*accept, INVALID})
        if answer.status != INVALID:
            return answer
        code, said, _region = problem_in(answer.body)
        if not self._with_md5 and "content-md5" in said.lower():
            self._with_md5 = True
            return self._send(method, key, query, headers, body, accept)
        why = " (is object lock enabled for the bucket?)" if MODE in checked else ""
        raise self._failed(f"{key}: {code} {said}{why}")

    def _prove_lock(self, key: str, described: Mapping[str, str]) -> None:
        if MODE in described and not self._lock_proved:
            check_kept(self._client, key)
            self._lock_proved = True

    def _failed(self, reason: str) -> ServerFailed:
        return ServerFailed(
            component=self._client.component, where=self._client.where, reason=reason
        )


def _parts(chunks: Chunks, part: int) -> Iterator[bytearray]:
    """Give the same bytes in parts of one size, which doubles now and then; the last is shorter."""
    number, size, filling = 0, part, bytearray()
    for chunk in chunks:
        rest = memoryview(chunk).cast("B")
        while rest:
            taken = rest[: size - len(filling)]
            filling += taken
            rest = rest[len(taken) :]
            if len(filling) == size:
                yield filling
                number, filling = number + 1, bytearray()
                size = part << (number // GROWING)
    if filling:
        yield filling
