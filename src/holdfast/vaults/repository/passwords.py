"""The passwords of a repository: its key files, listed, added, removed, replaced."""

from __future__ import annotations

import getpass
from datetime import datetime

from holdfast.errors import KeyInUse, UnknownName
from holdfast.ports import Store

from . import keys
from .crypto import Key
from .damage import DamagedError, damage_in
from .keys import KeyFile
from .repository import Repository
from .stored import read_bounded


def key_files(repository: Repository) -> list[KeyFile]:
    """Return what the key files say, without opening them."""
    return [_key_file(repository, name) for name in repository.names(keys.FOLDER)]


def _key_file(repository: Repository, name: str) -> KeyFile:
    with damage_in(repository.where, f"{keys.FOLDER}/{name}"):
        return keys.describe(name, read_key(repository.store, name))


def add_key(repository: Repository, password: str, now: datetime) -> str:
    """Let another password open the repository; returns the name of its key."""
    return store_key(repository.store, repository.key, password, now)


def remove_key(repository: Repository, name: str) -> None:
    """Take away a password; never the one that opened the repository.

    The caller holds the exclusive lock, so that two cannot take away each other's.

    Raises:
        KeyInUse: it is that one.
        UnknownName: there is no such key.
        RepositoryDamaged: the key that opened the repository is gone; nothing is removed then.

    """
    if name == repository.key_name:
        raise KeyInUse(key=name, where=repository.where)
    names = repository.names(keys.FOLDER)
    if name not in names:
        raise UnknownName(what="key", name=name, known=", ".join(names))
    with damage_in(repository.where, f"{keys.FOLDER}/{repository.key_name}"):
        if repository.key_name not in names:
            raise DamagedError("the key that opened the repository is gone")
    repository.store.delete(f"{keys.FOLDER}/{name}")


def change_password(repository: Repository, password: str, now: datetime) -> str:
    """Put another password in the place of the one that opened the repository.

    The new key is stored before the old one goes: whenever this breaks off, one of them opens.
    """
    old, repository.key_name = repository.key_name, add_key(repository, password, now)
    repository.store.delete(f"{keys.FOLDER}/{old}")
    return repository.key_name


def read_key(store: Store, name: str) -> bytes:
    """Return the bytes of a key file."""
    return read_bounded(store, f"{keys.FOLDER}/{name}", keys.LARGEST)


def store_key(store: Store, key: Key, password: str, now: datetime) -> str:
    """Store a key file that gives the key for a password; returns its name."""
    name, stored = keys.make_key_file(password, key, now, _username())
    store.put(f"{keys.FOLDER}/{name}", iter((stored,)))
    return name


def _username() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return ""
