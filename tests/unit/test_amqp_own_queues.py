"""What an instance's own queues leave on the broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from cluster_kit.broadcast import Binding
from cluster_kit.errors import TopologyError
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit_amqp.broadcast import queues
from cluster_kit_amqp.broadcast.queues import StickyQueue
from cluster_kit_amqp.link import ChannelDown, LinkDown, LinkError, QueueCounts

pytestmark = pytest.mark.asyncio

ORDERS = Binding(realm="pubsub", pattern="orders.#", transport="sticky")
PRICES = Binding(realm="pubsub", pattern="prices", transport="sticky")


class Broker:
    """Queues and what leads to them, one link and its only channel.

    Attributes:
        fails: by method, or method and key, what it raises when it has done what was asked for,
            or, where it is the broker's answer, instead.
        most_waiting: how many bindings were asked for before the first of them was answered.
    """

    def __init__(self) -> None:
        self.queues: set[str] = set()
        self.keys: set[str] = set()
        self.fails: dict[str, LinkError] = {}
        self.closed: LinkError | None = None
        self.waiting = self.most_waiting = 0
        self.consumers = 0

    async def ensure(self, link: object, name: str, steps: object) -> None: ...

    def forget(self, name: str) -> None: ...

    @asynccontextmanager
    async def channel(self) -> AsyncGenerator[Broker, None]:
        self.closed = None
        yield self

    def _answer(self, method: str, *, late: bool) -> None:
        error = self.fails.get(method)
        if error is not None and isinstance(error, ChannelDown) is not late:
            raise error

    async def check_queue(self, name: str) -> QueueCounts:
        if name not in self.queues:
            raise ChannelDown(404, f"NOT_FOUND - no queue '{name}'")
        return QueueCounts(0, self.consumers)

    async def declare_queue(self, name: str, arguments: object) -> None:
        self._answer("declare", late=False)
        self.queues.add(name)
        self._answer("declare", late=True)

    async def delete_queue(self, name: str) -> None:
        self.queues.discard(name)

    def bind_queue(self, queue: str, exchange: str, key: str) -> asyncio.Future[None]:
        return self._asked("bind", key, lambda: self.keys.add(key))

    def unbind_queue(self, queue: str, exchange: str, key: str) -> asyncio.Future[None]:
        return self._asked("unbind", key, lambda: self.keys.discard(key))

    def _asked(self, method: str, key: str, do: Callable[[], None]) -> asyncio.Future[None]:
        """Answer when the loop turns, as a broker does; behind a refusal nothing is done."""
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        asyncio.get_running_loop().call_soon(self._answer_asked, method, key, do, answer)
        return answer

    def _answer_asked(
        self, method: str, key: str, do: Callable[[], None], answer: asyncio.Future[None]
    ) -> None:
        self.waiting -= 1
        error = self.closed or self.fails.get(method) or self.fails.get(f"{method} {key}")
        if not isinstance(error, ChannelDown):
            do()
        if error is None:
            answer.set_result(None)
        else:
            self.closed = error
            answer.set_exception(error)
            answer.exception()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def queue(broker: Broker) -> StickyQueue:
    context = AdapterContext(app="shop", instance_id="1", tasks=Supervisor(), emit=Telemetry().emit)
    return StickyQueue(cast("Any", broker), context)


async def test_a_queue_whose_declaration_got_no_answer_is_deleted(
    broker: Broker, queue: StickyQueue
) -> None:
    broker.fails["declare"] = LinkDown("cut")
    with pytest.raises(LinkDown):
        await queue.open(cast("Any", broker))
    assert len(broker.queues) == 1

    await queue.leave(cast("Any", broker))
    assert not broker.queues


async def test_a_queue_whose_declaration_got_no_answer_is_taken_next(
    broker: Broker, queue: StickyQueue
) -> None:
    broker.fails["declare"] = LinkDown("cut")
    with pytest.raises(LinkDown):
        await queue.open(cast("Any", broker))
    broker.fails.clear()

    assert await queue.open(cast("Any", broker)) is None
    assert broker.queues == {queue.name}


async def test_a_queue_that_is_made_again_for_one_that_expired_is_a_gap_whatever_was_cut(
    broker: Broker, queue: StickyQueue
) -> None:
    await queue.open(cast("Any", broker))
    broker.queues.clear()
    broker.fails["declare"] = LinkDown("cut")
    with pytest.raises(LinkDown):
        await queue.open(cast("Any", broker))
    broker.fails.clear()

    assert await queue.open(cast("Any", broker)) is not None


async def test_a_queue_of_somebody_else_is_not_deleted(
    broker: Broker, queue: StickyQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "own_queue", lambda *_: "theirs")
    broker.queues.add("theirs")
    broker.fails["declare"] = ChannelDown(405, "RESOURCE_LOCKED")
    with pytest.raises(TopologyError):
        await queue.open(cast("Any", broker))

    await queue.leave(cast("Any", broker))
    assert broker.queues == {"theirs"}


async def test_what_was_bound_before_a_loss_is_held_after_it(
    broker: Broker, queue: StickyQueue
) -> None:
    await queue.open(cast("Any", broker))
    await queue.bind(cast("Any", broker), [ORDERS])
    await queue.open(cast("Any", broker))
    assert (queue.bound, queue.held) == (set(), {ORDERS})

    await queue.unbind(cast("Any", broker), [ORDERS])
    assert broker.keys == set()
    assert queue.held == set()


async def test_what_got_no_answer_may_be_bound(broker: Broker, queue: StickyQueue) -> None:
    await queue.open(cast("Any", broker))
    broker.fails["bind"] = LinkDown("cut")
    with pytest.raises(LinkDown):
        await queue.bind(cast("Any", broker), [ORDERS])

    assert broker.keys == {ORDERS.pattern}
    assert (queue.bound, queue.held) == (set(), {ORDERS})


async def test_what_is_refused_is_not_held_but_for_what_was_bound_before(
    broker: Broker, queue: StickyQueue
) -> None:
    await queue.open(cast("Any", broker))
    await queue.bind(cast("Any", broker), [PRICES])
    await queue.open(cast("Any", broker))
    broker.fails["bind"] = ChannelDown(403, "ACCESS_REFUSED")
    assert {*await queue.bind(cast("Any", broker), [ORDERS, PRICES])} == {ORDERS, PRICES}
    assert queue.held == {PRICES}


async def test_a_refused_unbinding_is_not_asked_for_again(
    broker: Broker, queue: StickyQueue
) -> None:
    await queue.open(cast("Any", broker))
    await queue.bind(cast("Any", broker), [ORDERS])
    broker.fails["unbind"] = ChannelDown(403, "ACCESS_REFUSED")
    with pytest.raises(ChannelDown):
        await queue.unbind(cast("Any", broker), [ORDERS])
    assert queue.held == set()


async def test_nothing_leads_to_a_new_queue(broker: Broker, queue: StickyQueue) -> None:
    await queue.open(cast("Any", broker))
    await queue.bind(cast("Any", broker), [ORDERS])
    broker.queues.clear()

    assert await queue.open(cast("Any", broker)) is not None
    assert queue.held == set()


async def test_many_bindings_cost_one_wait_for_the_broker(
    broker: Broker, queue: StickyQueue
) -> None:
    many = [Binding(realm="pubsub", pattern=f"user.{n}", transport="sticky") for n in range(100)]
    await queue.open(cast("Any", broker))

    assert await queue.bind(cast("Any", broker), many) == {}
    assert (queue.bound, broker.most_waiting) == ({*many}, 100)
    await queue.unbind(cast("Any", broker), many)
    assert (queue.held, broker.keys) == (set(), set())


async def test_a_binding_that_is_refused_costs_no_other(broker: Broker, queue: StickyQueue) -> None:
    await queue.open(cast("Any", broker))
    broker.fails["bind b"] = ChannelDown(403, "ACCESS_REFUSED")
    a, b, c = (Binding(realm="sync", pattern=p, transport="sticky") for p in "abc")

    refused = await queue.bind(cast("Any", broker), [a, b, c, PRICES])
    assert [*refused] == [b]
    assert [*await queue.bind(cast("Any", broker), [b])] == [b]  # by an exchange it knows, too
    assert queue.bound == queue.held == {a, c, PRICES}
    assert broker.keys == {"a", "c", "prices"}


async def test_a_queue_is_shared_while_somebody_else_consumes(
    broker: Broker, queue: StickyQueue
) -> None:
    link = cast("Any", broker)
    seen: list[bool] = []

    async def noted(call: Awaitable[object], consumers: int = 0) -> None:
        broker.consumers = consumers
        await call
        seen.append(queue.shared)

    await noted(queue.open(link))
    await noted(queue.open(link), 1)  # an earlier connection
    await noted(queue.look(link), 2)  # and this one
    await noted(queue.look(link), 1)
    await noted(queue.open(link), 1)
    broker.queues.clear()
    await noted(queue.open(link))  # another queue, which nobody consumes
    assert seen == [False, True, True, False, True, False]
