"""Where a vault lies and how its store is reached: the options that every kind of vault shares."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    ByteSize,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from .options import Field, LocalFile, Options, beside_the_file, not_nothing
from .urls import bucket_and_prefix, check_endpoint, ssh_folder

FILE, S3, SFTP = "file", "s3", "sftp"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


def _place(url: object, info: ValidationInfo) -> Path | str:
    """Return a folder as a path, and what is elsewhere as it is written."""
    not_nothing(url)
    if isinstance(url, Path):
        return beside_the_file(url, info)
    if not isinstance(url, str):
        raise ValueError("is not text")  # noqa: TRY004 - the error that pydantic expects
    scheme = found[1] if (found := _SCHEME.match(url)) else ""
    if not scheme:
        return beside_the_file(Path(url), info)
    if scheme == FILE and url.startswith("file:///"):
        return Path(url.removeprefix("file://"))
    if scheme == S3:
        bucket_and_prefix(url)
    elif scheme == SFTP:
        ssh_folder(url)
    else:
        raise ValueError(f"a vault lies in a folder, at s3:// or at sftp://; not at {scheme}:/")
    return url


# No union of types: in JSON, pydantic would take every text for a path.
Place = Annotated[Path | str, PlainValidator(_place), WithJsonSchema({"type": "string"})]
Rate = Annotated[ByteSize, WithJsonSchema({"type": ["integer", "string"]})]


class StoreOptions(Options):
    """Where a vault lies, and how that is reached."""

    url: Place = Field(
        description="Where the vault lies: a folder, relative to the configuration file;"
        " `s3://bucket` or `s3://bucket/prefix`; `sftp://user@host/path`, or"
        " `sftp://user@host/~/path` below the user's home.",
        examples=["s3://bucket/prefix"],
    )
    upload_limit: Rate | None = Field(
        default=None,
        gt=0,
        description="How many bytes a second are sent to the vault at most, as `2MiB`.",
    )
    download_limit: Rate | None = Field(
        default=None,
        gt=0,
        description="How many bytes a second are read from the vault at most, as `2MiB`.",
    )
    append_only: bool = Field(
        default=False,
        description="Whether nothing is ever deleted or replaced in the vault but its locks and"
        " marks: what this machine keeps there, it cannot remove.",
    )
    attempts: int = Field(
        default=6,
        ge=1,
        le=100,
        description="How often a request to an S3 server is sent before it is given up, with"
        " growing pauses.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to wait for a connection to a server."
    )
    timeout: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds that a server may be silent."
    )
    endpoint: str | None = Field(
        default=None,
        description="The S3 server, as `http://localhost:9000`. Without it, Amazon's own.",
    )
    region: str = Field(default="us-east-1", description="The region that the bucket is in.")
    access_key: str = Field(
        default="",
        description="The access key for S3. Without it, credentials are looked for where Amazon's"
        " tools look: the environment, `~/.aws`, and the machine's role.",
    )
    secret_key: str = Field(default="", description="The secret key that belongs to it.")
    session_token: str = Field(
        default="", description="The session token, where credentials for S3 are temporary."
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Whether the bucket is a part of the path or of the host's name (`virtual`)."
        " `auto` is `virtual` at Amazon, and `path` elsewhere.",
    )
    ca: LocalFile | None = Field(
        default=None,
        description="A file with the certificates to trust for S3, in PEM, where the system's do"
        " not suffice.",
    )
    creation: Literal["server", "look"] = Field(
        default="server",
        description="Who sees to it that nothing is overwritten in a bucket: the server, which is"
        " put to the test; or, where it fails that, ourselves by looking first (`look`). Only one"
        " machine may then write to the vault.",
    )
    lock_mode: Literal["governance", "compliance"] | None = Field(
        default=None,
        description="Put what is written under S3 object lock, so that nobody can delete it for"
        " `lock_days`; in mode `compliance` not even the owner of the bucket.",
    )
    lock_days: int | None = Field(
        default=None, ge=1, le=36500, description="How many days S3 object lock holds."
    )
    ssh_key: LocalFile | None = Field(
        default=None,
        description="The private key to log in with. Without it, what `ssh` would use: the agent,"
        " `~/.ssh/config`, and the keys in `~/.ssh`.",
    )
    ssh_key_password: str = Field(default="", description="The password of `ssh_key`.")
    ssh_password: str = Field(
        default="", description="The user's password, for servers that take no keys."
    )
    known_hosts: LocalFile | None = Field(
        default=None,
        description="The file of the host keys to trust. Without it, `~/.ssh/known_hosts` and"
        " `/etc/ssh/ssh_known_hosts`. A host that is not in it is never spoken to.",
    )

    @property
    def scheme(self) -> str:
        """How the store is reached: ``file``, ``s3`` or ``sftp``."""
        return FILE if isinstance(self.url, Path) else self.url.partition(":")[0]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for scheme, names in _ONLY.items():
            strange = sorted(names & self.model_fields_set) if scheme != self.scheme else ()
            if strange:
                raise ValueError(f"`{strange[0]}` is for vaults at {scheme}:// only")
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("`access_key` and `secret_key` belong together")
        if (self.lock_mode is None) != (self.lock_days is None):
            raise ValueError("`lock_mode` and `lock_days` belong together")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        return self


_ONLY = {
    S3: {
        "attempts",
        "endpoint",
        "region",
        "access_key",
        "secret_key",
        "session_token",
        "addressing",
        "ca",
        "creation",
        "lock_mode",
        "lock_days",
    },
    SFTP: {"ssh_key", "ssh_key_password", "ssh_password", "known_hosts"},
}
