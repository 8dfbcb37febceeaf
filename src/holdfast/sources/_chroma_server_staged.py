"""New collections beside the live ones, under names of their own, until they take their places.

The switch is two renamings for each collection: the live one aside, the new one into its place.
Each is one transaction of the server; all of them are written down first, by the collections' ids,
so that whoever comes after a crash finds out from the server how far it got.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.errors import SourceCorrupt, TargetUnfit
from holdfast.model.artifact import Artifact, Stream
from holdfast.ports import Source, Token

from ._chroma_server_api import Api, Collection, Place
from ._chroma_server_fill import Filler
from ._chroma_server_format import FlawError
from ._chroma_server_plan import Plan, Renaming
from ._chroma_server_remove import remove
from ._chroma_server_scope import REPLACED, STAGED, Mark, Scope

INTRUDER = "made_meanwhile"
Connect = Callable[[], Api]
Look = Callable[[Callable[[Api], Mapping[str, Collection]]], Source]


def only_stream(artifacts: Sequence[Artifact]) -> Stream | None:
    """Return the one stream that an export is; None: these artifacts are something else."""
    if len(artifacts) == 1 and isinstance(artifacts[0], Stream):
        return artifacts[0]
    return None


class ChromaServerStaged:
    """See `holdfast.ports.Staged`."""

    def __init__(  # noqa: PLR0913 - what it is, where it is, and how to get there
        self,
        component: str,
        scope: Scope,
        token: Token,
        *,
        batch_size: int,
        connect: Connect,
        look: Look,
    ) -> None:
        """``look`` makes a source of what a function finds in the server."""
        self.token = token
        self._component = component
        self._scope = scope
        self._batch_size = batch_size
        self._connect = connect
        self._look = look
        self._mark = Mark(component, str(token["tag"]))
        self._workspace = Path(str(token["workspace"]))

    @property
    def view(self) -> Source:
        """The staged collections by the titles that they had when they were backed up."""
        return self._look(self._staged)

    def _staged(self, api: Api) -> Mapping[str, Collection]:
        plan = Plan.load(self._workspace) or Plan()
        there = {one.id: one for place in plan.places for one in api.collections(place)}
        return {one.title: there[one.id] for one in plan.staged if one.id in there}

    # --- forward ---

    def fill(self, artifacts: Sequence[Artifact]) -> None:
        """Write the new collections; the server has them on its disk when this returns.

        Raises:
            TargetUnfit: the server cannot take this, or the options name other places.
            SourceCorrupt: what is read is not a whole export.
            ServerUnreachable, AccessRefused, ConnectionLost, ServerFailed: what the server did.

        """
        stream = only_stream(artifacts)
        if stream is None:
            reason = "the backup is none of a Chroma server: it holds a folder"
            raise TargetUnfit(component=self._component, path=self._where, reason=reason)
        self._workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._connect() as api, stream.open() as chunks:
            filler = Filler(
                api, self._component, self._scope, self._mark, batch_size=self._batch_size
            )
            try:
                filler.run(chunks, Plan(), self._save)
            except FlawError as error:
                raise SourceCorrupt(
                    component=self._component, path=stream.name, reason=str(error)
                ) from error

    def activate(self) -> None:
        """Switch. What is live but not in the backup goes aside too; doing it again does nothing.

        Raises:
            ServerFailed: a collection is gone, or a client made one again in the middle of it.

        """
        with self._connect() as api:
            plan = self._plan()
            if plan.switch is None:
                plan.switch = self._switch(api, plan)
                self._save(plan)
            ours = {one.id for one in plan.staged}
            for step in plan.switch:
                there = api.rename_collection(_meant(step), step.new)
                if step.id in ours and not there:
                    raise api.failed(f"the staged collection {step.old} is gone")

    def _switch(self, api: Api, plan: Plan) -> list[Renaming]:
        """Return all renamings in their order: the two of a collection follow on each other."""
        places = {*self._scope.places(api), *plan.places}
        found = self._scope.collections(api, sorted(places, key=str))
        live = {(one.place, one.name): one for one in found}
        steps = []
        for new in plan.staged:
            if old := live.pop((new.place, new.name), None):
                steps.append(self._aside(old))
            staged = self._mark.name(STAGED, new.name)
            steps.append(Renaming(new.place, new.id, staged, new.name))
        return [*steps, *map(self._aside, live.values())]

    def _aside(self, one: Collection) -> Renaming:
        return Renaming(one.place, one.id, one.name, self._mark.name(REPLACED, one.name))

    # --- back ---

    def revert(self) -> None:
        """Put the old collections back, and remove what was staged."""
        plan = Plan.load(self._workspace)
        if plan is None:
            return
        with self._connect() as api:
            self._rename_back(api, plan)
            self._remove(api, plan.places, self._mark.ending(STAGED))
            for place in plan.created:
                if not api.collections(place):
                    api.delete_database(place)

    def _rename_back(self, api: Api, plan: Plan) -> None:
        steps = plan.switch or []
        places = {step.place for step in steps}
        names = {one.id: one for place in places for one in api.collections(place)}
        for step in reversed(steps):
            one = names.get(step.id)
            if one is None or one.name != step.new:
                continue
            self._make_room(api, step)
            api.rename_collection(one, step.old)

    def _make_room(self, api: Api, step: Renaming) -> None:
        """Move aside what a client made under the old name meanwhile; it stays in sight."""
        for one in api.collections(step.place):
            if one.name == step.old and one.id != step.id:
                api.rename_collection(one, self._mark.name(INTRUDER, one.name))

    # --- the end ---

    def settle(self, attic: Path | None) -> str | None:
        """Keep what was replaced in the server under its other name, or remove it.

        With an attic it is kept, and what an earlier restore kept there is removed.
        """
        plan = Plan.load(self._workspace)
        if plan is None or plan.switch is None:
            return None
        ending = self._mark.ending(REPLACED)
        places = {*plan.places, *(step.place for step in plan.switch)}
        with self._connect() as api:
            if attic is None:
                self._remove(api, places, ending)
                return None
            kept = [one for place in places for one in api.collections(place)]
            for one in kept:
                if self._mark.earlier(one.name):
                    remove(api, one)
        count = sum(one.name.endswith(ending) for one in kept)
        return f"{count} collections named …{ending} in {self._where}" if count else None

    def _remove(self, api: Api, places: Sequence[Place] | set[Place], ending: str) -> None:
        for place in places:
            for one in api.collections(place):
                if one.name.endswith(ending):
                    remove(api, one)

    # --- pieces ---

    @property
    def _where(self) -> str:
        return str(self.token["url"])

    def _plan(self) -> Plan:
        plan = Plan.load(self._workspace)
        if plan is None:
            raise TargetUnfit(
                component=self._component,
                path=self._where,
                reason=f"what was staged there is not known: {self._workspace} is gone",
            )
        return plan

    def _save(self, plan: Plan) -> None:
        plan.save(self._workspace)


def _meant(step: Renaming) -> Collection:
    return Collection(step.place, step.id, step.old)
