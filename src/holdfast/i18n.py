"""Translation of everything a person reads.

Text is looked up when it is shown, not when it is defined, so tables of messages stay plain
strings. ``HOLDFAST_LANG`` chooses a language; otherwise the usual ``LANGUAGE``/``LC_*``/``LANG``.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gettext import NullTranslations

LOCALES = Path(__file__).parent / "locale"


@cache
def _translations() -> NullTranslations:
    import gettext

    chosen = os.environ.get("HOLDFAST_LANG")
    languages = [chosen] if chosen else None
    return gettext.translation("holdfast", LOCALES, languages=languages, fallback=True)


def _(text: str) -> str:
    """Return ``text`` in the reader's language; English where no translation exists."""
    return _translations().gettext(text) if text else ""


def N_(text: str) -> str:  # noqa: N802 - the field's standard name for "translate later"
    """Mark ``text`` for translation where it is defined; ``_`` translates it where it is shown."""
    return text
