"""Words for people in texts of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def shorten(text: str, limit: int = 80) -> str:
    """Return `text`, cut to at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` when a known name is close to `name`, else nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - only when somebody has erred

    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
