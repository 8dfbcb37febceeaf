"""From a document to a stack, and everything that is wrong on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..errors import ConfigInvalid, HoldfastError, SecretMissing, UnsafeName
from ..i18n import _
from ..model.names import safe_name
from ..model.options import Options
from ..model.stack import ComponentSpec, Stack, VaultSpec
from . import build
from .crosscheck import contradictions
from .document import Document, invalid, plain
from .env_files import UnreadableFile, Variables, read_variables
from .interpolate import Interpolation
from .kinds import PLANNED_KEYS, PLANNED_VAULTS, Kinds, OptionsOf
from .nodes import KeyPath
from .problems import from_validation, nearest
from .schema import ComponentPart, EnvFiles, FilePart, VaultPart

Model = TypeVar("Model", bound=BaseModel)
Spec = TypeVar("Spec")
PartOfOne = TypeVar("PartOfOne")

STORES = ("components", "vaults")
ENV_FILE = "env_file"


@dataclass(frozen=True, slots=True)
class Examined:
    """All that is known of a file. ``stack`` is None if there are problems.

    ``missing`` are secrets of components and vaults that are not there now, which is no mistake in
    the file; ``options`` has, by section and name, those that are complete; ``variables`` are what
    references to the environment find.
    """

    document: Document
    problems: tuple[HoldfastError, ...]
    variables: Variables
    missing: tuple[SecretMissing, ...] = ()
    part: FilePart | None = None
    options: Mapping[tuple[str, str], Options] | None = None
    stack: Stack | None = None


def examine(document: Document, kinds: Kinds, environment: Mapping[str, str]) -> Examined:
    """Look for everything that is wrong with a file; problems come in the order of its lines."""
    return _Examination(document, kinds, environment).run()


class _Examination:
    def __init__(self, document: Document, kinds: Kinds, environment: Mapping[str, str]) -> None:
        self._document = document
        self._kinds = kinds
        self._problems: list[tuple[int, HoldfastError]] = []
        self._interpolation = Interpolation(document, environment)
        self._unreadable: UnreadableFile | None = None
        self._variables = self._read_variables(environment)
        self._interpolation = Interpolation(document, self._variables.values)
        self._missing: dict[tuple[str, str], SecretMissing] = {}
        self._options: dict[tuple[str, str], Options] = {}

    def run(self) -> Examined:
        raw = self._raw()
        part = self._part(raw)
        if self._unreadable:
            self._refuse_file(self._unreadable)
        if part is None:
            return self._result()
        for name, component in part.components.items():
            kind = component.source
            self._store(("components", name), "source", kind, component)
        for name, vault in part.vaults.items():
            self._store(("vaults", name), "kind", vault.kind, vault)
        self._check_names(part)
        self._check_sections(part)
        if not self._problems:
            components, vaults = self._ready("components"), self._ready("vaults")
            for found in contradictions(part, components, vaults, self._document.folder):
                self._refuse(*found)
        return self._result(part, None if self._problems else self._stack(part, raw))

    def _result(self, part: FilePart | None = None, stack: Stack | None = None) -> Examined:
        in_order = sorted(self._problems, key=lambda problem: problem[0])
        return Examined(
            document=self._document,
            problems=tuple(problem for _line, problem in in_order),
            variables=self._variables,
            missing=tuple(self._missing.values()),
            part=part,
            options=self._options,
            stack=stack,
        )

    def _refuse(self, keys: KeyPath, problem: str, advice: str = "") -> None:
        self._note(keys, invalid(self._document.place(keys), problem, advice))

    def _note(self, keys: KeyPath, problem: HoldfastError) -> None:
        self._problems.append((self._document.line(keys), problem))

    def _read_variables(self, environment: Mapping[str, str]) -> Variables:
        """Read the files of variables first: everything else may refer to what stands in them."""
        node = self._document.node((ENV_FILE,))
        paths: tuple[Path, ...] = ()
        try:
            if node is not None and node.value is not None:
                named = self._interpolation.reveal((ENV_FILE,), plain(node))
                context = {"base": self._document.folder}
                paths = TypeAdapter(EnvFiles).validate_python(named, context=context)
            return read_variables(paths, environment)
        except UnreadableFile as unreadable:
            self._unreadable = unreadable
        except (HoldfastError, ValidationError):
            pass  # is found again, and told, with the rest of the file
        return read_variables((), environment)

    def _refuse_file(self, unreadable: UnreadableFile) -> None:
        keys = self._document.nearest((ENV_FILE, unreadable.index))[0]
        self._refuse(keys, unreadable.problem, _("create it, or take it out of `env_file`"))

    # --- the parts of the file --------------------------------------------------------------

    def _raw(self) -> dict[str, Any]:
        """Return the file as plain values, with references replaced outside of the stores.

        A section with nothing in it, all its lines being comments, is as good as left out.
        """
        values: dict[str, Any] = plain(self._document.root)
        raw = {}
        for key, value in values.items():
            if key in PLANNED_KEYS:
                self._refuse_for_now((key,), key)
            elif value is not None or key not in FilePart.model_fields:
                raw[key] = value if key in STORES else self._revealed((key,), value)
        return raw

    def _revealed(self, keys: KeyPath, value: Any) -> Any:
        try:
            return self._interpolation.reveal(keys, value)
        except HoldfastError as problem:
            self._note(keys, problem)
            return value

    def _part(self, raw: dict[str, Any]) -> FilePart | None:
        if self._problems:
            return None
        return self._validated(FilePart, raw, ())

    def _validated(self, model: type[Model], raw: Any, keys: KeyPath, *common: str) -> Model | None:
        try:
            return model.model_validate(raw, context={"base": self._document.folder})
        except ValidationError as error:
            for where, problem in from_validation(error, self._document, keys, model, common):
                self._note(where, problem)
        return None

    # --- stores -----------------------------------------------------------------------------

    def _store(
        self, keys: tuple[str, str], key: str, kind: str, part: ComponentPart | VaultPart
    ) -> None:
        """Check the options of one component or vault by the model of its kind."""
        model = self._model(keys, key, kind)
        if model is None:
            return
        try:
            raw = self._interpolation.reveal(keys, part.model_extra)
        except SecretMissing as missing:
            self._missing[keys] = missing
            return
        except ConfigInvalid as problem:
            self._note(keys, problem)
            return
        options = self._validated(model, raw, keys, *type(part).model_fields)
        if options is not None:
            self._options[keys] = options

    def _model(self, keys: tuple[str, str], key: str, kind: str) -> type[Options] | None:
        of_sources = keys[0] == "components"
        known: OptionsOf = self._kinds.sources if of_sources else self._kinds.vaults
        if kind in known:
            try:
                return known[kind]()
            except HoldfastError as error:  # its driver is not installed
                self._note(keys, error)
        elif kind in PLANNED_VAULTS and not of_sources:
            self._refuse_for_now((*keys, key), kind)
        else:
            problem = _("`{kind}` is no kind that is known here").format(kind=kind)
            self._refuse((*keys, key), problem, nearest(kind, list(known)))
        return None

    def _refuse_for_now(self, keys: KeyPath, what: str) -> None:
        problem = _("`{what}` is not in this version").format(what=what)
        self._refuse(keys, problem, _("leave it out for now, or upgrade Holdfast"))

    def _ready(self, section: str) -> dict[str, Options]:
        return {name: made for (where, name), made in self._options.items() if where == section}

    # --- the whole --------------------------------------------------------------------------

    def _check_names(self, part: FilePart) -> None:
        """Refuse names that could not be part of a path, or would be taken for a word of ours."""
        self._check_name(("stack",), part.stack)
        for section in ("components", "vaults", "plans"):
            for name in getattr(part, section):
                self._check_name((section, name), name)

    def _check_name(self, keys: KeyPath, name: str) -> None:
        advice = _("use letters, digits, `-` and `_`")
        try:
            safe_name(name, "name")
        except UnsafeName as unsafe:
            problem = _("is not a safe name: {reason}").format(reason=unsafe.fields["reason"])
            self._refuse(keys, problem, advice)
        if name == "all":
            self._refuse(keys, _("`all` means all of them and can be no name"), advice)

    def _check_sections(self, part: FilePart) -> None:
        if not part.components:
            problem = _("no component is declared, so there is nothing to back up")
            advice = _("describe a store under `components`; `holdfast discover` looks for some")
            self._refuse(("components",), problem, advice)
        if not part.vaults:
            problem = _("no vault is declared, so there is nowhere to put a backup")
            advice = _("add one, for example: vaults: {local: {kind: plain, url: backups}}")
            self._refuse(("vaults",), problem, advice)

    def _stack(self, part: FilePart, raw: Mapping[str, Any]) -> Stack:
        return Stack(
            name=part.stack,
            file=self._document.path.absolute(),
            state=part.state,
            components=self._late("components", part.components, self._component),
            vaults=self._late("vaults", part.vaults, self._vault),
            plans=build.plans(part),
            checks=build.checks(part),
            services=build.services(part.services, raw.get("services")),
            hooks=build.hooks(part.hooks, raw.get("hooks")),
        )

    def _late(
        self,
        section: str,
        parts: Mapping[str, PartOfOne],
        make: Callable[[str, PartOfOne, Options], Spec],
    ) -> build.Late[Spec]:
        ready = {name: make(name, parts[name], got) for name, got in self._ready(section).items()}
        missing = {
            name: error for (where, name), error in self._missing.items() if where == section
        }
        return build.Late(parts, ready, missing)

    @staticmethod
    def _component(name: str, part: ComponentPart, options: Options) -> ComponentSpec:
        return ComponentSpec(name, part.source, options, part.rebuildable)

    @staticmethod
    def _vault(name: str, part: VaultPart, options: Options) -> VaultSpec:
        return VaultSpec(name, part.kind, options)
