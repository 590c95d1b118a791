"""A first task: published, failed once, tried again.

Needs no server. The same on RabbitMQ: CLUSTER_KIT_AMQP_URL=amqp://guest:guest@localhost/
"""

from __future__ import annotations

import asyncio

from cluster_kit import Cluster, Delivery

cluster = Cluster("shop")
done = asyncio.Event()


async def send_mail(mail: dict[str, str], delivery: Delivery) -> None:
    print(f"attempt {delivery.attempt}: {mail['text']} to {mail['to']}")
    if delivery.attempt == 1:
        raise ConnectionError("the mail server is away")
    done.set()


async def main() -> None:
    cluster.event_queue.subscribe("mails", send_mail)
    async with cluster:
        await cluster.event_queue.publish("mails", {"to": "ann", "text": "hello"})
        await done.wait()


asyncio.run(main())

# Output:
# attempt 1: hello to ann
# attempt 2: hello to ann
