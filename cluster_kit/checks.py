"""Checks of what callers pass in."""

from __future__ import annotations

import inspect

from cluster_kit.errors import ConfigurationError
from cluster_kit.wording import shorten

MAX_PREFETCH = 65_535
"""Most unsettled deliveries a consumer may ask for: AMQP counts them in 16 bits."""


def whole_number(name: str, value: object, *, least: int = 0, most: int | None = None) -> int:
    """Return `value` if it is an integer within the bounds.

    Raises:
        ConfigurationError: it is not; the text names it.

    >>> whole_number("concurrency", 4)
    4
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be an integer, not {type(value).__name__}")
    if value < least or (most is not None and value > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise ConfigurationError(f"{name} must be {bounds}, not {value}")
    return value


def truth(name: str, value: object) -> bool:
    """Return `value` if it is True or False.

    Raises:
        ConfigurationError: it is not; the text names it.

    >>> truth("relay", True)
    True
    """
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, not {shorten(repr(value))}")
    return value


def takes(name: str, value: object, *arguments: str) -> None:
    """Check that `value` can be called with so many arguments.

    Raises:
        ConfigurationError: it cannot; the text names it and them.

    >>> takes("on_gap", print, "channels")
    """
    if not callable(value):
        raise ConfigurationError(f"{name} is a function, not {type(value).__name__}")
    try:
        inspect.signature(value).bind(*arguments)
    except TypeError:
        wanted = f"({', '.join(arguments)})" if arguments else "no arguments"
        raise ConfigurationError(f"{name} must take {wanted}") from None
    except ValueError:  # of a builtin, which tells nobody what it takes
        return
