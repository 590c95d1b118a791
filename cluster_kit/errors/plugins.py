"""Around plugins."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.errors.configuration import ConfigurationError


class PluginError(ClusterKitError):
    """Around plugins."""


class PluginFailedError(PluginError):
    """A plugin's hook raised; the cause is chained."""

    plugin: str
    hook: str

    def __init__(self, plugin: str, hook: str, cause: BaseException) -> None:
        self.plugin, self.hook = plugin, hook
        super().__init__(f"plugin {plugin!r} failed in {hook}: {type(cause).__name__}: {cause}")


class PluginRequirementError(PluginError, ConfigurationError):
    """A required plugin is missing, or plugins require each other in a circle."""
