"""kill -9 before every change of the file system while backups are copied between vaults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from holdfast.model.events import Event
from holdfast.ports import Vault
from holdfast.runtime.session import Session, open_session
from holdfast.runtime.transfer import copy_backups
from holdfast.stores.local import LocalStore
from tests.faults.test_repository_upkeep_kill import crashes
from tests.restic_world import PASSWORD, restic
from tests.upkeep_world import contents, keep, new_vault, small_packs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CONFIG = """\
stack: stack
components:
  component: {{source: files, path: data}}
vaults:
  plain: {{kind: plain, url: plain}}
  origin: {{kind: repository, url: origin, password: {password}}}
  target: {{kind: repository, url: target, password: {password}}}
"""
REPOSITORIES = ("origin", "target")


def hear(_event: Event) -> None:
    """Say nothing."""


class Scene:
    """Two repositories and a plain vault; two backups in one of them, the older in another, too."""

    def __init__(self, folder: Path, source: str, target: str) -> None:
        self.folder = folder / "stack"
        self.source = source
        self.target = target
        self._kept = folder / "kept"
        self.folder.mkdir()
        (self.folder / "holdfast.yaml").write_text(CONFIG.format(password=PASSWORD))
        for name in REPOSITORIES:
            new_vault(LocalStore(self.folder / name))
        vault = self.vault(source)
        with small_packs(4):
            made = [keep(vault, day, range(3 * day, 3 * day + 4)) for day in range(2)]
        self.copy([made[0].id])
        self.contents = contents(vault)
        self.ids = [manifest.id for manifest in made]
        shutil.copytree(self.folder, self._kept)

    def session(self) -> Session:
        return open_session(self.folder / "holdfast.yaml")

    def vault(self, name: str) -> Vault:
        return self.session().vault(name)

    def copy(self, wanted: list[str] | None = None) -> list[str]:
        with small_packs(4):
            copied = copy_backups(self.session(), wanted or [], self.source, self.target, hear)
        return [manifest.id for manifest in copied]

    def again(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept, self.folder)

    def check(self) -> None:
        """See that restic finds no error in any repository, once nobody holds it any more."""
        for name in REPOSITORIES:
            restic("0.18", self.folder / name, "unlock")
            restic("0.18", self.folder / name, "check", "--read-data")


@pytest.mark.parametrize(
    ("source", "target"), [("origin", "target"), ("origin", "plain"), ("plain", "origin")]
)
def test_killed_while_copying(in_memory: Path, source: str, target: str) -> None:
    scene = Scene(in_memory, source, target)
    older, newer = scene.ids
    seen: list[list[str]] = []
    for step in crashes(scene.copy):
        there = contents(scene.vault(target))
        assert there.items() <= scene.contents.items(), step
        assert older in there, "what was copied before stays"
        seen.append(list(there))
        if step % 40 == 1:
            assert contents(scene.vault(source)) == scene.contents, step
            scene.check()
        assert scene.copy() == ([] if newer in there else [newer]), step
        scene.vault(target).sweep()
        assert scene.vault(target).sweep() == [], step
        after = contents(scene.vault(target))
        assert after == scene.contents, step
        assert list(after) == scene.ids, "and in their order"
        scene.again()
    assert seen == sorted(seen, key=len), "a copy that existed must not vanish again"
    assert (seen[0], seen[-1]) == ([older], scene.ids)
    assert len(seen) > 20
