"""Calls at the wrong time."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError


class LifecycleError(ClusterKitError, RuntimeError):
    """A call at the wrong time of the cluster's life."""


class NotStartedError(LifecycleError):
    """The cluster is not running."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the cluster is not running; call start() or use 'async with'")


class AlreadyStartedError(LifecycleError):
    """Legal only before `start`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is legal only before start()")
