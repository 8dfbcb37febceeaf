"""A draft in a plain vault: where it lies, how it becomes a backup, and how it vanishes.

On a store that renames, everything is first laid out below ``.holdfast/drafts/<id>/new`` as it
will lie in the vault. A backup in one folder is then sealed by one rename. In a flat layout the
artifacts are renamed one by one, and at last the folder with the documents, which makes the backup
exist; what is to be renamed was written down before, so that a sweep can take back what a crash
left half done.
On a store without renames the names are written in place, each written down before, manifest last.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

from ..model.artifact import Artifact, Stream, Tree
from ..model.manifest import Form, Manifest, Stored, decode, encode
from ..ports import Adopting, Store
from ._archive import ARCHIVES, Pack
from ._compress import compress
from ._digest import Digest, told
from ._plain_documents import documents, is_sealed, remove_empty_homes
from ._plain_layout import DRAFTS, META_SUFFIX, METADATA, Layout, Placing, from_home, home_of

PREFACE = """\
## First: is it whole?

Run these commands in the folder that this file lies in.

```sh
sha256sum -c SHA256SUMS
```
"""


def draft_folder(backup_id: str) -> str:
    """Return the folder of a draft in the vault."""
    return f"{DRAFTS}/{backup_id}"


class PlainDraft:
    """A backup that nobody sees yet."""

    def __init__(self, store: Store, layout: Layout, placing: Placing, workspace: Path) -> None:
        self.workspace = workspace
        self._store = store
        self._layout = layout
        self._placing = placing
        self._folder = draft_folder(placing.backup_id)
        self._owners: dict[str, str] = {}  # path → component
        self._lock = threading.Lock()

    def put(self, component: str, artifact: Artifact, progress: Callable[[int], None]) -> Stored:
        """Keep an artifact; its checksum is made while it is written."""
        path = self._layout.place(self._placing, component, artifact)
        self._claim(path, component)
        try:
            if isinstance(artifact, Stream):
                return self._keep_stream(component, artifact, path, progress)
            return self._keep_tree(component, artifact, path, progress)
        except BaseException:
            self._drop(path)
            raise

    def discard(self, component: str) -> None:
        """Drop what was put for a component."""
        for path in [path for path, owner in self._owners.items() if owner == component]:
            self._drop(path)

    def link(self, stored: Stored) -> str:
        """Return the path of an artifact from the folder that ``RESTORE.md`` will lie in."""
        return from_home(stored.path, self._home())

    def notes(self) -> tuple[str, ...]:
        """Say nothing: archives hold whatever there is."""
        return ()

    def preface(self) -> str:
        """Say how to see whether the files beside ``RESTORE.md`` are whole."""
        return PREFACE

    def seal(self, manifest: Manifest, guide: str) -> None:
        """Make the backup exist: one rename, or one value that was not there before, is last."""
        put = {stored.path for stored in manifest.artifacts}
        if manifest.id != self._placing.backup_id or put != self._owners.keys():
            bug = f"the manifest of {manifest.id} does not list what was put into this draft"
            raise ValueError(bug)
        home = self._home()
        texts = documents(manifest, guide, home)
        _check_readable(texts[f"{home}/{METADATA}"], manifest.id)
        self.publish(texts, home)

    # --- artifacts ---

    def _claim(self, path: str, component: str) -> None:
        """Reserve a path, and write it down where it is written in place."""
        with self._lock:
            for other in self._owners:
                if _collide(path, other):
                    raise self._layout.clash(self._placing, path, other)
            self._owners[path] = component
            if not self._store.renames:
                self._refuse_taken(path)
                self._note([*self._owners])

    def _refuse_taken(self, path: str) -> None:
        """Never write down a name that is somebody else's: a sweep would delete it."""
        try:
            with self._store.get(path):
                taken = True
        except FileNotFoundError:
            taken = False
        if taken:
            del self._owners[path]
            raise self._layout.clash(self._placing, path, "a file that is in the vault already")

    def _drop(self, path: str) -> None:
        self._store.delete(self.place(path))
        with self._lock:
            self._owners.pop(path, None)

    def place(self, path: str) -> str:
        """Return where something lies in the draft that will lie at ``path`` in the vault."""
        return f"{self._folder}/new/{path}" if self._store.renames else path

    def _keep_stream(
        self, component: str, stream: Stream, path: str, progress: Callable[[int], None]
    ) -> Stored:
        digest = Digest()
        if self._layout.compresses(stream):
            return self._keep_compressed(component, stream, path, progress)
        if self._adopt(stream, path):
            with self._store.get(self.place(path)) as chunks:
                for _hashed in told(digest.through(chunks), progress):
                    pass
        else:
            with stream.open() as chunks:
                self._store.put(self.place(path), told(digest.through(chunks), progress))
        return Stored(
            component=component,
            name=stream.name,
            form=Form.STREAM,
            path=path,
            size=digest.size,
            sha256=digest.sha256,
            encoding="identity",
            content_size=digest.size,
            part=stream.part,
            labels=dict(stream.labels),
        )

    def _keep_compressed(
        self, component: str, stream: Stream, path: str, progress: Callable[[int], None]
    ) -> Stored:
        digest, size = Digest(), 0

        def count(done: int) -> None:
            nonlocal size
            size += done
            progress(done)

        method = ARCHIVES[self._placing.archive]
        with stream.open() as chunks:
            packed = compress(told(chunks, count), method)
            self._store.put(self.place(path), digest.through(packed))
        return Stored(
            component=component,
            name=stream.name,
            form=Form.STREAM,
            path=path,
            size=digest.size,
            sha256=digest.sha256,
            encoding=method.value,
            content_size=size,
            part=stream.part,
            labels=dict(stream.labels),
        )

    def _adopt(self, stream: Stream, path: str) -> bool:
        """Take the stream's file for our own, where that is allowed and possible."""
        store = self._store
        if stream.path is None or not stream.disposable or not isinstance(store, Adopting):
            return False
        return store.adopt(self.place(path), stream.path)

    def _keep_tree(
        self, component: str, tree: Tree, path: str, progress: Callable[[int], None]
    ) -> Stored:
        digest, packed = Digest(), Pack(tree, self._placing.archive, progress)
        self._store.put(self.place(path), digest.through(packed.chunks()))
        return Stored(
            component=component,
            name=tree.name,
            form=Form.TREE,
            path=path,
            size=digest.size,
            sha256=digest.sha256,
            encoding=packed.encoding,
            content_size=packed.content_size,
            entries=packed.entries,
            part=tree.part,
            labels=dict(tree.labels),
        )

    # --- sealing ---

    def _home(self) -> str:
        return home_of(self._placing.backup_id, self._owners, boxed=self._layout.boxed)

    def publish(self, texts: dict[str, bytes], home: str) -> None:
        """Write the documents, and let everything appear; ``texts`` ends with the manifest."""
        if not self._store.renames:
            self._note([*self._owners, *texts])
        for name, text in texts.items():
            self._store.put(self.place(name), iter((text,)))
        if self._store.renames:
            self._appear([*self._owners, *texts], home)

    def _appear(self, names: list[str], home: str) -> None:
        outside = [name for name in names if not name.startswith(f"{home}/")]
        if outside:
            self._note(outside)
        for name in outside:
            self._store.rename(self.place(name), name)
        self._store.rename(self.place(home), home)

    def adopted(self, path: str, component: str) -> str:
        """Reserve a path for an artifact that is taken in; returns where to write it."""
        self._claim(path, component)
        return self.place(path)

    def _note(self, names: list[str]) -> None:
        self._store.replace(f"{self._folder}/names", json.dumps(names).encode())


