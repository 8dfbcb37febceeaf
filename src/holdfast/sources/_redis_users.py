"""The users of a server's access control list, which no RDB has in it.

They are kept as the lines of ``ACL LIST``, with hashes in place of passwords. A restore sets the
users that it has and leaves all others alone; it touches neither ``default``, whose password stands
in the server's own configuration, nor the user that Holdfast itself comes as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ._redis_wire import Said, Wire, text

DEFAULT = "default"


def users(wire: Wire) -> dict[str, str] | None:
    """Return the rules of each user by name; None if the server has none, or does not tell."""
    answer = wire.ask("ACL", "LIST")
    if isinstance(answer, Said):
        if answer.refused:
            return None
        raise wire.access.error("ACL LIST", answer)
    return parsed(text(line) for line in answer)


def parsed(lines: Iterable[str]) -> dict[str, str]:
    """Return users from lines as ``ACL LIST`` has them, without ``default``.

    Raises ``ValueError`` at a line that is not one.
    """
    found = {}
    for line in lines:
        word, _space, rest = line.partition(" ")
        name, _space, rules = rest.partition(" ")
        if word != "user" or not name or not rules:
            raise ValueError("a line does not describe a user")
        if name != DEFAULT:
            found[name] = rules
    return found


def written(found: Mapping[str, str]) -> str:
    """Return users as lines."""
    return "".join(f"user {name} {rules}\n" for name, rules in sorted(found.items()))


def set_users(wire: Wire, wanted: Mapping[str, str]) -> None:
    """Let users be as said, and be kept where the server keeps a file of them.

    Raises:
        AccessRefused: the account may not.
        ServerFailed: the server does not know a rule.

    """
    own = _own(wire)
    for name, rules in wanted.items():
        if name != own:
            wire.call("ACL", "SETUSER", name, "reset", *rules.split(" "))
    _save(wire)


def set_back(wire: Wire, touched: Iterable[str], before: Mapping[str, str]) -> None:
    """Let users be as they were; those that were not there go."""
    own = _own(wire)
    names = [name for name in touched if name != own]
    for name in names:
        if name in before:
            wire.call("ACL", "SETUSER", name, "reset", *before[name].split(" "))
        else:
            wire.call("ACL", "DELUSER", name)
    _save(wire)


def _own(wire: Wire) -> str:
    return text(wire.call("ACL", "WHOAMI"))


def _save(wire: Wire) -> None:
    if wire.setting("aclfile"):
        wire.call("ACL", "SAVE")
