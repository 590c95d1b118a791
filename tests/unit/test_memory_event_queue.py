from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from cluster_kit.errors import ConnectionLost, EncodeError
from cluster_kit.message import DeadReason
from cluster_kit.names import QueueName
from cluster_kit.ports import QueueDepth
from cluster_kit.registry import AdapterRegistry
from cluster_kit_memory.event_queue import MemoryEventQueue
from tests.unit.memory_bench import QUEUE, Instance, fresh_url, joined, let_run, task

pytestmark = pytest.mark.asyncio


async def test_the_registry_makes_it_from_a_url() -> None:
    url = fresh_url()
    context = Instance(url, app="shop", clock=None, crash_limit=10).context

    assert isinstance(AdapterRegistry().create("event_queue", url, context), MemoryEventQueue)


async def test_tasks_come_in_order_and_as_they_were_published() -> None:
    async with joined(fresh_url()) as one:
        sent = [task(str(n), headers={"n": n}, attempt=n + 1, timeout=2.5) for n in range(50)]
        for envelope in sent:
            await one.adapter.publish(envelope, timeout=5)
        inbox = await one.consume()
        await inbox.holds(*(str(n) for n in range(50)))

        assert [received.envelope for received in inbox.received] == sent
        assert {received.redeliveries for received in inbox.received} == {0}
        assert len({received.copy_id for received in inbox.received}) == 50


async def test_no_more_than_prefetch_are_unsettled_and_each_ack_brings_one() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(prefetch=2)
        await one.publish("1", "2", "3", "4")
        await let_run()
        assert inbox.ids == ["1", "2"]
        assert await one.ready() == 2

        await inbox.received[1].ack()
        await inbox.holds("1", "2", "3")


async def test_instances_take_in_turn() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two, joined(url) as three:
        inboxes = [await each.consume() for each in (one, two, three)]
        await one.publish(*(str(n) for n in range(9)))
        await let_run()

        assert [inbox.ids for inbox in inboxes] == [
            ["0", "3", "6"],
            ["1", "4", "7"],
            ["2", "5", "8"],
        ]
        assert await one.adapter.depth(QUEUE) == QueueDepth(ready=0, dead=0, consumers=3)


async def test_a_full_consumer_is_passed_over() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two:
        slow, quick = await one.consume(prefetch=1), await two.consume(prefetch=10)
        await one.publish("1", "2", "3", "4")
        await let_run()

        assert slow.ids == ["1"]
        assert quick.ids == ["2", "3", "4"]


async def test_what_a_closed_consumer_had_returns_to_the_front_in_order_as_redelivered() -> None:
    url = fresh_url()
    async with joined(url) as one, joined(url) as two:
        first = await one.consume(prefetch=3)
        await one.publish("1", "2", "3", "4")
        await first.holds("1", "2", "3")
        await first.received[1].ack()
        await first.holds("1", "2", "3", "4")
        await first.consumer.close()
        await first.consumer.close()

        second = await two.consume()
        await second.holds("1", "3", "4")
        assert [received.redeliveries for received in second.received] == [1, 1, 1]


async def test_what_a_closed_adapter_had_goes_to_the_others() -> None:
    url = fresh_url()
    async with joined(url) as two:
        async with joined(url) as one:
            inbox = await one.consume()
            await one.publish("1", "2")
            await inbox.holds("1", "2")
        taken = await two.consume()
        await taken.holds("1", "2")

        with pytest.raises(ConnectionLost, match="not ours any more"):
            await inbox.received[0].ack()


async def test_a_task_given_back_is_first_in_line_and_not_counted() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(prefetch=2)
        await one.publish("1", "2", "3", "4")
        await inbox.holds("1", "2")
        await inbox.consumer.pause()
        for received in reversed(inbox.received):
            await received.give_back()
            assert received.give_back_counts is False

        other = await one.consume()
        await other.holds("1", "2", "3", "4")
        assert {received.redeliveries for received in other.received} == {0}


async def test_a_copy_keeps_its_identity_through_redelivery() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        await one.publish("1")
        await inbox.holds("1")
        await inbox.received[0].give_back()
        await inbox.holds("1", "1")

        assert inbox.received[0].copy_id == inbox.received[1].copy_id != ""


async def test_a_delivery_is_settled_once() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        await one.publish("1")
        await inbox.holds("1")
        await inbox.received[0].ack()

        with pytest.raises(ConnectionLost):
            await inbox.received[0].ack()
        with pytest.raises(ConnectionLost):
            await inbox.received[0].give_back()
        assert await one.ready() == 0


async def test_a_paused_consumer_gets_nothing_and_keeps_what_it_has() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        await one.publish("1")
        await inbox.holds("1")
        await inbox.consumer.pause()
        await one.publish("2")
        await let_run()
        assert inbox.ids == ["1"]

        await inbox.received[0].ack()
        await inbox.consumer.resume()
        await inbox.holds("1", "2")
        assert inbox.received[1].redeliveries == 0


async def test_pausing_recalls_what_was_on_the_way_without_counting_it() -> None:
    async with joined(fresh_url()) as one:
        await one.publish("1", "2")
        inbox = await one.consume()
        await inbox.consumer.pause()
        await let_run()
        assert inbox.ids == []

        await inbox.consumer.resume()
        await inbox.holds("1", "2")
        assert {received.redeliveries for received in inbox.received} == {0}


async def test_the_share_is_made_less_in_a_pause_and_more_at_any_time() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(prefetch=2)
        await inbox.consumer.pause()
        await one.publish("1", "2", "3")
        await inbox.consumer.resume(1)
        await inbox.holds("1")

        await inbox.consumer.resume()
        await let_run()
        assert inbox.ids == ["1"]

        await inbox.consumer.resume(3)
        await inbox.holds("1", "2", "3")


