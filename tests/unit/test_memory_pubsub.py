from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from cluster_kit.broadcast import Binding, Broadcast, Transport
from cluster_kit.errors import ConfigurationError, ConnectError, ConnectionLost
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory import exchange
from cluster_kit_memory.exchange import EXCHANGES
from cluster_kit_memory.pubsub import MemoryPubSub


class Ear:
    """A listener that notes what it is given."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.gaps: list[set[str]] = []

    def received(self, message: Broadcast) -> None:
        self.bodies.append(message.body)

    def gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        self.gaps.append({binding.pattern for binding in bindings})
        self.bodies.append(b"gap")


class Bench:
    """Adapters of one app on one hub."""

    def __init__(self, query: str = "") -> None:
        self.url = f"memory://{uuid.uuid4().hex}{query}"
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self.adapters: list[MemoryPubSub] = []

    async def adapter(self, ear: Ear | None = None, app: str = "shop") -> MemoryPubSub:
        context = AdapterContext(
            app=app,
            instance_id="one",
            tasks=Supervisor(),
            emit=lambda event, /, **fields: self.events.append((event, fields)),
        )
        adapter = MemoryPubSub(self.url, context)
        self.adapters.append(adapter)
        await adapter.connect()
        adapter.listen("pubsub", ear or Ear())
        return adapter

    async def close(self) -> None:
        for adapter in self.adapters:
            await adapter.close()
            await adapter.close()


def binding(pattern: str = "a", transport: Transport = "sticky", realm: str = "pubsub") -> Binding:
    return Binding(realm=realm, pattern=pattern, transport=transport)


async def send(
    adapter: MemoryPubSub,
    body: str = "x",
    transport: Transport = "sticky",
    timeout: float = 5.0,
    **fields: Any,
) -> None:
    values: dict[str, Any] = {"realm": "pubsub", "channel": "a", "id": "1", **fields}
    message = Broadcast(body=body.encode(), **values)
    await adapter.publish(message, transport=transport, timeout=timeout)


@pytest.mark.asyncio
async def test_a_binding_sees_its_realm_and_transport_alone() -> None:
    bench, ear = Bench(), Ear()
    adapter = await bench.adapter(ear)
    await adapter.bind(binding())

    await send(adapter, "1")
    await send(adapter, "2", transport="stream")
    await send(adapter, "3", realm="sync")
    await send(adapter, "4", channel="b")
    await adapter.unbind(binding())
    await send(adapter, "5")

    assert ear.bodies == [b"1"]
    await bench.close()


@pytest.mark.asyncio
async def test_a_message_is_handed_over_once_however_many_bindings_match() -> None:
    bench, ear = Bench(), Ear()
    adapter = await bench.adapter(ear)
    for pattern in ("a", "*", "#"):
        await adapter.bind(binding(pattern))

    await send(adapter)

    assert ear.bodies == [b"x"]
    await bench.close()


@pytest.mark.asyncio
async def test_a_gap_is_told_before_what_was_kept_and_of_what_it_concerns() -> None:
    bench, ear = Bench(), Ear()
    sender, adapter = await bench.adapter(), await bench.adapter(ear)
    for transport in ("ephemeral", "sticky"):
        await adapter.bind(binding(transport, transport))

    adapter.disconnect()
    adapter.disconnect()
    await send(sender, "kept", channel="sticky")
    await send(sender, "lost", transport="ephemeral", channel="ephemeral")
    adapter.reconnect()
    adapter.reconnect()

    assert ear.bodies == [b"gap", b"kept"]
    assert ear.gaps == [{"ephemeral"}]
    told = [event for event, _ in bench.events]
    assert told == ["connection.up", "connection.up", "connection.lost", "connection.up"]
    await bench.close()


@pytest.mark.asyncio
async def test_what_is_kept_is_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "MOST_KEPT", 3)
    bench, ear = Bench(), Ear()
    sender, adapter = await bench.adapter(), await bench.adapter(ear)
    await adapter.bind(binding())

    adapter.disconnect()
    for number in range(5):
        await send(sender, str(number))
    adapter.reconnect()

    assert ear.bodies == [b"gap", b"2", b"3", b"4"]
    await bench.close()


@pytest.mark.asyncio
async def test_health_says_whether_there_is_a_link() -> None:
    bench = Bench()
    adapter = await bench.adapter()
    assert adapter.health().status == "ok"

    adapter.disconnect()
    assert adapter.health().status == "down"
    adapter.reconnect()
    assert adapter.health().status == "ok"
    await bench.close()
    assert adapter.health().status == "down"


@pytest.mark.asyncio
async def test_publishes_that_wait_for_the_link_end_when_the_adapter_closes() -> None:
    bench = Bench()
    adapter = await bench.adapter()
    adapter.disconnect()
    publishes = [asyncio.create_task(send(adapter, timeout=30)) for _ in range(3)]
    await asyncio.sleep(0)

    await bench.close()

    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*publishes, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionLost] * 3
    with pytest.raises(ConnectionLost):
        await send(adapter)
    with pytest.raises(ConnectionLost):
        adapter.reconnect()


@pytest.mark.asyncio
async def test_a_hub_belongs_to_one_event_loop_at_a_time() -> None:
    bench = Bench()
    await bench.adapter()
    outcomes: list[BaseException | None] = []

    def elsewhere() -> None:
        try:
            asyncio.run(Bench.adapter(bench))
        except ConnectError as exc:
            outcomes.append(exc)
        else:
            outcomes.append(None)

    async def in_thread(work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        await eventually(lambda: not thread.is_alive())

    await in_thread(elsewhere)
    assert "belongs to another event loop" in str(outcomes[0])
    bench.adapters.pop()
    await bench.close()
    await in_thread(elsewhere)
    assert outcomes[1] is None

    bench.adapters.clear()  # the loop of the one left there is closed: its hub is gone
    await bench.adapter()
    await bench.close()
    assert bench.url.removeprefix("memory://") not in EXCHANGES._open


@pytest.mark.asyncio
async def test_the_file_of_a_hub_concerns_the_event_queue_only() -> None:
    bench = Bench("?path=/nowhere/at/all.db")
    adapter, ear = await bench.adapter(), Ear()
    other = await bench.adapter(ear)
    await other.bind(binding())

    await send(adapter)

    assert ear.bodies == [b"x"]
    await bench.close()


def test_a_wrong_url_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        asyncio.run(Bench("/path").adapter())


@pytest.mark.asyncio
async def test_a_publish_right_after_an_outage_does_not_overtake_those_that_waited() -> None:
    bench, ear = Bench(), Ear()
    sender, adapter = await bench.adapter(), await bench.adapter(ear)
    await adapter.bind(binding())
    sender.disconnect()
    waiting = [asyncio.create_task(send(sender, str(number))) for number in range(3)]
    await asyncio.sleep(0)

    sender.reconnect()
    await send(sender, "late")
    await asyncio.gather(*waiting)

    assert ear.bodies == [b"0", b"1", b"2", b"late"]
    await bench.close()
