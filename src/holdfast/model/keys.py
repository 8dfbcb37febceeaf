"""Keys: what is known of the passwords that open a vault."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """One key; ``current`` says that it is the one that the vault was opened with."""

    name: str
    created: str
    username: str
    hostname: str
    current: bool
