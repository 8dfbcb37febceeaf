"""Putting restored databases in the place of live ones by renaming, and back.

Up to three names belong to each database of a restore:

====================  =======================================================================
``<db>_holdfast_…``   the staged content, until it takes the live name
``<db>``              what applications use
``<db>_replaced_…``   what was live before, from the switch until it is settled
====================  =======================================================================

What was staged carries the restore's tag in its comment. Names and comments tell how far a restore
got, and nothing else has to be remembered. Both renames are one transaction of the server, so a
crash falls before or after them, never between.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import TargetInUse

from . import _postgres_roles as roles
from ._postgres_address import Address
from ._postgres_errors import Border
from ._postgres_names import Place, mark, unmarked
from ._postgres_session import composed, rows, session, values

if TYPE_CHECKING:
    from ._postgres_session import Connection

_PAUSE = 0.005  # seconds between two looks whether connections have ended
_STATES = """
SELECT datname, datallowconn, datistemplate,
       coalesce(shobj_description(oid, 'pg_database'), '')
FROM pg_database WHERE datname = ANY (%s)
"""
# Autovacuum's workers end by themselves when a database is renamed or dropped, but that takes a
# tenth of a second; only a superuser may hurry them.
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = ANY (%s) AND pid <> pg_backend_pid()
  AND (backend_type <> 'autovacuum worker' OR current_setting('is_superuser') = 'on')
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = ANY (%s) ORDER BY 1"
_EARLIER = """
SELECT datname FROM pg_database
WHERE datname <> %s AND starts_with(coalesce(shobj_description(oid, 'pg_database'), ''), %s)
"""


@dataclass(frozen=True, slots=True)
class _State:
    open: bool
    template: bool
    comment: str


class Switch:
    """The databases of one restore. ``address`` gives that of the maintenance database."""

    def __init__(
        self,
        address: Callable[[], Address],
        border: Border,
        tag: str,
        databases: Sequence[str],
        timeout: float,
    ) -> None:
        """Touch nothing. ``timeout`` is for connections to end, in seconds."""
        self.places = {database: Place.of(database, tag) for database in databases}
        self.tag = tag
        self._address = address
        self._border = border
        self._timeout = timeout

    # --- before the switch ---

    def create(self, database: str, make: Callable[[Connection, str], None]) -> None:
        """Have an empty database made where content is staged.

        ``make`` is given a session and its name. What an earlier attempt left there goes.
        """
        staged = self.places[database].staged
        with session(self._address(), self._border) as connection:
            drop_database(connection, staged, self._timeout)
            make(connection, staged)

    def complete(self, database: str, describe: Callable[[Connection, str], None]) -> None:
        """Have a staged database described, and mark it as complete.

        It is durable then, with everything that was written before. ``describe`` is given a session
        and its name.
        """
        staged = self.places[database].staged
        with session(self._address(), self._border) as connection:
            describe(connection, staged)
            (found,) = rows(connection, _STATES, [staged])
            comment_on(connection, staged, mark(self.tag, found[3]))

    # --- the switch ---

    def activate(self) -> None:
        """Switch all databases at once; doing it again does nothing.

        Connections to them are ended, and refused until it is done. Where it fails they are
        accepted again, and everything is as it was.
        """
        with session(self._address(), self._border) as connection:
            states = self._states(connection)
            pending = [place for place in self.places.values() if place.staged in states]
            if not pending and all(self._is_ours(states, p) for p in self.places.values()):
                return
            complete = [
                p for p in pending if unmarked(states[p.staged].comment, self.tag) is not None
            ]
            if len(complete) < len(self.places):
                raise self._border.failed("nothing complete is staged beside the database")
            chains = []
            for place in complete:
                aside = [(place.live, place.replaced)] if place.live in states else []
                chains.append([*aside, (place.staged, place.live)])
            self._swap(connection, chains)

    def _swap(self, connection: Connection, renames: Sequence[Sequence[tuple[str, str]]]) -> None:
        """Do chains of renames in one transaction, with no connection to any of the databases.

        The first name of a chain is what is live now, the last new name what will be.
        """
        names = [old for chain in renames for old, _new in chain]

        def rename() -> None:
            with connection.transaction():
                for chain in renames:
                    for old, new in chain:
                        connection.execute(composed("ALTER DATABASE {} RENAME TO {}", old, new))
                    _allow(connection, chain[-1][1], "true")

        self._demand_idle(connection, names)
        with self._closed(connection, [chain[0][0] for chain in renames]):
            insist(connection, names, rename, self._timeout)

    def _demand_idle(self, connection: Connection, names: Sequence[str]) -> None:
        """Refuse while there are prepared transactions, which no server ends by itself."""
        if prepared := values(connection, _PREPARED, list(names)):
            users = ", ".join(f"the prepared transaction {one}" for one in prepared)
            component, where = self._border.component, self._border.where
            raise TargetInUse(component=component, path=where, users=users)

    @contextmanager
    def _closed(self, connection: Connection, names: Sequence[str]) -> Iterator[None]:
        """Refuse connections; if it fails inside, accept them again as before."""
        try:
            for name in names:
                _allow(connection, name, "false")
            yield
        except BaseException:
            # In a session of its own: the other one may be what failed.
            with session(self._address(), self._border) as another:
                for name in set(names) & set(self._states(another)):
                    _allow(another, name, "true")
            raise

    # --- the way back ---

    def revert(self) -> None:
        """Put everything back as it was before `create`; from wherever it is found."""
        with session(self._address(), self._border) as connection:
            states = self._states(connection)
            back = []
            for place in self.places.values():
                if self._is_ours(states, place):
                    aside = (place.live, place.staged)
                    old = [(place.replaced, place.live)] if place.replaced in states else []
                    back.append([aside, *old])
            if back:
                self._swap(connection, back)
            for place in self.places.values():
                drop_database(connection, place.staged, self._timeout)
            self._open_live(connection)
            roles.unmake(connection, self.tag)

    def _open_live(self, connection: Connection) -> None:
        """Accept connections to what is live: a crash may have left it refusing them."""
        states = self._states(connection)
        for place in self.places.values():
            if place.live in states and not states[place.live].open:
                _allow(connection, place.live, "true")

    # --- the end ---

    def settle(self, *, keep: bool) -> list[str]:
        """End it: what was replaced is kept under its name, or dropped; returns what is kept.

        What earlier restores kept of the same databases goes, once there is something newer.
        """
        kept = []
        with session(self._address(), self._border) as connection:
            states = self._states(connection)
            for place in self.places.values():
                if place.replaced in states:
                    if keep:
                        self._keep(connection, place, states[place.replaced].comment)
                        kept.append(place.replaced)
                    else:
                        drop_database(connection, place.replaced, self._timeout)
                if self._is_ours(states, place):
                    before = unmarked(states[place.live].comment, self.tag)
                    comment_on(connection, place.live, before or "")
            roles.settle(connection, self.tag)
        return kept

    def _keep(self, connection: Connection, place: Place, comment: str) -> None:
        begin = f"holdfast kept what it replaced of {place.live}\n"
        if not comment.startswith(begin):
            comment_on(connection, place.replaced, begin + comment)
        _allow(connection, place.replaced, "true")  # whoever looks for something finds it there
        for (earlier,) in rows(connection, _EARLIER, place.replaced, begin):
            drop_database(connection, earlier, self._timeout)

    # --- means ---

    def _states(self, connection: Connection) -> dict[str, _State]:
        names = [name for p in self.places.values() for name in (p.live, p.staged, p.replaced)]
        return {row[0]: _State(*row[1:]) for row in rows(connection, _STATES, names)}

    def _is_ours(self, states: dict[str, _State], place: Place) -> bool:
        """Tell whether what is live came from this restore."""
        live = states.get(place.live)
        return live is not None and unmarked(live.comment, self.tag) is not None


def insist(
    connection: Connection, names: Sequence[str], action: Callable[[], object], timeout: float
) -> None:
    """Do what needs databases that nobody is connected to, ending connections until it works.

    One that was just being made shows up late: then it is tried again, for ``timeout`` seconds.
    """
    import psycopg

    deadline = time.monotonic() + timeout
    while True:
        while rows(connection, _TERMINATE, list(names)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        try:
            action()
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise
        else:
            return


def drop_database(connection: Connection, name: str, timeout: float) -> None:
    """Drop a database and end the connections to it; nothing happens if there is none."""
    state = next(iter(rows(connection, _STATES, [name])), None)
    if state is None:
        return
    if state[2]:
        connection.execute(composed("ALTER DATABASE {} IS_TEMPLATE false", name))
    _allow(connection, name, "false")
    gone = composed("DROP DATABASE IF EXISTS {}", name)
    insist(connection, [name], lambda: connection.execute(gone), timeout)


def _allow(connection: Connection, name: str, whether: str) -> None:
    connection.execute(composed("ALTER DATABASE {} ALLOW_CONNECTIONS " + whether, name))


def comment_on(connection: Connection, name: str, text: str) -> None:
    """Give a database a comment, or none."""
    from psycopg.sql import SQL, Identifier, Literal

    comment = Literal(text) if text else SQL("NULL")
    connection.execute(SQL("COMMENT ON DATABASE {} IS {}").format(Identifier(name), comment))
