"""Closes every client connection at once: the broker does if it can be told to, else a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import unquote, urlsplit

from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import RabbitServer


class Faults(Protocol):
    """Where clients connect to, and what closes their connections."""

    @property
    def url(self) -> str: ...

    @property
    def closed_by(self) -> str: ...

    async def close_connections(self) -> None:
        """Close all that are open; new ones are let in."""
        ...


class BrokerFaults:
    """The broker itself closes them, with an AMQP close frame."""

    closed_by = "the broker"

    def __init__(self, server: RabbitServer, url: str) -> None:
        self._server = server
        self.url = url

    async def close_connections(self) -> None:
        vhost = unquote(urlsplit(self.url).path.removeprefix("/")) or "/"
        await asyncio.to_thread(self._server.close_connections, vhost=vhost)


class ProxyFaults:
    """A proxy in front of the broker resets them."""

    closed_by = "a proxy"

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    @property
    def url(self) -> str:
        return self._proxy.url

    async def close_connections(self) -> None:
        self._proxy.cut()


@asynccontextmanager
async def open_faults(url: str, server: RabbitServer | None) -> AsyncIterator[Faults]:
    """Use `server`, on which `url` is, if it takes commands; else put a proxy in front of `url`."""
    if server is not None and server.has_ctl:
        yield BrokerFaults(server, url)
        return
    async with FaultProxy(url) as proxy:
        yield ProxyFaults(proxy)
