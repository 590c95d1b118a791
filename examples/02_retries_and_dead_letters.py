"""What becomes of a task that fails: retries, a dead letter, and a replay after the repair.

Needs no server. The same on RabbitMQ: CLUSTER_KIT_AMQP_URL=amqp://guest:guest@localhost/
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cluster_kit import Cluster, Delivery, Reject, RetryPolicy

cluster = Cluster("shop")
ended = asyncio.Queue[str]()  # what became of tasks, one entry for each
taxes: dict[str, float] = {}


async def invoice(order: dict[str, str], delivery: Delivery) -> None:
    if not order.get("country"):
        raise Reject("an order without a country")  # no retry will help
    print(f"{delivery.id}, run {delivery.attempt} of {delivery.max_retries + 1}")
    taxes[order["country"]]  # KeyError: the retry policy decides


def watch(event: str, fields: Mapping[str, object]) -> None:
    if event in {"task.done", "task.dead"}:
        ended.put_nowait(f"{fields['id']}: {event}")


async def main() -> None:
    quick = RetryPolicy(initial_delay=0.1, jitter=0)
    cluster.event_queue.subscribe("invoices", invoice, retry=quick, max_retries=2)
    cluster.telemetry.subscribe(watch)
    async with cluster:
        queue = cluster.event_queue
        for name, country in (("order-1", "DE"), ("order-2", "")):
            await queue.publish("invoices", {"country": country}, message_id=name)
            print(await ended.get())

        letters = queue.dead_letters("invoices")
        for letter in await letters.browse():
            print(letter.id, letter.reason, letter.error_type, letter.attempts, letter.error_text)

        taxes["DE"] = 0.19  # the repair
        replayed = await letters.replay(["order-1"])
        print(await ended.get())
        print(f"replayed {replayed}, discarded {await letters.discard()}")


asyncio.run(main())

# Output:
# order-1, run 1 of 3
# order-1, run 2 of 3
# order-1, run 3 of 3
# order-1: task.dead
# order-2: task.dead
# order-1 failed KeyError 3 'DE'
# order-2 rejected cluster_kit.message.Reject 1 an order without a country
# order-1, run 1 of 3
# order-1: task.done
# replayed 1, discarded 1
