"""The ports that a service of a compose file publishes, in all forms that there are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ._compose_yaml import Plain

HIGHEST = 65535
MOST = 1000  # ports of one range

_SHORT = re.compile(
    r"(?:(?:(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]]*):)?(?P<published>[0-9-]*):)?(?P<target>[0-9-]+)"
    r"(?:/(?P<protocol>\w+))?",
    re.ASCII,
)
_EVERYWHERE = {"", "0.0.0.0", "::", "*"}  # noqa: S104 - nothing is bound here


@dataclass(frozen=True, slots=True)
class Port:
    """A port inside a service, and where this machine reaches it.

    ``published`` is None where it changes with every start.
    """

    target: int
    published: int | None
    host: str = "localhost"


def read_ports(written: Sequence[Plain], text: Callable[[str], str]) -> Iterator[Port]:
    """Give the TCP ports. ``text`` replaces variables; what is no port is passed over."""
    for item in written:
        yield from _long(item, text) if isinstance(item, dict) else _short(text(str(item)))


def _short(item: str) -> Iterator[Port]:
    if found := _SHORT.fullmatch(item.strip()):
        yield from _ports(
            found["target"], found["published"] or "", found["host"] or "", found["protocol"]
        )


def _long(item: dict[str, Plain], text: Callable[[str], str]) -> Iterator[Port]:
    def field(name: str) -> str:
        value = item.get(name)
        return text(value) if isinstance(value, str) else ""

    yield from _ports(field("target"), field("published"), field("host_ip"), field("protocol"))


def _ports(target: str, published: str, host: str, protocol: str | None) -> Iterator[Port]:
    inside, outside = _range(target), _range(published)
    if (protocol or "tcp").lower() != "tcp":
        return
    where = "localhost" if host in _EVERYWHERE or host == "[::]" else host
    for index, port in enumerate(inside):
        # One port inside and a range outside: any of them is taken.
        taken = index < len(outside) and len(outside) == len(inside)
        yield Port(port, outside[index] if taken else None, where)


def _range(text: str) -> range:
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (dash and not high.isdecimal()):
        return range(0)
    begin, end = int(low), int(high or low)
    if not 0 < begin <= end <= HIGHEST or end - begin >= MOST:
        return range(0)
    return range(begin, end + 1)
