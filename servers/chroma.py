"""Chroma's own server, ``chroma run``, on a free port of this machine alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

CHROMA = Path(sys.executable).with_name("chroma")
START_SECONDS = 60.0
STARTS = 5  # another program may take a port that was free a moment before
TENANT = "default_tenant"


class ChromaServer:
    """A running server, and its API as tests speak to it: by the standard library alone."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- its process ---

    def start(self) -> bool:
        """Start it and wait until it answers; returns whether it does."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(CHROMA),
                    "run",
                    "--path",
                    "data",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(self.port),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ANONYMIZED_TELEMETRY": "False"},
                cwd=self.folder,
            )
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.call("GET", "/heartbeat")
            except OSError:
                time.sleep(0.05)
            else:
                return True
        return False

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it in an orderly way, and for certain."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    # --- its API ---

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the answer; raises ``urllib.error.HTTPError``."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/api/v2{path}", data, headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - this machine
            return json.loads(answer.read() or b"null")

    def found(self, path: str) -> Any:
        """Return what there is under a path, or None."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 404:
                raise
            return None

    def databases(self, tenant: str = TENANT) -> list[str]:
        return sorted(each["name"] for each in self.call("GET", f"/tenants/{tenant}/databases"))

    def create_database(self, name: str, tenant: str = TENANT) -> Database:
        self.call("POST", f"/tenants/{quote(tenant)}/databases", {"name": name})
        return self.database(name, tenant)

    def database(self, name: str, tenant: str = TENANT) -> Database:
        return Database(self, name, tenant)


class Database:
    """A database, which may be there or not."""

    def __init__(self, server: ChromaServer, name: str, tenant: str = TENANT) -> None:
        self.server = server
        self.name = name
        self.path = f"/tenants/{quote(tenant)}/databases/{name}"

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return what the server says of each collection, by name; nothing without a database."""
        if self.server.found(self.path) is None:
            return {}
        return {each["name"]: each for each in self.server.call("GET", f"{self.path}/collections")}

    def create(self, name: str, **settings: Any) -> Collection:
        made = self.server.call("POST", f"{self.path}/collections", {"name": name, **settings})
        return Collection(self, made["id"])

    def collection(self, name: str) -> Collection:
        return Collection(self, self.collections()[name]["id"])

    def delete(self, name: str) -> None:
        self.server.call("DELETE", f"{self.path}/collections/{name}")


class Collection:
    """A collection, by its id."""

    def __init__(self, database: Database, collection_id: str) -> None:
        self.server = database.server
        self.id = collection_id
        self.path = f"{database.path}/collections/{collection_id}"

    def call(self, verb: str, **body: Any) -> Any:
        return self.server.call("POST", f"{self.path}/{verb}", body)

    def count(self) -> int:
        return int(self.server.call("GET", f"{self.path}/count"))

    def rename(self, name: str) -> None:
        self.server.call("PUT", self.path, {"new_name": name})

    def records(self) -> dict[str, dict[str, Any]]:
        """Return all records by id, in one answer."""
        names = ("embeddings", "documents", "metadatas", "uris")
        said = self.call("get", include=names)
        rows = zip(said["ids"], *(said[name] for name in names), strict=True)
        keys = ("embedding", "document", "metadata", "uri")
        return {row[0]: dict(zip(keys, row[1:], strict=True)) for row in rows}


@contextmanager
def chroma_server() -> Iterator[ChromaServer]:
    """Start a server on an empty folder, wait until it answers, and end it."""
    folder = Path(tempfile.mkdtemp(prefix="chroma-"))
    server = None
    try:
        for _start in range(STARTS):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port: int = free.getsockname()[1]
            server = ChromaServer(folder, port)
            if server.start():
                break
            server.stop()
        else:
            raise AssertionError((folder / "log").read_text(errors="replace")[-2000:])
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
