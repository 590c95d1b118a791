"""How the answers of a server are judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from cluster_kit import Cluster
from cluster_kit.errors import CacheUnavailable
from cluster_kit.ports import AdapterContext
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit_aiocache.server import Server

URL = "redis://somewhere/"


class Client:
    def __init__(self) -> None:
        self.places = asyncio.Semaphore(2)
        self.retired = 0

    async def retire(self, since: float) -> None:
        assert since > 0
        self.retired += 1


class Judged(Server[Client]):
    errors: ClassVar[tuple[type[Exception], ...]] = (OSError, TimeoutError)

    def __init__(self, cluster: Cluster) -> None:
        context = AdapterContext(
            app="shop", instance_id="1", tasks=cluster._background, emit=cluster.telemetry.emit
        )
        super().__init__(URL, context, "cache", CacheUnavailable)
        self.client = Client()
        self._joined(self.client)

    async def _leave(self, client: Client) -> None:
        pass

    async def _ping(self) -> None:
        raise CacheUnavailable("", "still away")


@pytest_asyncio.fixture
async def server(cluster_factory: ClusterFactory) -> Judged:
    [cluster] = await cluster_factory()
    return Judged(cluster)


async def refuse(_: Client) -> None:
    await asyncio.sleep(0.02)
    raise CacheUnavailable("", "it is full", refused=True)


async def hang(_: Client) -> None:
    await asyncio.Event().wait()


def misread(_: Client) -> Any:
    return int("+OK")


@pytest.mark.asyncio
async def test_who_is_refused_is_answered(server: Judged) -> None:
    calls = (server.ask("", refuse, 0.2, patience=4) for _ in range(40))
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert {str(answer) for answer in answers} == {"cache '': it is full"}
    assert server.health().status == "ok"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("call", "reason", "retired"),
    [
        (hang, "no answer in time", 1),
        (misread, "the answer makes no sense: ValueError: invalid literal", 0),
    ],
)
async def test_a_bad_answer_and_none_are_no_answer(
    server: Judged,
    caplog: pytest.LogCaptureFixture,
    call: Callable[[Client], Any],
    reason: str,
    retired: int,
) -> None:
    for _ in range(3):
        with pytest.raises(CacheUnavailable, match=reason):
            await server.ask("", call, 0.05)
    assert server.health().status == "down"
    assert server.client.retired == 3 * retired

    await server.ask("", lambda _: asyncio.sleep(0), 1)
    assert server.health().status == "ok"
    said = [record.getMessage() for record in caplog.records if record.name.endswith("state")]
    assert len(said) == 1
    assert said[0].startswith(f"cache: {URL} is lost: {reason}")
    await server.close()
