"""What may stand in the configuration file, apart from the options of each kind of store.

These models check one thing after the other and describe it: the JSON Schema, the reference page
and `holdfast config show` come from them. `build` turns them into the values that runs use.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from ..i18n import _
from ..model.options import LocalPath
from .values import (
    Count,
    CountOrSpan,
    Duration,
    Names,
    Verification,
    WithinSpan,
    check_schedule,
    check_timezone,
)


class Part(BaseModel):
    """A part of the file: frozen, and strict about unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ComponentPart(Part):
    """One store of the stack. What else it takes depends on its `source`."""

    model_config = ConfigDict(extra="allow")

    source: str = Field(description="The kind of store.")
    rebuildable: bool = Field(
        default=False,
        description="Losing it costs time, not data: a cache, or an index made from other stores.",
    )


class VaultPart(Part):
    """A place where backups rest. What else it takes depends on its `kind`."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(description="The kind of vault.")


class KeepPart(Part):
    """Which backups a plan keeps.

    A number keeps that many; a span (`24h`, `30d`, `12w`, `12m`, `1y`) keeps what is that close to
    the newest backup. Without any rule everything is kept. The newest good backup, the newest
    verified one and pinned ones always stay.
    """

    last: Annotated[Count, Field(ge=0)] = Field(
        default=0, description="Keep this many of the newest backups."
    )
    hourly: CountOrSpan | None = Field(
        default=None, description="Keep the newest backup of each hour: how many hours, or a span."
    )
    daily: CountOrSpan | None = Field(
        default=None, description="Keep the newest backup of each day: how many days, or a span."
    )
    weekly: CountOrSpan | None = Field(
        default=None,
        description="Keep the newest backup of each ISO week: how many weeks, or a span.",
    )
    monthly: CountOrSpan | None = Field(
        default=None,
        description="Keep the newest backup of each month: how many months, or a span.",
    )
    yearly: CountOrSpan | None = Field(
        default=None, description="Keep the newest backup of each year: how many years, or a span."
    )
    within: WithinSpan | None = Field(
        default=None, description="Keep every backup that is this close to the newest."
    )
    max_count: Annotated[Count, Field(ge=1)] | None = Field(
        default=None,
        description="Keep no more good backups than this, whatever the rules above ask for; "
        "the oldest go first.",
    )


class PlanPart(Part):
    """When to back up what, where to, and what to keep."""

    schedule: Annotated[str, AfterValidator(check_schedule)] | None = Field(
        default=None,
        description="When to run: five cron fields, or hourly, daily, weekly, monthly. "
        "Without it, the plan runs only when it is called.",
        examples=["0 2 * * *", "daily"],
    )
    timezone: Annotated[str, AfterValidator(check_timezone)] = Field(
        default="UTC",
        description="The time zone of the schedule, and of the days and weeks in `keep`.",
        examples=["Asia/Seoul"],
    )
    components: Names = Field(
        default=None, description="Which components to back up: `all`, or a list of names."
    )
    vaults: Names = Field(
        default=None, description="Which vaults get the backup: `all`, or a list of names."
    )
    keep: KeepPart | None = Field(
        default=None, description="Which backups to keep. Without it, nothing is ever removed."
    )
    verify: Verification = Field(
        default="none",
        description="What to do with a backup once it is there: nothing, read all its bytes "
        "again (checksums), or also open it as its own kind of store (native).",
    )
    archive: Literal["tar.zst", "tar.gz"] = Field(
        default="tar.zst", description="How plain vaults keep folders."
    )
    rpo: Duration | None = Field(
        default=None,
        description="How much time's data may be lost at worst; `holdfast health` warns when the "
        "newest good backup is older.",
    )
    rto: Duration | None = Field(default=None, description="How long a restore may take at worst.")


class SelectorPart(Part):
    """One side of a check. What else it takes depends on the component, for example `sql`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str] = Field(init=False)

    component: str = Field(description="The component whose keys are compared.")

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if not self.__pydantic_extra__:
            raise ValueError(_("does not say what to compare, for example `sql` or `collection`"))
        return self


