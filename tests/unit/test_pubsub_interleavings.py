"""Whatever the order of cuts, publishes and subscriptions: delivered in order, or told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.broadcast import TRANSPORTS, Event, Transport
from cluster_kit.errors import ConnectionLost
from cluster_kit.pubsub import gaps
from cluster_kit.testing.waiting import eventually
from tests.unit.pubsub_bench import Instance, Stage

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["a", "b"])),
        st.tuples(st.sampled_from(["cut", "mend"]), st.sampled_from(["sender", "receiver"])),
        st.tuples(st.sampled_from(["forget", "breathe"]), st.just("receiver")),
    ),
    max_size=25,
)


class Twin:
    """What a receiver holds of what was published: a message, or a reload, makes it equal."""

    def __init__(self, truth: dict[str, int]) -> None:
        self.truth = truth
        self.held: dict[str, int] = {}
        self.order: dict[str, list[int]] = {"a": [], "b": []}
        self.reloads = 0

    async def handle(self, message: int, event: Event) -> None:
        self.order[event.channel].append(message)
        self.held[event.channel] = max(message, self.held.get(event.channel, 0))

    async def on_gap(self, _channels: list[str]) -> None:
        self.reloads += 1
        self.held = dict(self.truth)


async def publish(sender: Instance, channel: str, truth: dict[str, int]) -> None:
    number = truth.get(channel, 0) + 1
    try:
        await sender.manager.publish(channel, number)
    except ConnectionLost:
        return
    truth[channel] = number


async def play(steps: list[tuple[str, str]], transport: Transport) -> Twin:
    truth: dict[str, int] = {}
    twin = Twin(truth)
    async with Stage(2, transport=transport, publish_timeout=0.001) as (sender, receiver):
        await receiver.manager.subscribe("#", twin.handle, on_gap=twin.on_gap)
        links = {"sender": sender.adapter, "receiver": receiver.adapter}
        for step, which in steps:
            match step:
                case "publish":
                    await publish(sender, which, truth)
                case "cut":
                    links[which].disconnect()
                case "mend":
                    links[which].reconnect()
                case "forget":
                    links[which].forget()
                case _:
                    await asyncio.sleep(0.002)
        for link in links.values():
            link.reconnect()
        await settled(receiver)
    return twin


async def settled(instance: Instance) -> None:
    await eventually(lambda: not instance.supervisor._tasks, interval=0.001)


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "SETTLE", 0.0)
        yield


def run(scenario: Coroutine[Any, Any, Twin]) -> Twin:
    return asyncio.run(scenario)


@pytest.mark.parametrize("transport", TRANSPORTS)
@given(STEPS)
def test_a_twin_is_equal_in_the_end(transport: Transport, steps: list[tuple[str, str]]) -> None:
    twin = run(play(steps, transport))

    assert twin.held == twin.truth
    for order in twin.order.values():
        assert order == sorted(set(order)), "out of order, or twice"
    was_cut = ("cut", "receiver") in steps
    if transport != "ephemeral" and ("forget", "receiver") not in steps:
        assert twin.reloads == 0
        assert {c: len(order) for c, order in twin.order.items() if order} == twin.truth
    elif not was_cut:
        assert twin.reloads == 0


JOINS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["join", "leave"]), st.sampled_from(["a", "b", "*", "#"])),
        st.tuples(st.just("publish"), st.sampled_from(["a", "b"])),
    ),
    max_size=30,
)


@given(JOINS)
def test_what_is_subscribed_while_a_message_is_sent_hears_it_once(
    steps: list[tuple[str, str]],
) -> None:
    async def scenario() -> None:
        heard: dict[str, list[object]] = {name: [] for name in ("a", "b", "*", "#")}
        wanted: dict[str, list[object]] = {name: [] for name in heard}
        gaps: list[list[str]] = []

        def handler(name: str) -> Any:
            async def handle(message: object) -> None:
                heard[name].append(message)

            return handle

        handlers = {name: handler(name) for name in heard}
        joined: set[str] = set()
        async with Stage(2) as (sender, receiver):
            for number, (step, name) in enumerate(steps):
                if step == "join":
                    await receiver.manager.subscribe(name, handlers[name], on_gap=gaps.append)
                    joined.add(name)
                elif step == "leave":
                    await settled(receiver)
                    await receiver.manager.unsubscribe(name, handlers[name])
                    joined.discard(name)
                else:
                    await sender.manager.publish(name, number)
                    for other in joined & {name, "*", "#"}:
                        wanted[other].append(number)
            await settled(receiver)
        assert heard == wanted
        assert gaps == []

    asyncio.run(scenario())
