"""What a Redis answers that is no answer of ours, and one that does not listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from cluster_kit.errors import LockUnavailable
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import REDIS, PlainServer
from integration.locks_bench import own_server, running

KEY = "schema"


class Answering:
    """Passes bytes on, but answers what has a word in it by itself.

    Attributes:
        answers: to requests by a word of theirs.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._writers: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self.answers: dict[bytes, bytes] = {}

    async def start(self) -> str:
        """Return the URL by which it is the server."""
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._listening.sockets[0].getsockname()[1]
        return self._parts._replace(netloc=f"127.0.0.1:{port}").geturl()

    async def close(self) -> None:
        self._listening.close()
        for writer in self._writers:
            writer.close()
        if self._pumps:
            await asyncio.wait(self._pumps)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(
            self._parts.hostname, self._parts.port
        )
        self._writers += writer, to_server
        self._pumps |= {
            asyncio.ensure_future(self._ask(reader, writer, to_server)),
            asyncio.ensure_future(self._pass_on(from_server, writer)),
        }

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                own = [answer for word, answer in self.answers.items() if word in data]
                (writer if own else to_server).write(own[0] if own else data)
        to_server.close()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
        target.close()


@pytest.fixture
def server() -> Iterator[PlainServer]:
    with own_server(REDIS) as server:
        yield server


@pytest_asyncio.fixture
async def answering(server: PlainServer) -> AsyncIterator[Answering]:
    proxy = Answering(server.url)
    yield proxy
    await proxy.close()


@pytest.mark.asyncio
async def test_what_a_server_never_heard_is_not_freed(server: PlainServer) -> None:
    async with FaultProxy(server.url) as proxy, running(proxy.url) as cluster:
        await cluster.locks.inspect(KEY)
        await proxy.close()
        before = len(asyncio.all_tasks())

        for number in range(50):
            with pytest.raises(LockUnavailable):
                await cluster.locks.acquire(f"{KEY}{number}", timeout=0)

        assert len(asyncio.all_tasks()) < before + 10


@pytest.mark.asyncio
async def test_a_server_that_may_not_be_asked_what_it_evicts_is_warned_about(
    answering: Answering, caplog: pytest.LogCaptureFixture
) -> None:
    answering.answers[b"\nINFO\r"] = (
        b"-ERR unknown command 'INFO', with args beginning with: 'memory'\r\n"
    )

    async with running(await answering.start()) as cluster, cluster.locks.hold(KEY):
        assert "does not let this user ask (INFO)" in caplog.text


NONSENSE = [
    b"*0\r\n",
    b"$-1\r\n",
    b"*1\r\n$3\r\nabc\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n*1\r\n:1\r\n",
    b"$3\r\nabc\r\n",
    b"$3\r\n1.5\r\n",
    b"+OK\r\n",
    b":7\r\n",
    b":-5\r\n",
    b":99999999999999999\r\n",
    b",1.5\r\n",
    b"#t\r\n",
    b"%1\r\n+a\r\n+b\r\n",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
async def test_nonsense_is_no_answer(answering: Answering, nonsense: bytes) -> None:
    async with running(await answering.start()) as cluster:
        lease = await cluster.locks.acquire(KEY, renew=False)
        answering.answers[b"EVALSHA"] = nonsense

        with pytest.raises(LockUnavailable):
            await cluster.locks.try_acquire(f"{KEY}.2")
        with pytest.raises(LockUnavailable):
            await cluster.locks.inspect(KEY)
        with pytest.raises(LockUnavailable):
            await lease.extend(60)
        if nonsense != b":7\r\n":  # so many microseconds may be left
            with pytest.raises(LockUnavailable):
                await cluster.locks.rate_limit(KEY, 5, 60).acquire(timeout=0)
        lease.check()

        answering.answers.clear()
        await lease.release()
