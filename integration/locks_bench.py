"""What the tests of locks on Redis and memcached share: a server of their own, and instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.testing.servers import NodeUnavailableError, PlainServer, start_plain
from cluster_kit.testing.servers.plain import Kind, LocalServer


@contextmanager
def own_server(kind: Kind, *, to: str = "", local: bool = False) -> Iterator[PlainServer]:
    """Have a server of a test's own.

    Args:
        kind: of it.
        to: what is done to it, if it may only be done to one that nobody else uses.
        local: take a process of this machine, no container.
    """
    try:
        server = start_plain(kind, [LocalServer]) if local else start_plain(kind)
    except NodeUnavailableError as exc:
        pytest.skip(str(exc))
    try:
        if to and not server.can_control:
            pytest.skip(f"{server.origin} is not ours to {to}")
        yield server
    finally:
        server.close()


def running(url: str) -> Cluster:
    """Return an instance whose locks are there."""
    return Cluster("shop", settings=Settings(event_queue={"url": "memory://"}, locks={"url": url}))