class CheckPart(Part):
    """An assertion on the data: `sql` on one component, or `left` and `right` compared."""

    name: str = Field(min_length=1, description="What is asserted, in plain words.")
    component: str = Field(default="", description="The component that `sql` is asked of.")
    sql: str = Field(default="", description="A query; each row that it returns is a violation.")
    left: SelectorPart | None = Field(default=None, description="The keys of one side.")
    right: SelectorPart | None = Field(default=None, description="The keys of the other side.")
    one_way: bool = Field(
        default=False,
        description="Compare only from left to right: what is on the right alone is fine.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        of_one = bool(self.component) and bool(self.sql) and not (self.left or self.right)
        of_two = self.left and self.right and not (self.component or self.sql)
        if not (of_one or of_two):
            raise ValueError(_("needs either `component` and `sql`, or `left` and `right`"))
        if of_one and self.one_way:
            raise ValueError(_("has `one_way`, which is for checks with `left` and `right`"))
        return self


def _web_address(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(_("must start with http:// or https://"))
    return url


class ServicesPart(Part):
    """The application's own services: how to stop them for a restore, and know they are well."""

    stop: tuple[str, ...] = Field(
        default=(),
        description="The command that stops them, as a list of its words; no shell reads it.",
        examples=[["docker", "compose", "stop", "api"]],
    )
    start: tuple[str, ...] = Field(default=(), description="The command that starts them again.")
    health: tuple[Annotated[str, AfterValidator(_web_address)], ...] = Field(
        default=(),
        description="Addresses that answer with success (2xx) when the services are well.",
        examples=[["http://localhost:8000/api/health"]],
    )
    health_timeout: Duration = Field(
        default=timedelta(seconds=60),
        json_schema_extra={"default": "1m"},
        description="How long to wait for all of them to answer.",
    )


class HooksPart(Part):
    """Commands to run around backups and restores, each as a list of its words."""

    before_backup: tuple[str, ...] = Field(
        default=(), description="Runs before a backup; if it fails, the backup does not begin."
    )
    after_backup: tuple[str, ...] = Field(default=(), description="Runs after a good backup.")
    before_restore: tuple[str, ...] = Field(
        default=(), description="Runs before a restore; if it fails, the restore does not begin."
    )
    after_restore: tuple[str, ...] = Field(default=(), description="Runs after a good restore.")
    on_error: tuple[str, ...] = Field(
        default=(), description="Runs after a backup or a restore that failed."
    )


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_PATH = {"type": "string", "format": "path"}
EnvFiles = Annotated[
    tuple[LocalPath, ...],
    BeforeValidator(_several),
    WithJsonSchema({"anyOf": [_PATH, {"type": "array", "items": _PATH}]}),
]


class FilePart(Part):
    """The whole file: one application and all its stores."""

    stack: str = Field(description="The name of the application; backups carry it.")
    state: LocalPath = Field(
        default=Path(".holdfast"),
        validate_default=True,
        description="The folder for the catalog, the journal and the logs. Relative paths in this "
        "file start from the folder that the file lies in.",
    )
    env_file: EnvFiles = Field(
        default=(),
        description="A file, or several, with variables that `${env:NAME}` finds where the real "
        "environment has none of that name: the `.env` that the stack's compose file uses, read by "
        "the same rules. Of several files the later one wins. Whoever may read it knows the "
        "passwords: give it mode 0600.",
        examples=[".env"],
    )
    components: dict[str, ComponentPart] = Field(
        default_factory=dict, description="The stores of the application, each under its own name."
    )
    vaults: dict[str, VaultPart] = Field(
        default_factory=dict, description="Where backups rest, each place under its own name."
    )
    plans: dict[str, PlanPart] = Field(
        default_factory=dict, description="What to back up when, each plan under its own name."
    )
    checks: tuple[CheckPart, ...] = Field(
        default=(), description="Assertions on the data, in one store or across several."
    )
    services: ServicesPart = Field(
        default_factory=ServicesPart, description="The application's own services."
    )
    hooks: HooksPart = Field(
        default_factory=HooksPart, description="Commands to run around backups and restores."
    )
