"""The base of every error."""

from __future__ import annotations

from copy import copy
from typing import Any, TypeVar

from cluster_kit.pickling import reduced


class ClusterKitError(Exception):
    """Base of every error of this library. It survives pickle and copy."""

    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


E = TypeVar("E", bound=ClusterKitError)


def blaming(error: E, source: str) -> E:
    """Return `error` with `source` before its text: the setting it is about.

    It is a copy, for what raised it may keep it, to raise it again. It has no traceback: in those
    frames there is the URL as it is, and what collects errors may show the variables of frames.
    """
    named = copy(error)
    named.args = (f"{source}: {error}",)
    named.__cause__ = error.__cause__
    return named
