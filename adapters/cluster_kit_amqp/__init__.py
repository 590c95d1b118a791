"""The RabbitMQ adapter: durable queues on RabbitMQ 3.10 to 4.x, without a plugin on the broker.

URL: ``amqp://user:password@host-1:5672,host-2/vhost?option=value``; `cluster_kit_amqp.options`
lists the options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.ports import AdapterContext, AdapterSpec, Driver

if TYPE_CHECKING:
    from cluster_kit.ports import EventQueueAdapter, LockAdapter, PubSubAdapter

__all__ = ["ADAPTER"]


def _event_queue(url: str, context: AdapterContext) -> EventQueueAdapter:
    # Imported here, for it loads the driver, which listing adapters must not.
    from cluster_kit_amqp.tasks.adapter import AmqpEventQueue

    return AmqpEventQueue(url, context)


def _pubsub(url: str, context: AdapterContext) -> PubSubAdapter:
    from cluster_kit_amqp.broadcast.adapter import AmqpPubSub

    return AmqpPubSub(url, context)


def _locks(url: str, context: AdapterContext) -> LockAdapter:
    from cluster_kit_amqp.locks.adapter import AmqpLocks

    return AmqpLocks(url, context)


ADAPTER = AdapterSpec(
    name="amqp",
    schemes=("amqp", "amqps"),
    event_queue=_event_queue,
    pubsub=_pubsub,
    locks=_locks,
    drivers=(Driver(package="aiormq"), Driver(package="pamqp")),
    install="pip install cluster-kit",
)
"""Registered in the entry-point group ``cluster_kit.adapters``."""
