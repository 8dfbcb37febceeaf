"""Where a vault's URL leads, and which options fit it."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.errors import ExtraMissing
from holdfast.model.stack import VaultSpec
from holdfast.model.store_options import StoreOptions
from holdfast.model.urls import SshFolder, ssh_folder
from holdfast.ports import Store
from holdfast.runtime import stores
from holdfast.runtime.registry import open_vault
from holdfast.runtime.stores import open_store
from holdfast.stores.append_only import AppendOnlyStore
from holdfast.stores.limited import LimitedStore
from holdfast.stores.local import LocalStore
from holdfast.stores.s3 import S3Store
from holdfast.stores.sftp import SftpStore
from holdfast.vaults.plain import PlainOptions, PlainVault


def options(url: str, **given: Any) -> StoreOptions:
    return StoreOptions.model_validate({"url": url, **given}, context={"base": "/etc/holdfast"})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("backups", Path("/etc/holdfast/backups")),
        ("/mnt/backups", Path("/mnt/backups")),
        ("file:///mnt/backups", Path("/mnt/backups")),
        ("odd:name", Path("/etc/holdfast/odd:name")),
        ("s3://bucket/some/prefix", "s3://bucket/some/prefix"),
        ("sftp://me@host:2022/srv/backups", "sftp://me@host:2022/srv/backups"),
    ],
)
def test_urls_lead_to_places(url: str, place: Path | str) -> None:
    found = options(url).url
    assert (found, type(found)) == (place, type(place))


def test_urls_in_json_are_read_alike() -> None:
    read = StoreOptions.model_validate_json
    assert read('{"url": "s3://bucket", "region": "eu-west-3"}').scheme == "s3"
    assert read('{"url": "/mnt/backups"}').url == Path("/mnt/backups")
    with pytest.raises(ValidationError, match="is not text"):
        read('{"url": 5}')


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "empty"),
        ("ftp://host/x", "not at ftp:/"),
        ("file://host/x", "not at file:/"),
        ("s3://", "s3://bucket"),
        ("s3:/bucket", "s3://bucket"),
        ("sftp://host", "sftp://user@host/path"),
        ("sftp://host/", "sftp://user@host/path"),
        ("sftp:///path", "sftp://user@host/path"),
        ("sftp://host:x/path", "no number"),
        ("sftp://me:hunter22@host/path", "no password"),
    ],
)
def test_other_urls_are_refused_without_what_may_be_secret(url: str, what: str) -> None:
    with pytest.raises(ValidationError, match=what) as caught:
        options(url)
    assert "hunter22" not in str(caught.value)


def test_folders_of_ssh_servers() -> None:
    assert ssh_folder("sftp://me@host:2022/srv/a%20b/") == SshFolder("host", "me", 2022, "/srv/a b")
    assert ssh_folder("sftp://host/~/backups") == SshFolder("host", "", 0, "backups")
    assert ssh_folder("sftp://[::1]:22/x") == SshFolder("::1", "", 22, "/x")


@pytest.mark.parametrize(
    ("url", "given", "what"),
    [
        ("backups", {"endpoint": "http://localhost:9000"}, "`endpoint` is for vaults at s3"),
        ("sftp://host/x", {"lock_mode": "governance", "lock_days": 3}, "is for vaults at s3"),
        ("s3://bucket", {"ssh_key": "id"}, "`ssh_key` is for vaults at sftp"),
        ("s3://bucket", {"access_key": "AKID"}, "belong together"),
        ("s3://bucket", {"lock_mode": "governance"}, "belong together"),
        ("s3://bucket", {"lock_mode": "governance", "lock_days": 0}, "greater than"),
        ("s3://bucket", {"endpoint": "localhost:9000"}, "http://"),
        ("s3://bucket", {"upload_limit": 0}, "greater than"),
        ("s3://bucket", {"upload_limit": "fast"}, "byte"),
    ],
)
def test_options_that_do_not_fit_are_refused(url: str, given: dict[str, Any], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        options(url, **given)


def store_for(url: str, **given: Any) -> Store:
    return open_store("offsite", options(url, **given), ("locks",))


def test_the_scheme_chooses_the_store() -> None:
    assert isinstance(store_for("backups"), LocalStore)
    assert isinstance(store_for("s3://bucket", access_key="AKID", secret_key="hush"), S3Store)
    assert isinstance(store_for("sftp://host/x", ssh_key="id"), SftpStore)


def test_limits_and_append_only_come_around_it() -> None:
    store = store_for("backups", upload_limit="2MiB", append_only=True)
    assert isinstance(store, AppendOnlyStore)
    assert isinstance(store.store, LimitedStore)
    assert isinstance(store.store.store, LocalStore)
    assert store.store._upload is not None
    assert store.store._upload._rate == 2 << 20
    assert store.store._download is None


def test_options_reach_the_client() -> None:
    store = store_for(
        "s3://bucket/brain",
        endpoint="https://s3.example.org",
        region="eu-west-3",
        access_key="AKID",
        secret_key="hush",
        lock_mode="compliance",
        lock_days=30,
        attempts=3,
    )
    assert isinstance(store, S3Store)
    assert store._prefix == "brain/"
    assert store._client.address.host("eu-west-3") == "s3.example.org"
    assert store._client.signer.region == "eu-west-3"
    assert store._client.patience.attempts == 3
    assert store._retention is not None
    assert (store._retention.mode, store._retention.days) == ("compliance", 30)
    assert store._passing == ("locks/",)


def test_key_files_are_beside_the_configuration_and_are_no_places_of_data() -> None:
    found = options("sftp://host/x", ssh_key="keys/id", known_hosts="/etc/known")
    assert (found.ssh_key, found.known_hosts) == ("/etc/holdfast/keys/id", "/etc/known")


def test_secrets_are_in_no_representation() -> None:
    s3 = options("s3://bucket", access_key="AKID", secret_key="hush-s3", session_token="hush-token")
    ssh = options("sftp://host/x", ssh_password="hush-ssh", ssh_key_password="hush-key")
    assert "hush" not in f"{s3!r} {s3!s} {ssh!r} {ssh!s}"
    store = open_store("offsite", ssh, ())
    assert isinstance(store, SftpStore)
    assert "hush" not in repr(store._session.login)


def test_a_vault_is_opened_on_the_store_of_its_url() -> None:
    chosen = PlainOptions.model_validate(
        {"url": "s3://bucket/brain", "access_key": "AKID", "secret_key": "hush"}
    )
    vault = open_vault(VaultSpec("offsite", "plain", chosen))
    assert isinstance(vault, PlainVault)
    assert isinstance(vault._store, S3Store)
    assert vault._store._passing == (".holdfast/",)


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("s3://bucket", "obstore", "s3"), ("sftp://host/x", "asyncssh", "sftp")],
)
def test_a_missing_driver_is_said_to_be_missing(
    url: str, driver: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "find_spec", lambda name: None if name == driver else name)
    with pytest.raises(ExtraMissing, match=driver) as caught:
        store_for(url)
    assert f"holdfast[{extra}]" in caught.value.hint
    assert isinstance(store_for("backups"), LocalStore)


def test_drivers_are_loaded_when_they_are_used() -> None:
    script = """
