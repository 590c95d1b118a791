"""The base of every error."""

from __future__ import annotations

from typing import Any

from cluster_kit.pickling import reduced


class ClusterKitError(Exception):
    """Base of every error of this library. It survives pickle and copy."""

    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)
