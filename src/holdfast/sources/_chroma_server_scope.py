"""Which collections of a server a component is about, and what ours beside them are called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from holdfast.model.facts import Facts, Json

from ._chroma_options import ChromaOptions
from ._chroma_server_api import Api, Collection, Place

DEFAULT = Place("default_tenant", "default_database")
STAGED, REPLACED = "staged", "replaced"
SCRATCH = "holdfast-scratch-"  # begins the names of databases that a verification uses
LONGEST_NAME = 512
_OURS = re.compile(rf"__holdfast_({STAGED}|{REPLACED})_[A-Za-z0-9-]+_[A-Za-z0-9-]+$")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the options say, apart from where the server is."""

    tenants: tuple[str, ...]
    databases: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, options: ChromaOptions) -> Scope:
        """Return what these options say."""
        return cls(options.tenants, options.databases, options.collections)

    @property
    def only(self) -> Place | None:
        """The database, if there is only one that can be meant."""
        if len(self.tenants) == 1 and self.databases is not None and len(self.databases) == 1:
            return Place(self.tenants[0], self.databases[0])
        return None

    def title(self, place: Place, name: str) -> str:
        """Return what a collection is called in facts and in checks.

        That is its name, with tenant and database before it where it could be in several; those of
        the default database have none even then.
        """
        return name if self.only or place == DEFAULT else f"{place}/{name}"

    def places(self, api: Api) -> list[Place]:
        """Return the databases that are there."""
        if self.databases is None:
            found = [(tenant, name) for tenant in self.tenants for name in api.databases(tenant)]
            return [Place(*pair) for pair in found if not pair[1].startswith(SCRATCH)]
        named = [Place(tenant, name) for tenant in self.tenants for name in self.databases]
        return [place for place in named if api.has_database(place)]

    def collections(self, api: Api, places: Iterable[Place]) -> list[Collection]:
        """Return the collections that are there."""
        return [one for place in places for one in api.collections(place) if self.wants(one.name)]

    def covers(self, place: Place) -> bool:
        """Tell whether a database is meant."""
        return place.tenant in self.tenants and (
            self.databases is None or place.database in self.databases
        )

    def wants(self, name: str) -> bool:
        """Tell whether a collection of this name is meant; what we put beside others is not."""
        return not _OURS.search(name) and (self.names is None or name in self.names)

    def missing(self, api: Api) -> str:
        """Say what was named and is not there; empty if nothing."""
        for tenant in self.tenants:
            if not api.has_tenant(tenant):
                return f"tenant {tenant}"
        places = self.places(api)
        for tenant in self.tenants:
            for name in self.databases or ():
                if Place(tenant, name) not in places:
                    return f"database {Place(tenant, name)}"
        found = {one.name for one in self.collections(api, places)}
        absent = sorted(set(self.names or ()) - found)
        return f"collection {absent[0]}" if absent else ""


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells the collections of one restore of one component from all others."""

    component: str
    tag: str

    def name(self, state: str, name: str) -> str:
        """Return what the collection ``name`` is called while it is `STAGED` or `REPLACED`."""
        ending = self.ending(state)
        if len(name) + len(ending) > LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:16]
            name = f"{name[: LONGEST_NAME - len(ending) - len(digest) - 1]}-{digest}"
        return name + ending

    def ending(self, state: str) -> str:
        """Return how these names end."""
        return f"__holdfast_{state}_{_word(self.component)}_{_word(self.tag)}"

    def earlier(self, name: str) -> bool:
        """Tell whether a name is that of something an earlier restore of the component replaced."""
        beginning = f"__holdfast_{REPLACED}_{_word(self.component)}_"
        return (
            bool(_OURS.search(name))
            and beginning in name
            and not name.endswith(self.ending(REPLACED))
        )


def _word(text: str) -> str:
    """Return a text as names may have it, without ``_``; two that differ stay different."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?", text):
        return text
    plain = re.sub(r"[^A-Za-z0-9]", "", text)[:40]
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def counted(collections: Mapping[str, tuple[Collection, int]]) -> Facts:
    """Return the facts of collections by title, each with how many records it has."""
    counts = {f"vectors/{title}": count for title, (_one, count) in collections.items()}
    details: dict[str, Json] = {
        title: _details(one) for title, (one, _count) in collections.items()
    }
    return Facts({**counts, "collections": len(collections)}, {"collections": details})


def _details(one: Collection) -> dict[str, Json]:
    known: dict[str, Json] = {
        "dimension": one.dimension,
        "metric": one.metric,
        "sync_threshold": one.sync_threshold,
    }
    return {name: value for name, value in known.items() if value is not None}
