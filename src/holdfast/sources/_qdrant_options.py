"""What can be configured of a component of kind ``qdrant``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import field_validator

from holdfast.i18n import _
from holdfast.model.options import Field, LocalPath, Options


class QdrantOptions(Options):
    """Options of a component of kind ``qdrant``."""

    url: str = Field(description="Where the server is: `http://host:6333` or `https://…`.")
    api_key: str = Field(
        default="", description="A key that may manage the server: one that only reads cannot."
    )
    collections: tuple[str, ...] = Field(
        default=(), description="Names or aliases of collections. Default: all there are."
    )
    nodes: tuple[str, ...] = Field(
        default=(),
        description="Of a cluster, the URL of each node: a snapshot has only what its node holds.",
    )
    timeout: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds to wait for an answer."
    )
    connect_timeout: float = Field(
        default=10.0, gt=0, le=600, description="Seconds to wait for a connection."
    )
    snapshot_timeout: float = Field(
        default=7200.0,
        gt=0,
        le=86400,
        description="Seconds that the server may take to make, or to load, one snapshot.",
    )
    authority: LocalPath | None = Field(
        default=None, description="A file of certificates to trust in place of the system's."
    )
    server: LocalPath | None = Field(
        default=None,
        description="The program `qdrant`, to verify backups by restoring them into a server of"
        " their own. Default: the one on the path, if there is one.",
    )

    @field_validator("url", "nodes")
    @classmethod
    def _urls(cls, value: Any) -> Any:
        for url in [value] if isinstance(value, str) else value:
            if not is_url(url):
                raise ValueError(_("is no URL with http:// or https:// and a host"))
        return value

    @property
    def every_node(self) -> tuple[str, ...]:
        """The URLs of all nodes: of the one server, or those of a cluster."""
        return self.nodes or (self.url,)

    def elsewhere(self, url: str, api_key: str | None = None) -> QdrantOptions:
        """Return the options for one other server; with another key it is one of our own."""
        changed: dict[str, Any] = {"url": url, "nodes": ()}
        if api_key is not None:
            changed |= {"api_key": api_key, "authority": None, "collections": ()}
        return self.model_copy(update=changed)


def is_url(url: str) -> bool:
    """Tell whether a server can be addressed by this."""
    parts = urlsplit(url)
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
