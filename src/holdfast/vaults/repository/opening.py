"""Making a repository, and opening one with a password."""

from __future__ import annotations

from datetime import datetime

from holdfast.errors import (
    KeysMissing,
    RepositoryExists,
    RepositoryMissing,
    RepositoryTooNew,
    VaultUnavailable,
    WrongPassword,
)
from holdfast.ports import Store

from . import config as configs
from . import keys
from .config import Config
from .crypto import Key, random_key
from .damage import DamagedError, damage_in
from .passwords import read_key, store_key
from .repository import Repository
from .stored import ids_in, read_bounded


def init_repository(store: Store, where: str, password: str, now: datetime) -> Repository:
    """Make a new repository.

    The config is stored last: where that is missing there is no repository yet. What died before
    left a key, which is used if the password opens it. No key is ever deleted here: if the config
    was lost, keys are what everything else can still be read with.

    Raises:
        RepositoryExists: there is one already.
        RepositoryDamaged: there are keys of another password, and no config.

    """
    if _is_there(store):
        raise RepositoryExists(where=where)
    key_name, key = _key_of_new(store, where, password, now)
    config = configs.new_config()
    store.put(configs.NAME, iter((configs.encode_config(key, config),)))
    return Repository(store, where, key, key_name, config)


def _key_of_new(store: Store, where: str, password: str, now: datetime) -> tuple[str, Key]:
    names = ids_in(store, keys.FOLDER)
    with damage_in(where, keys.FOLDER):
        for found in keys.opened_by(password, names, lambda name: read_key(store, name)):
            return found
        if names:
            raise DamagedError("there are keys of another password here, but no config")
    key = random_key()
    return store_key(store, key, password, now), key


def open_repository(store: Store, where: str, password: str) -> Repository:
    """Open a repository with any of its passwords.

    Raises:
        RepositoryMissing: there is none.
        WrongPassword: no key opens with this one.
        KeysMissing: there is no key.
        RepositoryDamaged: the config or the key is damaged.
        RepositoryTooNew: its version is not known.

    """
    if not _is_there(store):
        raise RepositoryMissing(where=where, reason=f"the file `{configs.NAME}` is not there")
    key_name, key, config = _opened(store, where, password)
    if config.version not in configs.READABLE:
        known = f"up to {max(configs.READABLE)}"
        raise RepositoryTooNew(where=where, found=config.version, known=known)
    return Repository(store, where, key, key_name, config)


def _opened(store: Store, where: str, password: str) -> tuple[str, Key, Config]:
    """Find the key that opens with the password, and opens the config.

    A key may do only the first: where two made the same repository at once, one's was in vain.
    """
    names = ids_in(store, keys.FOLDER)
    if not names:
        raise KeysMissing(where=where)
    with damage_in(where, configs.NAME):
        stored = read_bounded(store, configs.NAME, configs.LARGEST)
    damage = None
    with damage_in(where, keys.FOLDER):
        for name, key in keys.opened_by(password, names, lambda name: read_key(store, name)):
            try:
                return name, key, configs.decode_config(key, stored)
            except DamagedError as error:
                damage = error
    if damage is None:
        raise WrongPassword(where=where, count=len(names))
    with damage_in(where, configs.NAME):
        raise damage


def _is_there(store: Store) -> bool:
    try:
        store.part(configs.NAME, 0, 1)
    except FileNotFoundError:
        return False
    except VaultUnavailable:  # it is empty, or cannot be read: that is for others to say
        return True
    return True
