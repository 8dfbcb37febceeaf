"""Whether a server keeps to ``If-None-Match: *``: the only way to create without overwriting.

Servers that do not know the header ignore it and overwrite, without a word: so each is tried before
the first value is written. The trial is a value of no bytes under a name that no store shows. Where
it is there already, which is so but for the first time, one request that must be refused tells. To
complete an upload in parts conditionally is another thing to servers, and is tried by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import BackupExists, ServerFailed
from ..s3.http import Client
from ..s3.xml import completion, value_of
from ._aside import PREFIX

TAKEN, CONFLICT, MISSING, UNKNOWN = 412, 409, 404, 501
HELD = {TAKEN, CONFLICT}  # 409: somebody else writes that name at this moment
CREATING = {"if-none-match": "*"}
NOTHING = {"content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}  # of no bytes: locked buckets want it
TRIAL = f"{PREFIX}conditions"


class Conditions:
    """How to create a value where there is none.

    Args:
        client: asks the server.
        prefix: what all keys of the store begin with.
        look: look whether a name is free where the server cannot be asked to: then two that write
            the same name at the same instant are not kept apart.

    """

    def __init__(self, client: Client, prefix: str, *, look: bool) -> None:
        self._client = client
        self._key = f"{prefix}{TRIAL}"
        self._look = look
        self._kept: dict[str, bool] = {}  # by request: whether the condition was kept to
        self._lock = threading.Lock()

    def for_put(self, key: str) -> dict[str, str]:
        """Return the headers that make a request create ``key``; raises `BackupExists`."""
        return self._headers(key, "PUT", self._put_is_refused)

    def for_completion(self, key: str) -> dict[str, str]:
        """Return the same for completing an upload in parts."""
        return self._headers(key, "CompleteMultipartUpload", self._completion_is_refused)

    def _headers(self, key: str, request: str, is_refused: Callable[[], bool]) -> dict[str, str]:
        with self._lock:
            if request not in self._kept:
                self._kept[request] = is_refused()
        if self._kept[request]:
            return CREATING
        if not self._look:
            raise self._ignored(request)
        self.refuse_taken(key)
        return {}

    def refuse_taken(self, key: str) -> None:
        """Raise `BackupExists` if there is a value of that key."""
        if self._client.call("HEAD", key, accept=(MISSING,)).status != MISSING:
            raise self.taken(key)

    def taken(self, key: str) -> BackupExists:
        """Return the error that a key is taken."""
        return BackupExists(path=f"s3://{self._client.address.bucket}/{key}")

    def _ignored(self, request: str) -> ServerFailed:
        return ServerFailed(
            component=self._client.component,
            where=self._client.where,
            reason=f"{request} ignores If-None-Match: values could be overwritten; "
            "`creation: look` looks first instead, for a vault that one machine writes to",
        )

    # --- trying ---

    def _put_is_refused(self) -> bool:
        """Write the trial; where it was not there yet, twice."""
        accept = (TAKEN, CONFLICT, UNKNOWN)
        for _time in range(2):
            answer = self._client.call("PUT", self._key, (), CREATING | NOTHING, accept=accept)
            if answer.status in HELD:
                return True
        return False

    def _completion_is_refused(self) -> bool:
        """Complete an upload over the trial, which is there by then."""
        self._put_is_refused()  # whether or not: from here on the trial is there
        call, key = self._client.call, self._key
        upload = value_of(bytes(call("POST", key, [("uploads", "")]).body), "UploadId")
        query = [("uploadId", upload)]
        try:
            part = call("PUT", key, [*query, ("partNumber", "1")], NOTHING)
            body = completion([(1, part.etag)])
            accept = (TAKEN, CONFLICT, UNKNOWN)
            answer = call("POST", key, query, CREATING, body, accept)
        finally:
            call("DELETE", key, query, accept=(MISSING,))
        return answer.status in HELD
