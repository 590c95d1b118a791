"""What broadcasts have on the broker, as data.

::

    publish --> [shop.pubsub.ephemeral topic] --channel--> (ck.v1.sub.shop.<instance>.<token>)
            --> [shop.pubsub.sticky    topic] --channel--> (ck.v1.keep.shop.<instance>.<token>)
            --> [shop.pubsub.stream    topic] --------#--> (ck.v1.stream.shop.pubsub)

An exchange for each transport, so that a binding sees the messages of its transport alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cluster_kit.names import new_id
from cluster_kit_amqp.topology import PREFIX, Binding, Exchange, Queue, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cluster_kit.broadcast import Transport
    from cluster_kit.ports import AdapterContext, BroadcastLimits

EPHEMERAL_MESSAGES = 10_000
"""Most messages that wait for an instance that is there; beyond them the oldest go."""

_TOKEN = 8
_MOST_BYTES = 255 - _TOKEN - 1


def exchange_name(app: str, realm: str, transport: Transport) -> str:
    """Return the exchange of a transport; the routing key is the channel."""
    return f"{app}.{realm}.{transport}"


def stream_name(app: str, realm: str) -> str:
    """Return the stream of a realm. Not the exchange's name: a task channel may have that."""
    return f"{PREFIX}stream.{app}.{realm}"


def own_queue(kind: str, context: AdapterContext) -> str:
    """Return a name for a queue of this instance that no queue had before.

    The broker may not have noticed yet that an earlier connection is gone, and holds its names.
    """
    text = f"{PREFIX}{kind}.{context.app}.{context.instance_id}"
    fitting = text.encode()[:_MOST_BYTES].decode(errors="ignore")
    return f"{fitting}.{new_id()[:_TOKEN]}"


def ephemeral_arguments() -> Mapping[str, object]:
    """Return the arguments of a queue that goes with its connection."""
    return {
        "x-queue-type": "classic",
        "x-max-length": EPHEMERAL_MESSAGES,
        "x-overflow": "drop-head",
    }


def sticky_arguments(limits: BroadcastLimits) -> Mapping[str, object]:
    """Return the arguments of a queue that outlives its connection for a while.

    With a single active consumer nothing overtakes what an earlier connection holds that the
    broker takes to be alive: it is given out when that is gone.
    """
    return {
        "x-queue-type": "classic",
        "x-expires": math.ceil(limits.sticky_expires * 1000),
        "x-max-length": limits.sticky_max_messages,
        "x-overflow": "drop-head",
        "x-single-active-consumer": True,
    }


def exchange_steps(app: str, realm: str, transport: Transport) -> Steps:
    """Return what messages of a realm and transport are published to."""
    return (Exchange(exchange_name(app, realm, transport), "topic"),)


def stream_steps(app: str, realm: str, limits: BroadcastLimits) -> Steps:
    """Return a realm's stream and what leads to it."""
    exchange, stream = exchange_name(app, realm, "stream"), stream_name(app, realm)
    return (
        Exchange(exchange, "topic"),
        Queue(
            stream,
            {
                "x-queue-type": "stream",
                "x-max-age": f"{math.ceil(limits.stream_max_age)}s",
                "x-max-length-bytes": limits.stream_max_bytes,
                "x-stream-max-segment-size-bytes": limits.stream_segment_bytes,
            },
        ),
        Binding("queue", stream, exchange, "#"),
    )


def steps_to(app: str, realm: str, transport: Transport, limits: BroadcastLimits) -> Steps:
    """Return what must be there before a message is published."""
    if transport == "stream":
        return stream_steps(app, realm, limits)
    return exchange_steps(app, realm, transport)
