"""A TCP proxy that breaks the link to a server, on demand and in several ways."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

TASK_PREFIX = "fault-proxy"
"""Names of the proxy's tasks begin with this, so that they can be told from leaked ones."""

Direction = Literal["to_server", "to_client"]

_CHUNK_BYTES = 65536


@dataclass(eq=False)
class _Link:
    """One proxied connection."""

    task: asyncio.Task[object]
    writers: list[asyncio.StreamWriter] = field(default_factory=list[asyncio.StreamWriter])
    aborted: bool = False

    def abort(self) -> None:
        self.aborted = True
        for writer in self.writers:
            writer.transport.abort()
        self.task.cancel()


class FaultProxy:
    """Stands in front of a server and passes bytes on until told otherwise.

    ``async with FaultProxy(server_url) as proxy:`` then connect to `proxy.url`.

    Args:
        server_url: where the server is; one host and a port.
    """

    def __init__(self, server_url: str) -> None:
        self._parts = urlsplit(server_url)
        if self._parts.hostname is None or self._parts.port is None:
            raise ValueError("a fault proxy needs a URL with one host and a port")
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._abandoned: list[asyncio.StreamWriter] = []
        self._flowing: dict[Direction, asyncio.Event] = {
            "to_server": asyncio.Event(),
            "to_client": asyncio.Event(),
        }
        self._refusing = False
        self._delay = 0.0
        self._left: dict[Direction, int] = {}
        self.resume()

    @property
    def port(self) -> int:
        """The TCP port it listens on, on the loopback interface.

        Raises:
            RuntimeError: it is not started.
        """
        if self._server is None:
            raise RuntimeError("the fault proxy is not started")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The server's URL, with this proxy as its host."""
        userinfo, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{self.port}"))

    @property
    def connections(self) -> int:
        """How many connections are open through it."""
        return len(self._links)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen on a free port. Idempotent."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Cut every connection and stop listening. Idempotent."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = {link.task for link in self._links}
        self.cut()
        self._end_abandoned()
        if tasks:
            await asyncio.wait(tasks)

    def cut(self, *, one_of: random.Random | None = None) -> int:
        """Reset every open connection, on both sides, and return how many; new ones are let in.

        Args:
            one_of: chooses a single one instead.
        """
        links = sorted(self._links, key=id)
        if one_of and links:
            links = [one_of.choice(links)]
        for link in links:
            link.abort()
        return len(links)

    def abandon(self) -> int:
        """Reset every open connection on the client's side alone, and return how many.

        The server takes them to be alive, until `resume` or its own patience ends.
        """
        for link in self._links:
            self._abandoned += link.writers[1:]
            link.writers = link.writers[:1]
        return self.cut()

    def refuse(self) -> None:
        """Cut everything and reset every new connection, until `resume`."""
        self._refusing = True
        self.cut()

    def freeze(self, *directions: Direction) -> None:
        """Hold all bytes back (by default both ways) while connections look alive.

        ``freeze("to_client")`` lets requests through and keeps the answers. What was held is
        passed on after `resume`, unless the connection has ended by then.
        """
        for direction in directions or tuple(self._flowing):
            self._flowing[direction].clear()

    def close_after(self, count: int, direction: Direction) -> None:
        """Pass on exactly `count` more bytes in one direction, then close all connections, once.

        What has passed arrives. With 0 they are closed when the next byte comes.
        """
        self._left[direction] = count

    def delay(self, seconds: float) -> None:
        """Pass everything on `seconds` late, until `resume`."""
        self._delay = seconds

    def resume(self) -> None:
        """End every fault: let connections in and bytes through, at once."""
        self._end_abandoned()
        self._refusing = False
        self._delay = 0.0
        self._left.clear()
        for flowing in self._flowing.values():
            flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._refusing:
            writer.transport.abort()
            return
        task.set_name(f"{TASK_PREFIX} {self._parts.port}")
        link = _Link(task, [writer])
        self._links.add(link)
        try:
            await self._join(link, reader, writer)
        except OSError:
            writer.transport.abort()  # the server is away: the client sees what it would see there
        except asyncio.CancelledError:
            # Python 3.11 reports a server's callback that ends cancelled as an error.
            if not link.aborted:
                raise
        finally:
            self._links.discard(link)

    async def _join(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        answers, upstream = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        link.writers.append(upstream)
        async with asyncio.TaskGroup() as group:
            for pump, name in (
                (self._pump(reader, upstream, "to_server"), "to server"),
                (self._pump(answers, writer, "to_client"), "to client"),
            ):
                group.create_task(pump, name=f"{TASK_PREFIX} {self._parts.port} {name}")

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: Direction
    ) -> None:
        try:
            while data := await source.read(_CHUNK_BYTES):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._flowing[direction].wait()
                passed = data[: self._left.get(direction)]
                target.write(passed)
                await target.drain()
                self._count(direction, len(data), len(passed))
            await self._flowing[direction].wait()
        except OSError:
            pass  # either side may go away at any time; closing tells the other
        finally:
            if target not in self._abandoned:
                target.close()

    def _end_abandoned(self) -> None:
        abandoned, self._abandoned = self._abandoned, []
        for writer in abandoned:
            writer.transport.abort()

    def _count(self, direction: Direction, came: int, passed: int) -> None:
        """Cut when as many bytes have passed as were to."""
        if direction not in self._left:
            return
        self._left[direction] -= passed
        if passed < came or not self._left[direction]:
            del self._left[direction]
            self._end_streams()

    def _end_streams(self) -> None:
        """Close every connection behind what has passed."""
        for link in self._links:
            for writer in link.writers:
                writer.close()