def _check_readable(metadata: bytes, backup_id: str) -> None:
    """Never seal what could not be read back: a backup is worth as much as its manifest."""
    if encode(decode(metadata, backup_id)) != metadata:
        bug = f"the manifest of {backup_id} is not the same when it is read back"
        raise ValueError(bug)


def _collide(one: str, other: str) -> bool:
    """Tell whether two paths cannot both be there, with the documents beside them."""
    if one in {other, other + META_SUFFIX} or other == one + META_SUFFIX:
        return True
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


def clear_draft(store: Store, backup_id: str) -> bool:
    """Remove a draft that nobody works on, and what an unfinished seal put into the vault.

    A sealed backup stays. Returns whether there was anything.
    """
    folder = draft_folder(backup_id)
    found = backup_id in store.folders(DRAFTS)
    if found:
        if not is_sealed(store, backup_id):
            _take_back(store, folder)
            remove_empty_homes(store, backup_id)
        store.delete(folder)
    return found


def _take_back(store: Store, folder: str) -> None:
    try:
        names: list[str] = json.loads(store.read(f"{folder}/names"))
    except FileNotFoundError:
        return
    # What still waits in the draft was never renamed: a file under its name is somebody else's.
    start = len(folder) + len("/new/")
    waiting = {name[start:] for name in store.names(f"{folder}/new")}
    for name in names:
        if name not in waiting:
            store.delete(name)