import sys
from holdfast.model.store_options import StoreOptions
from holdfast.runtime.stores import open_store
for url in ("s3://bucket", "sftp://host/x"):
    open_store("offsite", StoreOptions(url=url), ())
print([name for name in ("asyncssh", "boto3", "botocore", "obstore") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("bucket", "given", "address"),
    [
        ("brain", {}, "https://brain.s3.eu-west-3.amazonaws.com/p/"),
        ("brain.org", {}, "https://s3.eu-west-3.amazonaws.com/brain.org/p/"),
        (
            "brain",
            {"endpoint": "https://s3.example.org:9000"},
            "https://s3.example.org:9000/brain/p/",
        ),
        (
            "brain",
            {"endpoint": "https://s3.example.org/", "addressing": "virtual"},
            "https://brain.s3.example.org/p/",
        ),
    ],
)
def test_readers_and_writers_ask_the_same_server(
    bucket: str, given: dict[str, Any], address: str
) -> None:
    import obstore

    chosen = {"access_key": "AKID", "secret_key": "hush", "region": "eu-west-3", **given}
    store = store_for(f"s3://{bucket}/p", **chosen)
    assert isinstance(store, S3Store)
    store._reader._met = True  # it would ask the server for its region
    read = obstore.sign(store._reader._bucket, "GET", "p/value", timedelta(seconds=60))
    assert read.partition("?")[0] == f"{address}value"
    client, region = store._client, "eu-west-3"
    scheme = client.address.base(region).partition(":")[0]
    where = f"{scheme}://{client.address.host(region)}{client.address.path(region, 'p/value')}"
    assert where == f"{address}value"
