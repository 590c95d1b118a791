"""The contract of transactions: what is published in one leaves after its commit, or never.

A database's tests are one class::

    class TestMyDatabase(TransactionContract):
        async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
            return Environment("postgresql+psycopg://…", "postgresql+asyncpg://…")

Every scenario is inherited, and run on each kind of session and connection of SQLAlchemy; those
that need what `Features` rule out are dropped, and the run says which. `run_program`
is for tests that make up their own interleavings.
"""

from __future__ import annotations

from cluster_kit.testing.contracts.transactions.base import Scenarios
from cluster_kit.testing.contracts.transactions.bench import Bench
from cluster_kit.testing.contracts.transactions.commits import CommitScenarios
from cluster_kit.testing.contracts.transactions.doubts import DoubtScenarios
from cluster_kit.testing.contracts.transactions.environment import (
    KINDS,
    Environment,
    Features,
    Kind,
)
from cluster_kit.testing.contracts.transactions.joined import JoinedScenarios
from cluster_kit.testing.contracts.transactions.programs import STEPS, run_program
from cluster_kit.testing.contracts.transactions.refusals import RefusalScenarios
from cluster_kit.testing.contracts.transactions.rollbacks import RollbackScenarios
from cluster_kit.testing.contracts.transactions.savepoints import SavepointScenarios
from cluster_kit.testing.contracts.transactions.threads import ThreadScenarios
from cluster_kit.testing.contracts.transactions.two_phase import TwoPhaseScenarios

__all__ = [
    "KINDS",
    "STEPS",
    "Bench",
    "Environment",
    "Features",
    "Kind",
    "Scenarios",
    "TransactionContract",
    "run_program",
]


class TransactionContract(
    CommitScenarios,
    RollbackScenarios,
    DoubtScenarios,
    SavepointScenarios,
    JoinedScenarios,
    ThreadScenarios,
    TwoPhaseScenarios,
    RefusalScenarios,
):
    """All of it."""
