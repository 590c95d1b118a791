"""The contract of outbox and inbox: for each database, and each broker behind it.

The tests of a combination are one class::

    class TestOnMyDatabase(OutboxContract):
        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return MyEnvironment()

Every scenario is inherited; those that need what `Features` rule out are dropped, and the run
says which. pytest and pytest-asyncio run them, in strict and in auto mode.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.outbox.bad_input import BadInputScenarios
from cluster_kit.testing.contracts.outbox.base import Scenarios
from cluster_kit.testing.contracts.outbox.bench import Bench
from cluster_kit.testing.contracts.outbox.endings import EndingScenarios
from cluster_kit.testing.contracts.outbox.environment import Environment, Features
from cluster_kit.testing.contracts.outbox.inbox import InboxScenarios
from cluster_kit.testing.contracts.outbox.publishing import PublishingScenarios
from cluster_kit.testing.contracts.outbox.refusals import RefusalScenarios
from cluster_kit.testing.contracts.outbox.relaying import RelayingScenarios
from cluster_kit.testing.contracts.outbox.rows import RowScenarios
from cluster_kit.testing.contracts.outbox.settling import SettlingScenarios

__all__ = ["Bench", "Environment", "Features", "OutboxContract", "Scenarios"]


class OutboxContract(
    PublishingScenarios,
    RelayingScenarios,
    RefusalScenarios,
    RowScenarios,
    SettlingScenarios,
    InboxScenarios,
    EndingScenarios,
    BadInputScenarios,
):
    """All of it."""
