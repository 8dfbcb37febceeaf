"""``RESTORE.md``: how to restore a backup without Holdfast, with each store's own tools."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from ..model.manifest import Manifest, Stored
from ..ports import Draft, Source

HEAD = """\
# Restore {id}

Stack `{stack}`, backed up {created_at}. Status: **{status}**.

This folder can be restored without Holdfast. Each block below restores one component into the
folder `$TARGET`; from there, put it where the application expects it **while the application is
stopped**. With Holdfast it is one command, and everything is put back if a step fails:

```text
holdfast restore {id}
```
"""


def restore_guide(manifest: Manifest, sources: Sequence[Source], draft: Draft) -> str:
    """Return the text, for the draft that it will lie in."""
    head = HEAD.format(
        id=manifest.id,
        stack=manifest.stack,
        created_at=manifest.created_at.isoformat(timespec="seconds"),
        status=manifest.status.value,
    )
    sections = [_section(manifest, source, draft.link) for source in sources]
    return "\n".join(filter(None, [head, draft.preface(), *sections]))


def _section(manifest: Manifest, source: Source, link: Callable[[Stored], str]) -> str:
    record = manifest.component(source.name)
    if record is None:
        return ""
    title = f"## {source.name} ({source.kind})\n"
    if record.status != "completed":
        return f"{title}\nNot in this backup: {record.error}\n"
    paths = {stored.part: shlex.quote(link(stored)) for stored in manifest.of(source.name)}
    target = f'TARGET="${{TARGET_ROOT:-$HOME/restored}}"/{shlex.quote(source.name)}'
    lines = [target, *source.guide(paths)]
    counts = ", ".join(f"{name} {count}" for name, count in sorted(record.facts.counts.items()))
    expected = f"\nExpected afterwards: {counts}.\n" if counts else ""
    code = "\n".join(lines)
    marks = [
        text
        for flag, text in (
            (record.evidence, "\n**Known to be damaged; kept as evidence.**\n"),
            (not record.exact, "\nNot the state of one single instant.\n"),
        )
        if flag
    ]
    return f"{title}{''.join(marks)}\n```sh\n{code}\n```\n{expected}"
