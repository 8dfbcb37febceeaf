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
TRIAL = f"{PREFIX}conditions"


class Conditions:
    """How to create a value where there is none.

    Args:
        client: asks the server.
        prefix: what all keys of the store begin with.
        look: look whether a name is free instead of asking the server to: then two that write the
            same name at the same instant are not kept apart.

    """

    def __init__(self, client: Client, prefix: str, *, look: bool) -> None:
        self._client = client
        self._key = f"{prefix}{TRIAL}"
        self._look = look
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def for_put(self, key: str) -> dict[str, str]:
        """Return the headers that make a request create ``key``; raises `BackupExists`."""
        if self._look:
            self.refuse_taken(key)
            return {}
        self._try_once("PUT", self._put_is_refused)
        return CREATING

    def for_completion(self, key: str) -> dict[str, str]:
        """Return the same for completing an upload in parts."""
        if self._look:
            self.refuse_taken(key)
            return {}
        self._try_once("CompleteMultipartUpload", self._completion_is_refused)
        return CREATING

    def refuse_taken(self, key: str) -> None:
        """Raise `BackupExists` if there is a value of that key."""
        if self._client.call("HEAD", key, accept=(MISSING,)).status != MISSING:
            raise self.taken(key)

    def taken(self, key: str) -> BackupExists:
        """Return the error that a key is taken."""
        return BackupExists(path=f"s3://{self._client.address.bucket}/{key}")

    # --- trying ---

    def _try_once(self, request: str, is_refused: Callable[[], bool]) -> None:
        with self._lock:
            if request in self._known:
                return
            if not is_refused():
                raise ServerFailed(
                    component=self._client.component,
                    where=self._client.where,
                    reason=f"{request} ignores If-None-Match: values could be overwritten; "
                    "`creation: look` looks first instead, for a vault that one machine writes to",
                )
            self._known.add(request)

    def _put_is_refused(self) -> bool:
        """Write the trial; where it was not there yet, twice."""
        accept = (TAKEN, CONFLICT, UNKNOWN)
        for _time in range(2):
            answer = self._client.call("PUT", self._key, headers=CREATING, accept=accept)
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
            part = call("PUT", key, [*query, ("partNumber", "1")])
            body = completion([(1, part.etag)])
            accept = (TAKEN, CONFLICT, UNKNOWN)
            answer = call("POST", key, query, CREATING, body, accept)
        finally:
            call("DELETE", key, query, accept=(MISSING,))
        return answer.status in HELD
