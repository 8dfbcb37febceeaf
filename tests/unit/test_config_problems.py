"""Every mistake in a file, with its exact place, its words and its advice."""

from __future__ import annotations

import pytest

from holdfast.config.document import parse
from holdfast.config.examine import examine
from holdfast.errors import ExtraMissing, SecretMissing
from tests.config_world import FILE, KINDS, SMALL, VAULTS, examined, only, problems

REFERENCE = "the configuration reference describes what may stand here"
COMPONENT = "stack: brain\n" + VAULTS + "components:\n  projects:\n"
PLAN = SMALL + "plans:\n  nightly:\n    "
CHECK = SMALL + "checks:\n  - "


@pytest.mark.parametrize(
    ("text", "place", "problem", "advice"),
    [
        # unknown keys, with the nearest known one at that very place
        (
            "stak: x\n" + SMALL,
            "holdfast.yaml:1 stak",
            "`stak` is not a key that is known here",
            (
                "did you mean `stack`? known: checks, components, env_file, hooks, plans, services,"
                " stack, state, vaults"
            ),
        ),
        (
            COMPONENT + "    source: sqlite\n    pth: x\n    path: y\n",
            "holdfast.yaml:6 components.projects.pth",
            "`pth` is not a key that is known here",
            "did you mean `path`? known: path, rebuildable, source, timeout",
        ),
        (
            PLAN + "keep: {dayly: 7}\n",
            "holdfast.yaml:7 plans.nightly.keep.dayly",
            "`dayly` is not a key that is known here",
            (
                "did you mean `daily`? known: daily, hourly, last, max_count, monthly, weekly,"
                " within, yearly"
            ),
        ),
        (
            SMALL + "plans: {keep: {kep: {}}}\n",
            "holdfast.yaml:5 plans.keep.kep",
            "`kep` is not a key that is known here",
            (
                "did you mean `keep`? known: archive, components, keep, rpo, rto, schedule,"
                " timezone, vaults, verify"
            ),
        ),
        (
            CHECK + "name: a\n    component: projects\n    sql: x\n    zzz: 1\n",
            "holdfast.yaml:9 checks[0].zzz",
            "`zzz` is not a key that is known here",
            "known: component, left, name, one_way, right, sql",
        ),
        # what is part of the design but not of this version
        (
            SMALL + "notify: []\n",
            "holdfast.yaml:5 notify",
            "`notify` is not in this version",
            "leave it out for now, or upgrade Holdfast",
        ),
        (
            SMALL.replace("kind: plain", "kind: repository"),
            "holdfast.yaml:4 vaults.local.kind",
            "`repository` is not in this version",
            "leave it out for now, or upgrade Holdfast",
        ),
        (
            PLAN + "verify: rehearse\n",
            "holdfast.yaml:7 plans.nightly.verify",
            "`rehearse` is not in this version; use checksums or native",
            REFERENCE,
        ),
        # kinds
        (
            COMPONENT + "    source: sqllite\n    path: x\n",
            "holdfast.yaml:5 components.projects.source",
            "`sqllite` is no kind that is known here",
            "did you mean `sqlite`? known: files, heavy, server, sqlite",
        ),
        (
            SMALL.replace("kind: plain", "kind: plane"),
            "holdfast.yaml:4 vaults.local.kind",
            "`plane` is no kind that is known here",
            "did you mean `plain`? known: plain",
        ),
        # what is missing
        (
            "components: {p: {source: sqlite, path: x}}\n" + VAULTS,
            "holdfast.yaml:1",
            "`stack` is missing",
            "add it; the configuration reference describes it",
        ),
        (
            COMPONENT + "    path: x\n",
            "holdfast.yaml:4 components.projects",
            "`source` is missing",
            "add it; the configuration reference describes it",
        ),
        (
            COMPONENT + "    source: sqlite\n",
            "holdfast.yaml:4 components.projects",
            "`path` is missing",
            "add it; the configuration reference describes it",
        ),
        (
            "stack: x\n" + VAULTS,
            "holdfast.yaml:1 components",
            "no component is declared, so there is nothing to back up",
            "describe a store under `components`; `holdfast discover` looks for some",
        ),
        (
            "stack: x\ncomponents: {p: {source: sqlite, path: x}}\nvaults:\n",
            "holdfast.yaml:3 vaults",
            "no vault is declared, so there is nowhere to put a backup",
            "add one, for example: vaults: {local: {kind: plain, url: backups}}",
        ),
        # wrong types
        (
            "stack: 2026\n" + SMALL.partition("\n")[2],
            "holdfast.yaml:1 stack",
            "must be text",
            "put it in quotes if it is meant as text",
        ),
        (
            "stack: x\ncomponents: [a]\n" + VAULTS,
            "holdfast.yaml:2 components",
            "must be a mapping of names to values",
            "write `name: value` on lines of their own, indented",
        ),
        (
            "stack: x\ncomponents: {projects: data/x.db}\n" + VAULTS,
            "holdfast.yaml:2 components.projects",
            "must be a mapping of keys to values",
            "write `key: value` on lines of their own, indented",
        ),
        (
            COMPONENT + "    source: sqlite\n    path: [x]\n",
            "holdfast.yaml:6 components.projects.path",
            "must be a path",
            "write the path as text",
        ),
        (
            COMPONENT + "    source: sqlite\n    path:\n",
            "holdfast.yaml:6 components.projects.path",
            "has no value",
            "write the path as text",
        ),
        (
            COMPONENT + "    source: sqlite\n    path: ''\n",
            "holdfast.yaml:6 components.projects.path",
            "is empty",
            REFERENCE,
        ),
        (
            COMPONENT + "    source: sqlite\n    path: ~nobody-of-that-name/x\n",
            "holdfast.yaml:6 components.projects.path",
            "starts with ~ and no such user has a home",
            REFERENCE,
        ),
        (
            COMPONENT + "    source: sqlite\n    path: x\n    rebuildable: maybe\n",
            "holdfast.yaml:7 components.projects.rebuildable",
            "must be true or false",
            "write true or false, without quotes",
        ),
        (
            COMPONENT + "    source: server\n    url: x\n    port: many\n",
            "holdfast.yaml:7 components.projects.port",
            "must be a whole number",
            REFERENCE,
        ),
        (
            COMPONENT + "    source: server\n    url: x\n    tags: a b\n",
            "holdfast.yaml:7 components.projects.tags",
            "must be a list",
            "write a list: [first, second]",
        ),
        (
            COMPONENT + "    source: server\n    url: x\n    tags: [a, 2]\n",
            "holdfast.yaml:7 components.projects.tags[1]",
            "must be text",
            "put it in quotes if it is meant as text",
        ),
        (
            COMPONENT + "    source: files\n",
            "holdfast.yaml:4 components.projects",
            "needs either `path` or `paths`",
            REFERENCE,
        ),
        # plans
        (
            PLAN + "schedule: every day\n",
            "holdfast.yaml:7 plans.nightly.schedule",
            'must be hourly, daily, weekly, monthly, or five cron fields such as "0 2 * * *"',
            REFERENCE,
        ),
        (
            PLAN + "schedule: 0 25 * * *\n",
            "holdfast.yaml:7 plans.nightly.schedule",
            "is no schedule: bad hour",
            REFERENCE,
        ),
        (
            PLAN + "schedule: 0 0 30 2 *\n",
            "holdfast.yaml:7 plans.nightly.schedule",
            "is no schedule: bad day-of-month",
            REFERENCE,
        ),
        (
            PLAN + 'schedule: "0 0 */40 2 MON#5"\n',
            "holdfast.yaml:7 plans.nightly.schedule",
            "is a time that never comes",
            REFERENCE,
        ),
        (
            PLAN + "schedule: '* * * * * *'\n",
            "holdfast.yaml:7 plans.nightly.schedule",
            'must be hourly, daily, weekly, monthly, or five cron fields such as "0 2 * * *"',
            REFERENCE,
        ),
        (
            PLAN + "timezone: Asia/Soul\n",
            "holdfast.yaml:7 plans.nightly.timezone",
            (
                "is no time zone that is known here, such as UTC or Asia/Seoul; did you mean"
                " Asia/Seoul?"
            ),
            REFERENCE,
        ),
        (
            PLAN + "timezone: ../../etc/passwd\n",
            "holdfast.yaml:7 plans.nightly.timezone",
            "is no time zone that is known here, such as UTC or Asia/Seoul",
            REFERENCE,
        ),
        (
            PLAN + "components: projects\n",
            "holdfast.yaml:7 plans.nightly.components",
            "must be `all`, or a list of names",
            REFERENCE,
        ),
        (
            PLAN + "components: []\n",
            "holdfast.yaml:7 plans.nightly.components",
            "names nothing; leave it out, or write `all`",
            REFERENCE,
        ),
        (
            PLAN + "components: [projects, project]\n",
            "holdfast.yaml:7 plans.nightly.components[1]",
            "there is no `project` under `components`",
            "did you mean `projects`? known: projects",
        ),
        (
            PLAN + "vaults: [offsite]\n",
            "holdfast.yaml:7 plans.nightly.vaults[0]",
            "there is no `offsite` under `vaults`",
            "known: local",
        ),
        (
            PLAN + "verify: maybe\n",
            "holdfast.yaml:7 plans.nightly.verify",
            "must be 'none', 'checksums' or 'native'",
            REFERENCE,
        ),
        (
            PLAN + "archive: zip\n",
            "holdfast.yaml:7 plans.nightly.archive",
            "must be 'tar.zst' or 'tar.gz'",
            REFERENCE,
        ),
        (
            PLAN + "rpo: 6\n",
            "holdfast.yaml:7 plans.nightly.rpo",
            "must be a duration such as 90s, 15m, 6h, 1h30m or 1d",
            REFERENCE,
        ),
        (
            PLAN + "rto: 0h\n",
            "holdfast.yaml:7 plans.nightly.rto",
            "must be longer than nothing and no longer than ten years",
            REFERENCE,
        ),
        (
            PLAN + "keep: {daily: 30 days}\n",
            "holdfast.yaml:7 plans.nightly.keep.daily",
            "must be a span such as 24h, 30d, 12w, 12m or 1y",
            REFERENCE,
        ),
        (
            PLAN + "keep: {within: 7}\n",
            "holdfast.yaml:7 plans.nightly.keep.within",
            "must be a span such as 24h, 30d, 12w, 12m or 1y",
            REFERENCE,
        ),
        (
            PLAN + "keep: {last: -1}\n",
            "holdfast.yaml:7 plans.nightly.keep.last",
            "must be at least 0",
            REFERENCE,
        ),
        (
            PLAN + "keep: {last: true}\n",
            "holdfast.yaml:7 plans.nightly.keep.last",
            "must be a whole number",
            REFERENCE,
        ),
        (
            PLAN + "keep: {max_count: 0}\n",
            "holdfast.yaml:7 plans.nightly.keep.max_count",
            "must be at least 1",
            REFERENCE,
        ),
        # checks
        (
            CHECK + "name: ''\n    component: projects\n    sql: x\n",
            "holdfast.yaml:6 checks[0].name",
            "is empty",
            REFERENCE,
        ),
        (
            CHECK + "name: a\n    component: projects\n",
            "holdfast.yaml:6 checks[0]",
            "needs either `component` and `sql`, or `left` and `right`",
            REFERENCE,
        ),
        (
            CHECK + "{name: a, component: projects, sql: x, one_way: true}\n",
            "holdfast.yaml:6 checks[0]",
            "has `one_way`, which is for checks with `left` and `right`",
            REFERENCE,
        ),
        (
            CHECK + "name: a\n    left: {component: projects, sql: x}\n"
            "    right: {component: projects}\n",
            "holdfast.yaml:8 checks[0].right",
            "does not say what to compare, for example `sql` or `collection`",
            REFERENCE,
        ),
        (
            CHECK + "name: a\n    left: {component: projects, sql: x}\n"
            "    right: {component: vectors, collection: y}\n",
            "holdfast.yaml:8 checks[0].right.component",
            "there is no `vectors` under `components`",
            "known: projects",
        ),
        (
            CHECK + "name: a\n    component: project\n    sql: x\n",
            "holdfast.yaml:7 checks[0].component",
            "there is no `project` under `components`",
            "did you mean `projects`? known: projects",
        ),
        (
            CHECK + "{name: a, component: projects, sql: x}\n"
            "  - {name: a, component: projects, sql: y}\n",
            "holdfast.yaml:7 checks[1].name",
            "another check has this name already",
            "give each its own name",
        ),
        # services and hooks
        (
            SMALL + "services:\n  stop: docker compose stop\n",
            "holdfast.yaml:6 services.stop",
            "must be a list",
            "write a list: [first, second]",
        ),
        (
            SMALL + "services:\n  stop: [sleep, 5]\n",
            "holdfast.yaml:6 services.stop[1]",
            "must be text",
            "put it in quotes if it is meant as text",
        ),
        (
            SMALL + "services:\n  health: [localhost:8000]\n",
            "holdfast.yaml:6 services.health[0]",
            "must start with http:// or https://",
            REFERENCE,
        ),
        (
            SMALL + "services:\n  health_timeout: soon\n",
            "holdfast.yaml:6 services.health_timeout",
            "must be a duration such as 90s, 15m, 6h, 1h30m or 1d",
            REFERENCE,
        ),
        (
            SMALL + "hooks: {before: [a]}\n",
            "holdfast.yaml:5 hooks.before",
            "`before` is not a key that is known here",
            (
                "did you mean `before_backup`? known: after_backup, after_restore, before_backup,"
                " before_restore, on_error"
            ),
        ),
        # names
        (
            SMALL.replace("projects:", "'my projects':"),
            "holdfast.yaml:3 components.my projects",
            "is not a safe name: it has white space or control characters",
            "use letters, digits, `-` and `_`",
        ),
        (
            SMALL.replace("local:", "../up:"),
            "holdfast.yaml:4 vaults.../up",
            "is not a safe name: it starts with a dot or a dash",
            "use letters, digits, `-` and `_`",
        ),
        (
            "stack: a/b\n" + SMALL.partition("\n")[2],
            "holdfast.yaml:1 stack",
            "is not a safe name: it has a path separator",
            "use letters, digits, `-` and `_`",
        ),
        (
            SMALL.replace("projects:", "all:"),
            "holdfast.yaml:3 components.all",
            "`all` means all of them and can be no name",
            "use letters, digits, `-` and `_`",
        ),
        (
            SMALL + "plans: {'': {}}\n",
            "holdfast.yaml:5 plans.",
            "is not a safe name: it is empty",
            "use letters, digits, `-` and `_`",
        ),
        # references
        (
            SMALL.replace("data/projects.db", "'${HOME}/x.db'"),
            "holdfast.yaml:3 components.projects.path",
            "has a ${ that begins no reference",
            "write ${env:NAME}, ${env:NAME:-default} or ${file:/path}; $${ for ${ itself",
        ),
        (
            SMALL + "hooks: {on_error: [sh, -c, 'echo ${X}']}\n",
            "holdfast.yaml:5 hooks.on_error[2]",
            "has a ${ that begins no reference",
            "write ${env:NAME}, ${env:NAME:-default} or ${file:/path}; $${ for ${ itself",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(
    text: str, place: str, problem: str, advice: str
) -> None:
    assert only(text) == (place, problem, advice)


def test_all_problems_are_found_at_once_in_the_order_of_the_lines() -> None:
    text = (
        COMPONENT
        + "    source: sqlite\n    pth: x\n  other: {source: nosuch}\nplans: {n: {a: 1}}\n"
    )
    assert [place for place, _problem, _advice in problems(text)] == ["holdfast.yaml:8 plans.n.a"]
    text = text.replace("plans: {n: {a: 1}}", "")
    assert [place for place, _problem, _advice in problems(text)] == [
        "holdfast.yaml:6 components.projects.pth",
        "holdfast.yaml:7 components.other.source",
    ]


def test_a_mistyped_key_is_not_reported_as_missing_too() -> None:
    [found] = problems(COMPONENT + "    source: sqlite\n    pth: x\n")
    assert found[0] == "holdfast.yaml:6 components.projects.pth"
    places = [p[0] for p in problems(COMPONENT + "    source: sqlite\n    zzz: x\n")]
    assert places == [
        "holdfast.yaml:4 components.projects",
        "holdfast.yaml:6 components.projects.zzz",
    ]


def test_a_driver_that_is_not_installed_is_named() -> None:
    text = SMALL.replace("source: sqlite", "source: heavy")
    [found] = examined(text).problems
    assert isinstance(found, ExtraMissing)
    assert "pip install 'holdfast[heavy]'" in found.hint


def test_a_component_that_is_inherited_through_an_alias_has_the_line_where_it_is_used() -> None:
    text = (
        "stack: x\n" + VAULTS + "components:\n"
        "  a: &a {source: sqlite, path: x}\n"
        "  b:\n    <<: *a\n    path: y\n    timeout: -1\n"
    )
    assert only(text)[0] == "holdfast.yaml:8 components.b.timeout"


# --- secrets -------------------------------------------------------------------------------------

SERVER = COMPONENT + '    source: server\n    url: h\n    password: "${env:PW}"\n'


def test_a_secret_never_appears_in_a_problem_even_if_the_adapter_quotes_it() -> None:
    place, problem, advice = only(SERVER, {"PW": "xyz"})
    assert place == "holdfast.yaml:7 components.projects.password"
    assert problem == "${env:PW} does not give what is wanted here (value error)"
    assert advice == "correct what it refers to"
    text = SERVER + '    port: "${env:PORT}"\n'
    assert only(text, {"PW": "", "PORT": "hunter2"}) == (
        "holdfast.yaml:8 components.projects.port",
        "${env:PORT} does not give what is wanted here (int parsing)",
        "correct what it refers to",
    )


def test_a_secret_that_a_whole_component_is_judged_by_is_not_quoted_either() -> None:
    text = COMPONENT + '    source: files\n    path: "${env:P}"\n    paths: [x]\n'
    place, problem, _advice = only(text, {"P": "hunter2"})
    assert place == "holdfast.yaml:4 components.projects"
    assert "hunter2" not in problem


def test_a_missing_secret_of_a_component_is_no_problem_of_the_file() -> None:
    found = examined(SERVER)
    assert found.problems == ()
    [missing] = found.missing
    assert missing.fields == {
        "place": "holdfast.yaml:7 components.projects.password",
        "reference": "${env:PW}",
        "reason": "the environment variable is not set",
    }


def test_a_missing_secret_elsewhere_is_a_problem_of_the_file() -> None:
    [found] = examined(SMALL + 'hooks:\n  on_error: [tell, "${env:TOKEN}"]\n').problems
    assert isinstance(found, SecretMissing)
    assert found.fields["place"] == "holdfast.yaml:6 hooks.on_error[1]"


def test_errors_are_about_the_file_as_it_was_named() -> None:
    named = FILE.with_name("other.yaml")
    [found] = examine(parse(b"stack: 1\n", named), KINDS, {}).problems
    assert found.fields["place"] == "other.yaml:1 stack"
