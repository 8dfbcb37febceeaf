"""Options of a component of kind ``chroma``: a folder or a server, and what goes with each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, model_validator

from holdfast.model.options import Field, LocalPath, Options

DEFAULT_TENANT = "default_tenant"
OF_A_FOLDER = frozenset({"lock_timeout", "pause_limit", "attempts", "open_timeout"})
OF_A_SERVER = frozenset(
    {
        *("token", "header", "secret_headers", "ca_file"),
        *("tenants", "databases", "collections", "read_twice"),
        *("page_size", "batch_size", "connect_timeout", "answer_timeout", "tries"),
    }
)


def _address(url: str) -> str:
    """Return the address of a server without a ``/`` at its end; its parts are never shown."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must start with http:// or https:// and name a host")
    if parts.username or parts.password:
        raise ValueError("must not hold a password; use `token` or `secret_headers`")
    if parts.query or parts.fragment:
        raise ValueError("must not have a ? or # in it")
    return url.rstrip("/")


Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ChromaOptions(Options):
    """Options of a component of kind ``chroma``: of a folder (`path`), or of a server (`url`)."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["path"]}, {"required": ["url"]}]}
    )

    path: LocalPath | None = Field(
        default=None,
        description="The folder that Chroma persists into: the one with `chroma.sqlite3` in it."
        " Give either this or `url`; where both are at hand, the folder is copied exactly.",
    )
    url: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None,
        description="The address of a Chroma server (1.0 or newer), in place of `path`. Its content"
        " is read while others may write to it.",
        examples=["http://localhost:8000"],
    )

    lock_timeout: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="With `path`: seconds to wait for the store's write lock; others hold it"
        " briefly.",
    )
    pause_limit: float = Field(
        default=120.0,
        gt=0,
        le=900,
        description="With `path`: seconds that writers may have to wait while the folder is copied,"
        " usually a fraction of one for each GB. A copy that would take longer is given up.",
    )
    attempts: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="With `path`: how often to copy again when the store was caught in the middle"
        " of a write.",
    )
    open_timeout: float = Field(
        default=900.0,
        gt=0,
        le=86400,
        description="With `path`: seconds that Chroma may take to open a copy when a backup is"
        " verified natively.",
    )

    token: str = Field(
        default="",
        description="With `url`: what authorises us there.",
        examples=["${env:CHROMA_TOKEN}"],
    )
    header: Literal["Authorization", "X-Chroma-Token"] = Field(
        default="Authorization",
        description="With `url`: how the token is sent: `Authorization: Bearer …`, or"
        " `X-Chroma-Token: …`.",
    )
    secret_headers: dict[str, str] = Field(
        default_factory=dict,
        description="With `url`: further headers to send, for example for a proxy before it.",
        examples=[{"X-Api-Key": "${env:PROXY_KEY}"}],
    )
    ca_file: LocalPath | None = Field(
        default=None,
        description="With `url`: a file of certificates to trust in place of the system's.",
    )
    tenants: Names = Field(
        default=(DEFAULT_TENANT,),
        description="With `url`: which tenants. Chroma has no way to list them.",
    )
    databases: Names | None = Field(
        default=None, description="With `url`: which databases of them; all if not given."
    )
    collections: Names | None = Field(
        default=None,
        description="With `url`: which collections of these; all if not given. A restore leaves"
        " others alone.",
    )
    read_twice: bool = Field(
        default=False,
        description="With `url`: read everything once more and compare. Where nothing changed in"
        " between, the copy is known to be one state of the store; it takes twice as long.",
    )
    page_size: int = Field(
        default=1000,
        ge=1,
        le=5000,
        description="With `url`: how many records to ask for at once; fewer where they are large.",
    )
    batch_size: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="With `url`: how many records to write at once; fewer where they are large.",
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, le=600, description="With `url`: seconds to wait for a connection."
    )
    answer_timeout: float = Field(
        default=120.0,
        gt=0,
        le=3600,
        description="With `url`: seconds that the server may be silent before it answers.",
    )
    tries: int = Field(
        default=4,
        ge=1,
        le=100,
        description="With `url`: how often to ask again what is safe to be asked twice.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give either `path` or `url`")
        here, there = ("path", OF_A_SERVER) if self.path is not None else ("url", OF_A_FOLDER)
        if foreign := sorted(self.model_fields_set & there):
            raise ValueError(f"has `{foreign[0]}`, which does not go with `{here}`")
        return self

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each request to authorise us."""
        if not self.token:
            return dict(self.secret_headers)
        value = self.token if self.header.startswith("X-") else f"Bearer {self.token}"
        return {**self.secret_headers, self.header: value}

    def at_path(self, path: Path) -> Self:
        """Return the same options for another folder."""
        return self.model_copy(update={"path": path})

    def at_url(self, url: str) -> Self:
        """Return the same options for another server; raises ``ValueError`` for what is none."""
        return self.model_copy(update={"url": _address(url)})
