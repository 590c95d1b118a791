from __future__ import annotations

import pytest

from cluster_kit.testing.contracts.locks import Environment, Features, LockContract
from cluster_kit_memory.locks import MemoryLocks
from tests.contracts.memory_environment import OneHub


class MemoryEnvironment(OneHub[MemoryLocks], Environment):
    adapter = MemoryLocks

    async def forget(self) -> None:
        self.any_adapter.forget()


class TestMemoryLocks(LockContract):
    features = Features(
        frozen_link=False,  # there is no wire on which anything could be lost
        dropped_answers=False,
    )

    async def make_environment(self, request: pytest.FixtureRequest) -> Environment:
        return MemoryEnvironment()
