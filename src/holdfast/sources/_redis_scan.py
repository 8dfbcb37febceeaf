"""Copying a server key by key where it does not let us be a replica: no single instant.

What ``DUMP`` answers is a value as an RDB file has it, with a version and a checksum after it, so
that the copy becomes an RDB file too, and everything else works as with one that the server made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ._redis_crc import crc64
from ._redis_rdb import EOF, EXPIRETIME_MS, SELECTDB
from ._redis_spool import Spool
from ._redis_wire import Access, Said, Wire, command, text

NOTE = "copied key by key, not as of one instant: the server does not let this account replicate"
_FOOTER = 10  # bytes after what DUMP answers: version and checksum
_OLDEST = 9  # the version of Redis 5 and 6
_BATCH = 200  # keys asked for at once
_BUFFER = 1 << 20


class Scan:
    """One copy under way."""

    def __init__(self, access: Access, workspace: Path) -> None:
        """Connect. ``workspace`` holds the names of the keys that were copied."""
        self._wire = access.connect()
        self._seen = workspace / "seen.db"

    def run(self, spool: Spool) -> None:
        """Copy everything.

        Raises:
            AccessRefused: the account may not read what is there.
            ServerFailed, ConnectionLost: the server failed.
            NoSpace: it cannot be kept.

        """
        with self._wire:
            out = _Writer(spool)
            self._functions(out)
            for database in databases(self._wire):
                self._wire.call("SELECT", database)
                out.select(database)
                self._database(out)
            out.end()
        self._seen.unlink(missing_ok=True)

    def stop(self) -> None:
        """Interrupt it, from another thread."""
        self._wire.close()

    def _functions(self, out: _Writer) -> None:
        dumped = self._wire.ask("FUNCTION", "DUMP")
        if isinstance(dumped, Said) and not dumped.unknown:
            raise self._wire.access.error("FUNCTION DUMP", dumped)
        if isinstance(dumped, bytes):  # before Redis 7 there are no functions
            out.value(dumped)

    def _database(self, out: _Writer) -> None:
        # Before Redis 7 only the time that is left can be asked for, to a millisecond or two.
        exact = not isinstance(self._wire.ask("PEXPIRETIME", ""), Said)
        for keys in self._batches():
            asked = [
                words
                for key in keys
                for words in (("PEXPIRETIME" if exact else "PTTL", key), ("DUMP", key))
            ]
            self._wire.send(b"".join(command(*words) for words in [("TIME",), *asked]))
            seconds, micros = self._expect(self._wire.answer())
            base = 0 if exact else int(seconds) * 1000 + int(micros) // 1000
            for key in keys:
                expiry = self._expect(self._wire.answer())
                dumped = self._expect(self._wire.answer())
                if dumped is not None:  # it may have gone since it was listed
                    out.key(key, dumped, base + expiry if expiry >= 0 else None)

    def _expect(self, answer: Any) -> Any:
        if isinstance(answer, Said):
            raise self._wire.access.error("DUMP", answer)
        return answer

    def _batches(self) -> Iterator[Sequence[bytes]]:
        """Give each key once, although ``SCAN`` may give it twice: an RDB file may not."""
        self._seen.unlink(missing_ok=True)
        with closing(sqlite3.connect(self._seen, isolation_level=None)) as seen:
            seen.execute("PRAGMA journal_mode = OFF")
            seen.execute("PRAGMA synchronous = OFF")
            seen.execute("CREATE TABLE seen (key BLOB PRIMARY KEY) WITHOUT ROWID")
            cursor = b"0"
            while True:
                cursor, keys = self._wire.call("SCAN", cursor, "COUNT", _BATCH)
                insert = "INSERT OR IGNORE INTO seen VALUES (?)"
                seen.execute("BEGIN")
                new = [key for key in keys if seen.execute(insert, (key,)).rowcount]
                seen.execute("COMMIT")
                yield new
                if cursor == b"0":
                    return


def databases(wire: Wire) -> dict[int, tuple[int, int]]:
    """Return, for each database that has keys, how many, and how many of them expire."""
    found = {}
    for name, value in wire.info("keyspace").items():
        fields = dict(pair.split("=", 1) for pair in value.split(",") if "=" in pair)
        found[int(name.removeprefix("db"))] = (int(fields["keys"]), int(fields["expires"]))
    return found


def scan_keys(wire: Wire, pattern: str) -> Iterator[str]:
    """Give the keys of the selected database that match; some may come twice."""
    cursor = b"0"
    while True:
        cursor, keys = wire.call("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
        yield from (text(key) for key in keys)
        if cursor == b"0":
            return


class _Writer:
    """An RDB file made of what a server dumped."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting = bytearray()
        self._crc = 0
        self._version = 0

    def value(self, dumped: bytes) -> None:
        """Write what was dumped, without what follows it there."""
        if not self._version:
            self._begin(int.from_bytes(dumped[-_FOOTER : -_FOOTER + 2], "little"))
        self._write(dumped[:-_FOOTER])

    def select(self, database: int) -> None:
        self._select = bytes([SELECTDB]) + length(database)

    def key(self, key: bytes, dumped: bytes, expires: int | None) -> None:
        if not self._version:
            self._begin(int.from_bytes(dumped[-_FOOTER : -_FOOTER + 2], "little"))
        self._write(self._select)
        self._select = b""
        if expires is not None:
            self._write(bytes([EXPIRETIME_MS]) + expires.to_bytes(8, "little"))
        self._write(dumped[:1] + length(len(key)) + key + dumped[1:-_FOOTER])

    def end(self) -> None:
        if not self._version:
            self._begin(_OLDEST)
        self._write(bytes([EOF]))
        self._flush()
        self._spool.write(self._crc.to_bytes(8, "little"))
        self._spool.finish()

    def _begin(self, version: int) -> None:
        self._version = version
        name = "VALKEY" if version > 79 else "REDIS"  # noqa: PLR2004 - Valkey counts from 80
        self._write(f"{name}{version:0{9 - len(name)}}".encode())

    def _write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        waiting = bytes(self._waiting)
        self._crc = crc64(waiting, self._crc)
        self._spool.write(waiting)
        self._waiting = bytearray()


def length(value: int) -> bytes:
    """Return a length as RDB files have it."""
    if value < 1 << 6:
        return bytes([value])
    if value < 1 << 14:
        return bytes([0x40 | value >> 8, value & 0xFF])
    if value < 1 << 32:
        return b"\x80" + value.to_bytes(4, "big")
    return b"\x81" + value.to_bytes(8, "big")
