"""Closes client connections: the broker does if it can be told to, else a proxy."""

from __future__ import annotations

import asyncio
import random
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

    async def close_one(self, chance: random.Random) -> int:
        """Close one of those that are open; return how many were closed: 0 if none is open."""
        ...


class BrokerFaults:
    """The broker itself closes them, with an AMQP close frame."""

    closed_by = "the broker"

    def __init__(self, server: RabbitServer, url: str) -> None:
        self._server = server
        self.url = url

    async def close_connections(self) -> None:
        await asyncio.to_thread(self._server.close_connections, self.url)

    async def close_one(self, chance: random.Random) -> int:
        # One command: looking for a connection and closing it takes two, and each most of a second.
        found = await asyncio.to_thread(self._server.ctl, "eval", _close_one(self._vhost, chance))
        return int(found.strip())

    @property
    def _vhost(self) -> str:
        return unquote(urlsplit(self.url).path.removeprefix("/")) or "/"


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

    async def close_one(self, chance: random.Random) -> int:
        return self._proxy.cut(one_of=chance)


def _close_one(vhost: str, chance: random.Random) -> str:
    """Return the Erlang that closes a connection of a virtual host and says how many it closed."""
    return (
        "case [proplists:get_value(pid, C) || C <- rabbit_networking:connection_info_all([pid, "
        f'vhost]), proplists:get_value(vhost, C) =:= <<"{vhost}">>] of [] -> 0; Open -> '
        f"Which = {chance.randrange(1000)} rem length(Open) + 1, "
        'ok = rabbit_networking:close_connection(lists:nth(Which, Open), "closed by a test"), '
        "1 end."
    )


@asynccontextmanager
async def open_faults(url: str, server: RabbitServer | None) -> AsyncIterator[Faults]:
    """Use `server`, on which `url` is, if it takes commands; else put a proxy in front of `url`."""
    if server is not None and server.has_ctl:
        yield BrokerFaults(server, url)
        return
    async with FaultProxy(url) as proxy:
        yield ProxyFaults(proxy)
