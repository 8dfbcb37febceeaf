"""Options of a component of kind ``objects``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from holdfast.model.options import Field, LocalPath, Options
from holdfast.model.urls import bucket_and_prefix, check_endpoint
from holdfast.s3.http import Address

from ._exclude import excluder


class ObjectsOptions(Options):
    """Options of a component of kind ``objects``."""

    url: str | None = Field(
        default=None,
        description="The bucket, as `s3://bucket`, or a part of it, as `s3://bucket/prefix`.",
    )
    endpoint: str | None = Field(
        default=None,
        description="The server, as `http://localhost:9000`. Without it, Amazon's own.",
    )
    region: str = Field(default="us-east-1", description="The region that the bucket is in.")
    access_key: str = Field(
        default="",
        description="The access key. Without it, credentials are looked for where Amazon's tools"
        " look: the environment, `~/.aws`, and the machine's role.",
    )
    secret_key: str = Field(default="", description="The secret key that belongs to it.")
    session_token: str = Field(
        default="", description="The session token, where credentials are temporary."
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Whether the bucket is a part of the path or of the host's name (`virtual`)."
        " `auto` is `virtual` at Amazon, and `path` elsewhere.",
    )
    ca: LocalPath | None = Field(
        default=None,
        description="A file with the certificates to trust instead of the system's, in PEM.",
    )
    folder: LocalPath | None = Field(
        default=None,
        description="Where the same objects lie as files when there is no bucket: used without"
        " `url`, and where the server cannot be reached.",
    )
    aside: str | None = Field(
        default=None,
        description="Where restores stage objects and keep what they replaced, instead of in the"
        " live bucket: `s3://other` or `s3://other/prefix`, a bucket of the same server that is"
        " there already.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        description="Patterns as in .gitignore of keys that are left out. A restore leaves what"
        " they match as it is.",
    )
    versions: bool = Field(
        default=False,
        description="Whether old versions and marks of deletion are backed up too, where the bucket"
        " keeps them.",
    )
    tags: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Whether tags are backed up. They cost a request for each object that has some"
        " (`auto`), or, at servers that do not say which have, for each (`always`).",
    )
    checksums: bool = Field(
        default=True,
        description="Whether the bytes of an object are compared with its ETag where that is their"
        " MD5. Turn it off for a server that invents such ETags.",
    )
    remove_extra: bool = Field(
        default=True,
        description="Whether a restore removes objects that are not in the backup.",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=64,
        description="How many requests are under way at once.",
    )
    attempts: int = Field(
        default=6,
        ge=1,
        le=100,
        description="How often a request is sent before it is given up, with growing pauses.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to wait for a connection."
    )
    timeout: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds that the server may be silent."
    )

    @model_validator(mode="after")
    def _validated(self) -> Self:
        if self.url is None and self.folder is None:
            raise ValueError("give `url`, or `folder`, or both")
        if self.url is not None:
            bucket_and_prefix(self.url)
        if self.aside is not None:
            if self.url is None:
                raise ValueError("`aside` belongs to `url`")
            bucket_and_prefix(self.aside)
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("`access_key` and `secret_key` belong together")
        if self.endpoint is not None:
            check_endpoint(self.endpoint)
        excluder(self.exclude)
        return self

    @property
    def address(self) -> Address:
        """Where the bucket is."""
        bucket, _prefix = bucket_and_prefix(self.url or "")
        return Address.of(bucket, self.endpoint, self.addressing)
