"""Servers for tests: where they come from, and what a test may do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.testing.servers.container import container_node
from cluster_kit.testing.servers.given import given_node
from cluster_kit.testing.servers.local import local_node
from cluster_kit.testing.servers.node import NodeUnavailableError, Provider
from cluster_kit.testing.servers.plain import MEMCACHED, REDIS, PlainServer, start_plain
from cluster_kit.testing.servers.postgresql import PostgresServer, start_postgresql
from cluster_kit.testing.servers.rabbitmq import RabbitServer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MEMCACHED",
    "REDIS",
    "NodeUnavailableError",
    "PlainServer",
    "PostgresServer",
    "RabbitServer",
    "start_plain",
    "start_postgresql",
    "start_rabbitmq",
]

PROVIDERS: Sequence[Provider] = (given_node, container_node, local_node)
"""Tried in this order."""


def start_rabbitmq(providers: Sequence[Provider] = PROVIDERS) -> RabbitServer:
    """Return a RabbitMQ to test against; `RabbitServer.close` ends it.

    It is the one named by ``CLUSTER_KIT_TEST_AMQP_URL``, else a container if a Docker engine
    answers, else a node started from the programs of this machine.

    Raises:
        NodeUnavailableError: there is none; the text says why, provider by provider. A given URL
            that does not answer is an error at once, nothing else is tried.
    """
    reasons: list[str] = []
    for provider in providers:
        try:
            node = provider()
        except NodeUnavailableError as exc:
            if exc.final:
                raise
            reasons.append(str(exc))
            continue
        return RabbitServer(node)
    raise NodeUnavailableError("no RabbitMQ to test against: " + "; ".join(reasons))
