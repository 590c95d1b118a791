"""What the contracts of all capabilities share; each adds what is its own.

Authors of adapters need only `ProxiedEnvironment` of it: the rest reaches them through the
`Environment`, `Features`, `Bench` and `Scenarios` of a contract.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.common.bench import BaseBench
from cluster_kit.testing.contracts.common.environment import (
    BaseEnvironment,
    BaseFeatures,
    ProxiedEnvironment,
)
from cluster_kit.testing.contracts.common.scenarios import BaseScenarios

__all__ = [
    "BaseBench",
    "BaseEnvironment",
    "BaseFeatures",
    "BaseScenarios",
    "ProxiedEnvironment",
]
