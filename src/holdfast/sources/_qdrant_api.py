"""The calls of Qdrant's REST API that are needed here, and what they take and give.

The protocol is ``docs/redoc/master/openapi.json`` of Qdrant; what is not said there was tried with
1.16.3:

- A snapshot that is uploaded stays on the server, as a snapshot of the name it was uploaded under,
  until it is deleted: also where its recovery failed, and there is no collection to list it then.
- Deleting a collection deletes its aliases, but not its snapshots.
- Recovering into a collection that exists needs the same vectors and as many shards. It goes on
  answering from its old content until the upload is checked and unpacked; then it refuses to answer
  for as long as each shard is loaded.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

from holdfast.model.artifact import Chunk, Chunks

from ._http import Server, path

NOT_FOUND = 404
FORBIDDEN = 403
PAGE = 1000  # points that are asked for at once, without vectors or payload
Actions = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that lies on a server. ``checksum`` (SHA-256) is empty where it has none."""

    name: str
    size: int = 0
    checksum: str = ""


class Qdrant:
    """One node of Qdrant. ``long`` is how many seconds making or loading a snapshot may take."""

    def __init__(self, server: Server, *, long: float) -> None:
        self.server = server
        self._long = long

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    # --- looking ---

    def version(self) -> str:
        """Return the version of the server. Needs no key."""
        return str(self._result_of(self.server.call("GET", "/").json(), "version"))

    def now(self) -> datetime:
        """Return the time of the server, to the second; ours where it does not say."""
        stated = self.server.call("GET", "/").headers.get("date")
        return parsedate_to_datetime(stated) if stated else datetime.now(UTC)

    def started(self) -> datetime:
        """Return when the server was started; long ago where it does not say."""
        stated = self._get("/telemetry")["app"].get("startup")
        return datetime.fromisoformat(stated) if stated else datetime.fromtimestamp(0, UTC)

    def may_manage(self) -> bool:
        """Tell whether our key may change collections and aliases; changes nothing."""
        answer = self.server.call(
            "POST", "/collections/aliases", json={"actions": []}, accept={FORBIDDEN}
        )
        return answer.status != FORBIDDEN

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        found = self._get("/collections")["collections"]
        return sorted(one["name"] for one in found)

    def aliases(self) -> dict[str, str]:
        """Return all aliases with the collections that they stand for."""
        found = self._get("/aliases")["aliases"]
        return {one["alias_name"]: one["collection_name"] for one in found}

    def collection(self, name: str) -> dict[str, Any] | None:
        """Return what the server says of a collection; None where there is none."""
        found: dict[str, Any] | None = self._get(path("collections", name), absent=True)
        return found

    def cluster(self, name: str) -> dict[str, Any]:
        """Return where the shards of a collection lie, and the id of this node."""
        found: dict[str, Any] = self._get(path("collections", name, "cluster"))
        return found

    def count(self, name: str) -> int:
        """Count the points of a collection exactly."""
        place = path("collections", name, "points", "count")
        return int(self._post(place, {"exact": True}, seconds=self._long)["count"])

    def pages(self, name: str, asked: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """Give all points of a collection, page by page, with what ``asked`` wants of them."""
        place = path("collections", name, "points", "scroll")
        offset = None
        while True:
            body = {"limit": PAGE, "with_payload": False, "with_vector": False, **asked}
            page = self._post(place, {**body, "offset": offset})
            yield page["points"]
            offset = page.get("next_page_offset")
            if offset is None:
                return

    def nearest(self, name: str, using: str, vector: Any) -> list[dict[str, Any]]:
        """Return the point that is nearest to a vector by an exact search."""
        body = {"query": vector, "limit": 1, "params": {"exact": True}}
        place = path("collections", name, "points", "query")
        return list(self._post(place, {**body, "using": using} if using else body)["points"])

    # --- changing ---

    def change_aliases(self, actions: Actions) -> None:
        """Change aliases, all in one step; nothing happens where there is nothing to do."""
        if actions:
            self.server.call("POST", "/collections/aliases", json={"actions": list(actions)})

    def create(self, name: str, config: Mapping[str, Any]) -> None:
        """Create a collection."""
        self.server.call("PUT", path("collections", name), json=config, seconds=self._long)

    def delete(self, name: str) -> None:
        """Delete a collection; nothing happens if there is none."""
        place = path("collections", name)
        self.server.call("DELETE", place, seconds=self._long, again=True, accept={NOT_FOUND})

    # --- snapshots ---

    def snapshots(self, name: str) -> list[Snapshot]:
        """Return the snapshots of a collection; none where there is no such collection."""
        found = self._get(path("collections", name, "snapshots"), absent=True) or []
        return [self._snapshot(one) for one in found]

    def create_snapshot(self, name: str) -> Snapshot | None:
        """Make a snapshot and wait for it; None where there is no such collection."""
        place = path("collections", name, "snapshots")
        answer = self.server.call(
            "POST", place, params={"wait": "true"}, accept={NOT_FOUND}, seconds=self._long
        )
        return None if answer.status == NOT_FOUND else self._snapshot(self._result(answer.json()))

    def delete_snapshot(self, name: str, snapshot: str) -> None:
        """Delete a snapshot; nothing happens if there is none."""
        place = path("collections", name, "snapshots", snapshot)
        self.server.call("DELETE", place, again=True, accept={NOT_FOUND}, seconds=self._long)

    def download(self, name: str, snapshot: Snapshot) -> AbstractContextManager[Chunks]:
        """Give the bytes of a snapshot; one never changes, so a broken download goes on."""
        place = path("collections", name, "snapshots", snapshot.name)
        size = snapshot.size or None
        return self.server.download(place, size=size, sha256=snapshot.checksum)

    def upload(
        self, name: str, chunks: Iterator[Chunk], *, file: str, sha256: str, alone: bool = True
    ) -> None:
        """Recover a collection from a snapshot, whose bytes it gets under the name ``file``.

        It must be deleted then, also after a failure: see the top of this module. ``sha256`` may be
        empty; with it the server refuses bytes that are others. Unless it is ``alone``, each node
        of its cluster gets the same: then none is to bring itself in line with another.
        """
        boundary = secrets.token_hex(16)
        params = {"wait": "true", "priority": "snapshot" if alone else "no_sync"}
        self.server.call(
            "POST",
            path("collections", name, "snapshots", "upload"),
            params={**params, "checksum": sha256} if sha256 else params,
            content=_multipart(chunks, file, boundary),
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            seconds=self._long,
        )

    def purge(self, name: str, file: str) -> None:
        """Delete a collection that is ours alone, and the upload that it was to be made of.

        An upload whose recovery failed lies on the server without a collection to list it: it can
        only be deleted from one of that name, which is made for that.
        """
        if self.collection(name) is None:
            self.create(name, {})
        self.delete_snapshot(name, file)
        self.delete(name)

    def _snapshot(self, found: Mapping[str, Any]) -> Snapshot:
        checksum = found.get("checksum") or ""
        return Snapshot(str(found["name"]), int(found.get("size") or 0), str(checksum))

    # --- answers ---

    def _get(self, place: str, *, absent: bool = False) -> Any:
        answer = self.server.call("GET", place, accept={NOT_FOUND} if absent else ())
        return None if answer.status == NOT_FOUND else self._result(answer.json())

    def _post(self, place: str, body: Any, seconds: float | None = None) -> Any:
        answer = self.server.call("POST", place, json=body, seconds=seconds, again=True)
        return self._result(answer.json())

    def _result(self, document: Any) -> Any:
        return self._result_of(document, "result")

    def _result_of(self, document: Any, key: str) -> Any:
        if not isinstance(document, dict) or key not in document:
            raise self.server.failed("it does not answer as Qdrant does")
        return document[key]


def _multipart(chunks: Iterator[Chunk], file: str, boundary: str) -> Iterator[Chunk]:
    """Give a form with one file (RFC 7578); its end is sent only when all chunks have come."""
    yield (
        f'--{boundary}\r\nContent-Disposition: form-data; name="snapshot"; filename="{file}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
    yield from chunks
    yield f"\r\n--{boundary}--\r\n".encode()


def creating_alias(alias: str, collection: str) -> dict[str, Any]:
    """Return the action that creates an alias."""
    return {"create_alias": {"alias_name": alias, "collection_name": collection}}


def deleting_alias(alias: str) -> dict[str, Any]:
    """Return the action that deletes an alias."""
    return {"delete_alias": {"alias_name": alias}}
