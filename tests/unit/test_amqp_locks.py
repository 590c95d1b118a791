from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit_amqp.locks.desk import Desk


class SlowDeclarer:
    """Counts what is made at once."""

    def __init__(self) -> None:
        self.under_way = 0
        self.most = 0
        self.made = 0

    def is_settled(self, link: object, name: str) -> bool:
        return name.endswith(".known")

    async def ensure(self, *_: object) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.001)
        self.under_way -= 1
        self.made += 1


class Seat:
    link = None


@pytest.mark.asyncio
async def test_hundreds_of_new_locks_are_made_a_few_at_a_time() -> None:
    context = AdapterContext(
        app="shop", instance_id="one", tasks=Supervisor(), emit=Telemetry().emit
    )
    desk = Desk("amqp://localhost", context)
    declarer = SlowDeclarer()
    desk._declarer = cast("Any", declarer)
    seat = cast("Any", Seat())

    async with asyncio.TaskGroup() as group:
        for number in range(300):
            group.create_task(desk.prepare(f"shop.{number}", seat))
        await asyncio.wait_for(desk.prepare("shop.known", seat), 5)

    assert declarer.made == 300
    assert 1 < declarer.most <= 20
    await desk.close()