async def test_a_consumer_may_start_paused() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(paused=True)
        await one.publish("1")
        await let_run()
        assert inbox.ids == []
        assert await one.adapter.depth(QUEUE) == QueueDepth(ready=1, dead=0, consumers=0)

        await inbox.consumer.resume()
        await inbox.holds("1")


async def test_nobody_can_change_what_others_get() -> None:
    async with joined(fresh_url()) as one:
        headers = {"tags": ["a"]}
        await one.publish("1", headers=headers)
        headers["tags"].append("publisher")
        inbox = await one.consume()
        await inbox.holds("1")
        tags = inbox.received[0].envelope.headers["tags"]
        assert isinstance(tags, list)
        tags.append("receiver")
        await inbox.received[0].give_back()
        await inbox.holds("1", "1")

        assert inbox.received[1].envelope.headers == {"tags": ["a"]}


async def test_a_task_that_never_has_an_outcome_is_dead_as_crashed() -> None:
    async with joined(fresh_url(), crash_limit=12) as one:
        await one.publish("1")
        for redeliveries in range(23):
            inbox = await one.consume()
            await inbox.holds("1")
            assert inbox.received[0].redeliveries == redeliveries
            await inbox.consumer.close()

        [dead] = await one.dead()
        assert dead.death is not None
        assert dead.death.reason is DeadReason.CRASHED
        assert await one.ready() == 0


async def test_the_net_for_crashes_never_hangs_below_twenty() -> None:
    async with joined(fresh_url(), crash_limit=0) as one:
        await one.publish("1")
        for _ in range(20):
            inbox = await one.consume()
            await inbox.holds("1")
            await inbox.consumer.close()

        assert await one.dead() == []
        assert await one.ready() == 1


async def test_a_queue_exists_once_somebody_used_it() -> None:
    url = fresh_url()
    async with joined(url) as shop, joined(url, app="bakery") as bakery:
        assert await shop.adapter.depth(QUEUE) is None
        assert await shop.adapter.purge(QUEUE) == 0
        assert await shop.dead() == []
        assert await shop.adapter.channels() == []

        await bakery.publish("1")
        await shop.consume(queue=QueueName("shop", "a"))
        await bakery.adapter.publish(task("2", queue=QueueName("bakery", "b")), timeout=5)
        await bakery.adapter.publish(task("3", queue=QueueName(None, "shared")), timeout=5)
        assert await shop.adapter.channels() == [QueueName("shop", "a"), QUEUE]
        assert await bakery.adapter.channels() == [QueueName("bakery", "b")]


async def test_a_shared_queue_crosses_applications() -> None:
    url, audit = fresh_url(), QueueName(None, "audit")
    async with joined(url) as shop, joined(url, app="bakery") as bakery:
        inbox = await bakery.consume(queue=audit)
        await shop.adapter.publish(task("1", queue=audit), timeout=5)

        await inbox.holds("1")
        assert inbox.received[0].envelope.queue == audit


async def test_a_queue_is_known_by_its_full_name_as_on_a_broker() -> None:
    async with joined(fresh_url()) as one:
        await one.adapter.publish(task("1", queue=QueueName(None, "shop.mails")), timeout=5)
        inbox = await one.consume()

        await inbox.holds("1")
        assert inbox.received[0].envelope.queue == QUEUE


async def test_purge_drops_what_waits_for_a_consumer_and_nothing_else() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(prefetch=1)
        await one.publish("running", "ready 1", "ready 2")
        await one.publish("delayed", delay=60)
        await one.bury("dead")
        await inbox.holds("running")

        assert await one.adapter.purge(QUEUE) == 2
        assert await one.adapter.depth(QUEUE) == QueueDepth(ready=0, dead=1, consumers=1)
        await inbox.received[0].give_back()
        await inbox.holds("running", "running")


async def test_publishing_does_not_starve_the_consumers() -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume(prefetch=1000)
        for n in range(100):
            await one.publish(str(n))

        assert len(inbox.received) > 90


async def test_one_consumer_that_raises_harms_no_other_delivery() -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: reported.append(what))

    def fail(_received: object) -> None:
        raise RuntimeError("broken service")

    async with joined(fresh_url()) as one:
        await one.adapter.consume(QUEUE, prefetch=1, on_delivery=fail)
        inbox = await one.consume()
        await one.publish("1", "2", "3")
        await inbox.holds("2", "3")

    assert len(reported) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expires_at", "soon"),
        ("expires_at", math.nan),
        ("timeout", "x"),
        ("max_retries", "many"),
        ("headers", [1, 2]),
    ],
)
async def test_a_task_that_is_spoilt_is_refused_and_harms_no_other(field: str, value: Any) -> None:
    async with joined(fresh_url()) as one:
        inbox = await one.consume()
        await one.publish("1", expires_at=1e12)
        for call in (one.adapter.publish, one.adapter.bury):
            with pytest.raises(EncodeError, match=f"^{field} of task 2 "):
                await call(task("2", **{field: value}), timeout=5)
        await one.publish("3", expires_at=1e12)

        await inbox.holds("1", "3")


async def test_a_hub_that_closes_says_what_it_forgets(caplog: pytest.LogCaptureFixture) -> None:
    async with joined(fresh_url()) as one:
        await one.publish("1")
        await one.bury("2")

    assert "1 unfinished tasks and 1 dead letters are gone" in caplog.text
