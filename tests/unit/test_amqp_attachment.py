"""What an attachment makes of slow answers and of refusals, on a source that gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from typing import Any, cast

import pytest
import pytest_asyncio

from cluster_kit.broadcast import Binding
from cluster_kit.clock import SystemClock
from cluster_kit.errors import TopologyError
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.broadcast import attachment
from cluster_kit_amqp.broadcast.attachment import Attachment
from cluster_kit_amqp.broadcast.context import AttachmentContext
from cluster_kit_amqp.broadcast.source import Consumption
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.link import NO_ARGUMENTS, LinkDown

pytestmark = pytest.mark.asyncio


def binding(pattern: str) -> Binding:
    return Binding(realm="pubsub", pattern=pattern, transport="sticky")


class Broker:
    """A link, its channels, and a source on it.

    Attributes:
        takes: seconds for each binding.
        refuses: patterns.
        calls: how often it was asked for bindings.
        consumers: so many there were.
        consumes: set where it answers who wants to be one.
        shares: whether an earlier connection consumes, too.
        looks: how often that was looked for.
    """

    def __init__(self) -> None:
        self.name, self.silence = "a queue", 0.0
        self.takes = 0.0
        self.refuses: set[str] = set()
        self.calls = self.consumers = 0
        self.consumes = asyncio.Event()
        self.consumes.set()
        self.shared = self.shares = False
        self.looks = 0
        self.fails: Exception | None = None
        self.bound: set[Binding] = set()
        self.held: set[Binding] = set()
        self.link: Broker | None = self
        self.lose: Callable[[str], None] = lambda _: None

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    async def open_channel(self) -> Broker:
        return self

    def on_closed(self, callback: Callable[[str], None]) -> None:
        self.lose = callback

    async def consume(self, queue: str, **options: object) -> None:
        self.consumers += 1
        await self.consumes.wait()

    async def close(self) -> None: ...

    async def open(self, link: object) -> str | None:
        self.bound.clear()
        self.shared = self.shares
        return None

    async def look(self, link: object) -> None:
        self.looks += 1
        error, self.fails = self.fails, None
        if error is not None:
            raise error
        self.shared = self.shares

    async def bind(self, link: object, bindings: Iterable[Binding]) -> dict[Binding, TopologyError]:
        self.calls += 1
        bindings = list(bindings)
        await asyncio.sleep(self.takes * len(bindings))
        refused = {each for each in bindings if each.pattern in self.refuses}
        self.bound.update({*bindings} - refused)
        return {each: TopologyError("a queue", f"refused {each.pattern}") for each in refused}

    async def unbind(self, link: object, bindings: Iterable[Binding]) -> None:
        bindings = {*bindings}
        self.bound -= bindings
        self.held -= bindings

    def consumption(self) -> Consumption:
        return Consumption(self.name, 1, NO_ARGUMENTS)

    async def leave(self, link: object) -> None: ...


class Bench:
    """An attachment; `reports` and `gaps` are what it told."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.gaps: list[tuple[set[str], str]] = []
        self.problems = Problems(SystemClock())
        self.supervisor = Supervisor()
        context = AdapterContext(
            app="shop", instance_id="1", tasks=self.supervisor, emit=Telemetry().emit
        )
        around = AttachmentContext(
            connection=cast("Any", self.broker),
            context=context,
            problems=self.problems,
            hand_over=lambda _: None,
            tell_gap=self._tell_gap,
        )
        self.attachment = Attachment("sticky", cast("Any", self.broker), around)

    def _tell_gap(self, bindings: Collection[Binding], since: float, reason: str) -> None:
        self.gaps.append(({each.pattern for each in bindings}, reason))

    def detail(self) -> str:
        return self.problems.health("fine").detail

    async def is_asked_again(self, times: int = 1) -> None:
        calls = self.broker.calls
        await eventually(lambda: self.broker.calls >= calls + times)


@pytest_asyncio.fixture
async def bench() -> AsyncGenerator[Bench]:
    made = Bench()
    yield made
    made.broker.takes = 0
    await made.attachment.close()
    assert await made.supervisor.close() == []


async def test_many_bindings_may_take_longer_than_one_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.attachment._patience, "_seconds", 1.0)
    monkeypatch.setattr(attachment, "_TOGETHER", 1)
    many = [binding(f"user.{number}") for number in range(12)]
    for each in many:
        await bench.attachment.bind(each)
    bench.broker.takes = 0.15
    bench.broker.lose("cut")

    await eventually(lambda: bench.broker.bound >= {*many} and bench.detail() == "fine")
    assert bench.gaps == []


