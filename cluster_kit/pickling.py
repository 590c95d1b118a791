"""How exceptions survive pickle and copy."""

from __future__ import annotations

from typing import Any


def reduced(error: BaseException) -> tuple[Any, ...]:
    """Return what pickle and copy make `error` of again: its text and attributes as they are.

    By default they call the class with the text alone, which is not what it takes.
    """
    return _revived, (type(error), error.args), dict(vars(error))


def _revived(kind: type[BaseException], args: tuple[object, ...]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    return error
