from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from cluster_kit.errors import TopologyError
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.control import declare as declare_module
from cluster_kit_amqp.control.by_name import LocksByName
from cluster_kit_amqp.control.declare import Declarer, declare, exists
from cluster_kit_amqp.link import ChannelDown, LinkDown
from cluster_kit_amqp.plane import methods
from cluster_kit_amqp.plane.channel import PlaneChannel
from cluster_kit_amqp.plane.fields import U16, U32, short_string
from cluster_kit_amqp.plane.frames import METHOD
from cluster_kit_amqp.topology import Binding, Exchange, Queue, Step, Steps
from tests.unit.test_plane_channel import FakeCarrier

pytestmark = pytest.mark.asyncio

STEPS = (
    Exchange("ex", "direct"),
    Queue("q", {"x-queue-type": "quorum"}),
    Binding("queue", "q", "ex", "key"),
    Binding("exchange", "other", "ex", "key"),
)
ANSWERS = (
    methods.EXCHANGE_DECLARE_OK,
    methods.QUEUE_DECLARE_OK,
    methods.QUEUE_BIND_OK,
    methods.EXCHANGE_BIND_OK,
)


class FakeLink:
    """Has one channel, which answers what the test says."""

    blocked = None

    def __init__(self) -> None:
        self.lost: str | None = None
        self.carrier = FakeCarrier()
        self.plane = PlaneChannel(1, self.carrier)

    @asynccontextmanager
    async def channel(self, *, confirms: bool = False) -> AsyncGenerator[PlaneChannel, None]:
        yield self.plane

    async def close(self) -> None:
        self.lost = "closed"

    def answer(self, index: int, arguments: bytes = b"") -> None:
        data = U32.pack(index) + arguments
        self.plane.frame(METHOD, data, 0, len(data))

    def refuse(self, code: int, text: str) -> None:
        self.answer(methods.CHANNEL_CLOSE, U16.pack(code) + short_string(text) + bytes(4))

    async def asked(self, count: int) -> None:
        await eventually(lambda: len(self.carrier.sent) == count)


async def test_all_steps_are_sent_before_the_first_is_answered() -> None:
    link = FakeLink()
    declaring = asyncio.create_task(declare(link, STEPS))
    await link.asked(len(STEPS))
    for index in ANSWERS:
        assert not declaring.done()
        link.answer(index)

    assert await declaring is True
    assert [U32.unpack_from(frame, 7)[0] for frame in link.carrier.sent] == [
        methods.EXCHANGE_DECLARE,
        methods.QUEUE_DECLARE,
        methods.QUEUE_BIND,
        methods.EXCHANGE_BIND,
    ]


async def test_a_refusal_is_told_of_the_step_that_was_refused() -> None:
    link = FakeLink()
    declaring = asyncio.create_task(declare(link, STEPS))
    await link.asked(len(STEPS))
    link.answer(ANSWERS[0])
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': "
        "received 'quorum' but current is 'classic'"
    )
    link.refuse(406, text)

    with pytest.raises(TopologyError, match="queue 'q': x-queue-type is 'classic'"):
        await declaring


@pytest.mark.parametrize("code", [403, 541])
async def test_another_refusal_is_left_to_the_caller(code: int) -> None:
    link = FakeLink()
    declaring = asyncio.create_task(declare(link, STEPS))
    await link.asked(len(STEPS))
    link.refuse(code, "no")

    with pytest.raises(ChannelDown) as caught:
        await declaring
    assert caught.value.code == code


async def test_nothing_is_made_where_the_queue_is_missing() -> None:
    link = FakeLink()
    declaring = asyncio.create_task(declare(link, STEPS, Queue("q", {})))
    await link.asked(1 + len(STEPS))
    link.refuse(404, "NOT_FOUND - no queue 'q'")

    assert await declaring is False


@pytest.mark.parametrize(("code", "there"), [(404, False), (None, True)])
@pytest.mark.parametrize("step", STEPS[:2])
async def test_looking_makes_nothing(step: Exchange | Queue, code: int | None, there: bool) -> None:
    link = FakeLink()
    looking = asyncio.create_task(exists(link, step))
    await link.asked(1)
    assert b"\x01" in link.carrier.sent[0][-6:-1]  # bit 0 of declare, passive
    if code is None:
        link.answer(ANSWERS[STEPS.index(step)])
    else:
        link.refuse(code, "no")

    assert await looking is there


class FakeMaker:
    """Has all that is asked for, and notes what is made."""

    lost = blocked = None

    def __init__(self) -> None:
        self.made: list[Step] = []

    @asynccontextmanager
    async def link(self) -> AsyncGenerator[FakeMaker, None]:
        yield self

    channel = link

    async def close(self) -> None: ...

    async def make(self, step: Step, *, passive: bool = False) -> None:
        if not passive:
            self.made.append(step)


async def test_where_the_last_step_is_there_all_are_until_one_was_missed() -> None:
    maker, link, last = FakeMaker(), cast("Any", FakeLink()), Exchange("last", "fanout")
    declarer = Declarer(cast("Any", maker), "auto", 10, None, Supervisor())
    await declarer.ensure(link, "chain", STEPS, last)
    assert maker.made == []

    declarer.forget("chain")
    await declarer.ensure(link, "chain", STEPS, last)
    assert maker.made == list(STEPS)


async def test_one_that_makes_nothing_looks_at_every_step() -> None:
    maker, link, last = FakeMaker(), cast("Any", FakeLink()), Exchange("last", "fanout")
    looked: list[object] = []

    async def check(_: object, steps: Steps) -> None:
        looked.extend(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(declare_module, "check", check)
        declarer = Declarer(cast("Any", maker), "passive", 10, None, Supervisor())
        await declarer.ensure(link, "chain", STEPS, last)
    assert (looked, maker.made) == (list(STEPS), [])


async def test_a_link_that_gives_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declare_module, "_ANSWER_TIMEOUT", 0.02)
    link = FakeLink()

    with pytest.raises(LinkDown, match="did not answer"):
        await declare(link, STEPS)
    assert link.lost is not None


async def test_the_lock_of_a_name_lasts_while_somebody_is_at_it() -> None:
    locks = LocksByName()
    async with locks.of("one"):
        assert locks.of("one").locked()
        assert not locks.of("two").locked()

    gc.collect()
    assert not locks.of("one").locked()
    assert not locks
