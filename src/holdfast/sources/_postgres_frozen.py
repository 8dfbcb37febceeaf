"""Having a table's rows loaded as if they had always been there.

Rows that are copied into a table in the transaction that emptied it can be written as committed and
visible to everybody (``COPY … FREEZE``). Building indexes and counting then need not mark each of
them, and no vacuum has to come and do it later: an eighth less work for the server. `pg_restore`
has no option for it, but the statement that it will say is in the beginning of an archive, where it
is changed here. An archive in which it is not found is loaded as ever.

See ``pg_backup_archiver.c`` of PostgreSQL, ``WriteStr``: a string has its length before it, a sign
and four bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from holdfast.model.artifact import Chunk, Chunks

_ENOUGH = 1 << 16  # bytes in which the table of contents of an archive of one table ends
_STATEMENT = re.compile(
    rb"""\x00(?P<length>.{4})
    (?P<text>COPY[ ](?P<table>(?:"(?:[^"]|"")+"|[^\s".(]+)(?:\.(?:"(?:[^"]|"")+"|[^\s".(]+))?)
    [^\x00]*?[ ]FROM[ ]stdin;\n)""",
    re.VERBOSE | re.DOTALL,
)
_END = b" FROM stdin;\n"


def frozen(chunks: Chunks) -> Iterator[Chunk]:
    """Give an archive of the rows of one table, which is emptied and then loaded frozen."""
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= _ENOUGH:
            break
    yield changed(head)
    yield from chunks


def changed(head: bytes) -> bytes:
    """Return the beginning of an archive with the statement changed, if it is found in it."""
    for found in _STATEMENT.finditer(head, 0, _ENOUGH):
        text = found["text"]
        if struct.unpack("<i", found["length"]) == (len(text),):
            # Both in one message: that is one transaction.
            loading = text.removesuffix(_END) + b" FROM stdin WITH (FREEZE);\n"
            both = b"TRUNCATE ONLY " + found["table"] + b"; " + loading
            new = b"\x00" + struct.pack("<i", len(both)) + both
            return head[: found.start()] + new + head[found.end() :]
    return head
