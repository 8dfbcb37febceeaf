"""Chroma's REST API, version 2, as far as backups need it: without Chroma's own client.

Its description is what a running server says at ``/openapi.json``. All calls but creating are safe
to be made twice, and so is creating with the names that we give: what is there already is then
ours. Renaming goes by id, deleting by name: that is how the API has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import Any, Self, TypeVar

from pydantic_core import from_json, to_json

from holdfast.errors import ConnectionLost, ServerFailed, SourceUnfit
from holdfast.model.artifact import Chunks

from ._chroma_server_ids import strings
from ._http import Patience, Server, path

API = "/api/v2"
NOT_FOUND = 404
CONFLICT = 409
BAD_REQUEST = 400
BIGGEST_ANSWER = 24 << 20  # bytes of several records; as numbers they take five times that
BIGGEST_RECORD = 64 << 20  # a server takes no request above 40 MiB unless told otherwise
EVERYTHING = ("embeddings", "documents", "metadatas", "uris")

Taken = TypeVar("Taken")


class Gone(Exception):
    """A collection is there no more."""


class TooMuch(Exception):
    """An answer is larger than we are willing to hold."""


@dataclass(frozen=True, slots=True)
class Place:
    """A database of a tenant."""

    tenant: str
    database: str

    @property
    def path(self) -> str:
        """Where the API has it."""
        return API + path("tenants", self.tenant, "databases", self.database)

    def __str__(self) -> str:
        return f"{self.tenant}/{self.database}"


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as the server describes it."""

    place: Place
    id: str
    name: str
    dimension: int | None = None
    metadata: Mapping[str, Any] | None = None
    configuration: Mapping[str, Any] | None = None
    schema: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """Where the API has its records."""
        return self.place.path + path("collections", self.id)

    @property
    def metric(self) -> str | None:
        """What distance its index goes by: ``l2``, ``cosine`` or ``ip``, if that is known."""
        index = (self.configuration or {}).get("hnsw") or (self.configuration or {}).get("spann")
        return (index or {}).get("space")

    @property
    def sync_threshold(self) -> int | None:
        """After how many changes the server rewrites its index, if that is known."""
        return ((self.configuration or {}).get("hnsw") or {}).get("sync_threshold")


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, as columns of the same length, and how many bytes they were as JSON."""

    columns: Mapping[str, list[Any]]
    size: int

    @property
    def ids(self) -> list[str]:
        """Whose records they are."""
        return self.columns["ids"]


class Api:
    """One server. Leave its context. May be used in several threads."""

    def __init__(
        self,
        component: str,
        url: str,
        headers: Mapping[str, str],
        patience: Patience,
        authority: Any = None,
    ) -> None:
        self._server = Server(
            component, url, headers=headers, patience=patience, authority=authority
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.close()

    @property
    def where(self) -> str:
        """Where the server is; nothing secret is in it."""
        return self._server.where

    def failed(self, reason: str) -> ServerFailed:
        """Return the error for a server that does not do what it should."""
        return self._server.failed(reason)

    # --- the server ---

    def version(self) -> str:
        """Return what the server calls its version.

        Raises:
            SourceUnfit: whoever answers does not speak this API.

        """
        answer = self._server.call("GET", f"{API}/version", accept={NOT_FOUND, 405, 410})
        try:
            version = from_json(answer.body)
        except ValueError:
            version = None
        if not isinstance(version, str):
            raise SourceUnfit(
                component=self._server.component,
                path=self._server.where,
                expected="a Chroma server of version 1.0 or newer",
                reason=f"it does not know {API}/version",
            )
        return version

    def user(self) -> str:
        """Return whom the server takes us for; empty: it does not ask."""
        answer = self._server.call("GET", f"{API}/auth/identity", accept={NOT_FOUND})
        said = self._json(answer.body)
        return str(said.get("user_id") or "") if isinstance(said, dict) else ""

    @cached_property
    def limits(self) -> Mapping[str, Any]:
        """What the server says of itself before it is given work."""
        answer = self._server.call("GET", f"{API}/pre-flight-checks", accept={NOT_FOUND})
        said = self._json(answer.body)
        return said if isinstance(said, dict) else {}

    # --- tenants and databases ---

    def has_tenant(self, tenant: str) -> bool:
        """Tell whether there is a tenant."""
        answer = self._server.call("GET", API + path("tenants", tenant), accept={NOT_FOUND})
        return answer.status != NOT_FOUND

    def create_tenant(self, tenant: str) -> None:
        """Make a tenant. There is no call that removes one."""
        body = {"name": tenant}
        self._server.call("POST", f"{API}/tenants", json=body, accept={CONFLICT}, again=True)

    def databases(self, tenant: str) -> list[str]:
        """Return the names of all databases of a tenant, sorted."""
        body = self._server.call("GET", API + path("tenants", tenant, "databases")).body
        return sorted(str(each["name"]) for each in self._list(body, "name"))

    def has_database(self, place: Place) -> bool:
        """Tell whether there is a database."""
        return self._server.call("GET", place.path, accept={NOT_FOUND}).status != NOT_FOUND

    def create_database(self, place: Place) -> None:
        """Make a database in a tenant that is there."""
        self._server.call(
            "POST",
            API + path("tenants", place.tenant, "databases"),
            json={"name": place.database},
            accept={CONFLICT},
            again=True,
        )

    def delete_database(self, place: Place) -> None:
        """Remove a database with everything in it, if it is there."""
        self._server.call("DELETE", place.path, accept={NOT_FOUND}, again=True)

    # --- collections ---

    def collections(self, place: Place) -> list[Collection]:
        """Return all collections of a database by name; none where there is no such database."""
        answer = self._server.call("GET", f"{place.path}/collections", accept={NOT_FOUND})
        if answer.status == NOT_FOUND:
            return []
        found = [self._collection(place, each) for each in self._list(answer.body, "id", "name")]
        return sorted(found, key=lambda collection: collection.name)

    def create_collection(self, place: Place, **settings: Any) -> Collection | str:
        """Make a collection; returns why the server refuses these settings where it does.

        One of this name must be an earlier try of ours: it is removed first.
        """
        address = f"{place.path}/collections"
        accept = {CONFLICT, BAD_REQUEST, 422}
        answer = self._server.call("POST", address, json=settings, accept=accept, again=True)
        if answer.status == CONFLICT:
            self.delete_collection(place, settings["name"])
            answer = self._server.call("POST", address, json=settings, accept=accept)
        said = self._json(answer.body)
        if answer.status in accept:
            return str(said.get("message") if isinstance(said, dict) else said)
        if not isinstance(said, dict) or not {"id", "name"} <= said.keys():
            raise self.failed("it made a collection and does not say which")
        return self._collection(place, said)

    def rename_collection(self, collection: Collection, name: str) -> bool:
        """Give a collection another name; returns whether it is there at all."""
        answer = self._server.call(
            "PUT", collection.path, json={"new_name": name}, accept={NOT_FOUND}, again=True
        )
        return answer.status != NOT_FOUND

    def delete_collection(self, place: Place, name: str) -> None:
        """Remove a collection by its name, if it is there."""
        address = place.path + path("collections", name)
        self._server.call("DELETE", address, accept={NOT_FOUND}, again=True)

    # --- records ---

    def count(self, collection: Collection) -> int:
        """Return how many records a collection has; raises `Gone`."""
        answer = self._server.call("GET", f"{collection.path}/count", accept={NOT_FOUND})
        if answer.status == NOT_FOUND:
            raise Gone
        said = self._json(answer.body)
        if not isinstance(said, int):
            raise self.failed(f"it does not count {collection.name}")
        return said

    def ids(self, collection: Collection, take: Callable[[Iterator[list[str]]], Taken]) -> Taken:
        """Give all ids of a collection to ``take``, a list at a time as they arrive.

        ``take`` is called again from the beginning where the answer breaks off. Raises `Gone`.
        """
        return self._asked(
            collection, {"include": []}, lambda chunks: take(self._strings(collection, chunks))
        )

    def _strings(self, collection: Collection, chunks: Chunks) -> Iterator[list[str]]:
        try:
            yield from strings(chunks)
        except ValueError as error:
            raise self.failed(f"the ids of {collection.name}: {error}") from error

    def records(
        self, collection: Collection, ids: Sequence[str], include: Sequence[str] = EVERYTHING
    ) -> Page:
        """Return those of these records that are there, with what is included of them.

        A record whose vector is asked for and not given is taken as not there.

        Raises:
            Gone: the collection is not there any more.
            TooMuch: they are more than `BIGGEST_ANSWER`; ask for fewer.

        """
        question = {"ids": list(ids), "include": list(include)}
        most = BIGGEST_ANSWER if len(ids) > 1 else BIGGEST_RECORD
        body = self._asked(collection, question, lambda chunks: _gathered(chunks, most))
        said = self._json(body)
        columns = {name: said.get(name) for name in ("ids", *include)} if said else {}
        if not columns or not all(isinstance(column, list) for column in columns.values()):
            raise self.failed(f"what it gives of {collection.name} are no records")
        if len({len(column) for column in columns.values()}) > 1:
            raise self.failed(f"what it gives of {collection.name} has gaps")
        if not set(columns["ids"]) <= set(ids):
            raise self.failed(f"it gives records of {collection.name} that were not asked for")
        if None in columns.get("embeddings", ()):  # its index does not have them yet, or any more
            whole = [vector is not None for vector in columns["embeddings"]]
            columns = {name: list(compress(column, whole)) for name, column in columns.items()}
        return Page(columns, len(body))

    def add(self, collection: Collection, columns: Mapping[str, Any]) -> None:
        """Write records; those whose ids are there already stay as they are."""
        address = f"{collection.path}/add"
        self._server.call("POST", address, json=to_json(columns), again=True)

    def delete_records(self, collection: Collection, ids: Sequence[str]) -> None:
        """Remove records, if they are there."""
        address = f"{collection.path}/delete"
        body = {"ids": list(ids)}
        self._server.call("POST", address, json=body, accept={NOT_FOUND}, again=True)

    # --- pieces ---

    def _asked(
        self, collection: Collection, question: object, take: Callable[[Chunks], Taken]
    ) -> Taken:
        """Ask for records and give the answer to ``take``, from its beginning if it breaks off."""
        address = f"{collection.path}/get"
        for left in reversed(range(self._server.patience.attempts)):
            begun = False
            try:
                with self._server.ask(address, question, accept={NOT_FOUND}) as (status, chunks):
                    begun = True
                    if status == NOT_FOUND:
                        raise Gone
                    return take(chunks)
            except ConnectionLost:
                if not (begun and left):  # before it began it was tried often enough
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _collection(self, place: Place, said: Mapping[str, Any]) -> Collection:
        return Collection(
            place=place,
            id=str(said["id"]),
            name=str(said["name"]),
            dimension=said.get("dimension"),
            metadata=said.get("metadata"),
            configuration=said.get("configuration_json"),
            schema=said.get("schema"),
        )

    def _json(self, body: bytes) -> Any:
        try:
            return from_json(body)
        except ValueError as error:
            raise self.failed(f"it answers in a way that is no JSON: {error}") from error

    def _list(self, body: bytes, *needed: str) -> list[dict[str, Any]]:
        said = self._json(body)
        if not isinstance(said, list) or not all(
            isinstance(each, dict) and each.keys() >= set(needed) for each in said
        ):
            raise self.failed("what it lists has another form than expected")
        return said


def _gathered(chunks: Chunks, most: int) -> bytes:
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > most:
            raise TooMuch
    return bytes(body)