async def test_a_renewal_that_gets_no_answer_is_no_trouble(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.attachment._patience, "_seconds", 0.05)
    monkeypatch.setattr(attachment, "_STEADY", 0.05)
    await bench.attachment.bind(binding("news"))
    bench.broker.takes = 30
    await bench.is_asked_again(2)  # the first was given up

    assert bench.detail() == "fine"
    await bench.attachment.bind(binding("late"))  # does not arrive yet
    assert bench.detail() == "some broadcasts (sticky) do not arrive: the broker did not answer"
    bench.broker.takes = 0
    await eventually(lambda: bench.detail() == "fine")
    assert [patterns for patterns, _ in bench.gaps] == [{"late"}]


async def test_a_binding_that_is_refused_later_concerns_nobody_else_and_is_told_when_it_works(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "_STEADY", 0.05)
    await bench.attachment.bind(binding("old"))
    bench.broker.refuses = {"old"}
    await eventually(lambda: "refused old" in bench.detail())
    bench.broker.takes = 0.1
    await bench.is_asked_again()
    await bench.attachment.bind(binding("new"))  # while the other is asked for again

    assert bench.gaps == []
    bench.broker.refuses = set()
    await eventually(lambda: bench.gaps)
    assert bench.gaps[0][0] == {"old"}
    assert "refused old" in bench.gaps[0][1]
    assert bench.detail() == "fine"


async def test_what_is_new_is_bound_before_what_nobody_wants_is_unbound(bench: Bench) -> None:
    old, new = binding("#"), binding("prices")
    await bench.attachment.bind(old)
    seen: list[set[Binding]] = []
    unbind = bench.broker.unbind

    async def watched(link: object, bindings: Iterable[Binding]) -> None:
        seen.append({*bench.broker.bound})
        await unbind(link, bindings)

    bench.broker.unbind = watched  # type: ignore[method-assign]
    bench.broker.held.add(old)
    await bench.attachment.unbind(old)
    await bench.attachment.bind(new)

    await eventually(lambda: bench.broker.bound == {new})
    assert seen == [{old, new}]


async def test_a_binding_is_linked_again_when_the_broker_has_said_that_it_consumes(
    bench: Bench,
) -> None:
    wanted, broker = binding("a"), bench.broker
    await bench.attachment.bind(wanted)
    before = bench.attachment.live_since(wanted)
    assert before is not None
    assert bench.attachment.live_since(binding("other")) is None

    broker.consumes.clear()
    broker.lose("the channel was closed")
    await eventually(lambda: broker.consumers == 2)
    assert bench.attachment.live_since(wanted) is None
    broker.consumes.set()

    await eventually(lambda: bench.attachment.live_since(wanted) is not None)
    assert bench.attachment.live_since(wanted) != before


async def test_a_binding_is_not_linked_while_an_earlier_connection_is_given_what_comes(
    bench: Bench,
) -> None:
    wanted, broker = binding("a"), bench.broker
    await bench.attachment.bind(wanted)
    before = bench.attachment.live_since(wanted)
    assert broker.looks == 0

    broker.shares = True
    broker.lose("the connection was cut")
    await eventually(lambda: broker.looks == 2)
    broker.fails = LinkDown("no channel is left")
    await eventually(lambda: broker.looks == 4)
    assert bench.attachment.live_since(wanted) is None
    assert "earlier connection" in bench.detail()
    await bench.attachment.bind(binding("b"))
    assert bench.attachment.live_since(wanted) is None
    broker.shares = False

    await eventually(lambda: bench.attachment.live_since(wanted) not in {None, before})
    assert bench.detail() == "fine"
    assert broker.consumers == 2
    looks = broker.looks
    await asyncio.sleep(0.3)
    assert broker.looks == looks


async def test_what_is_refused_is_not_asked_for_at_each_look(bench: Bench) -> None:
    wanted, broker = binding("a"), bench.broker
    await bench.attachment.bind(wanted)
    broker.shares, broker.refuses = True, {"a"}
    broker.lose("the connection was cut")
    await eventually(lambda: broker.looks == 4)

    assert broker.calls == 2
    assert "refused a" in bench.detail()
