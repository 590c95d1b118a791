"""What a delayed or returned task passes on its way is mended while instances run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiormq.exceptions
import pytest

from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.tasks import upkeep
from integration.amqp_bench import Bench, Taker, bench, raw_channel

pytestmark = pytest.mark.asyncio

CHAINED, LADDERED = (0.2, 0.3, 0.4), (0.5,)  # none begins at the lowest level

Damage = Callable[[Any, Bench], Awaitable[object]]

DAMAGES: dict[str, Damage] = {
    "the queue of a level": lambda channel, made: channel.queue_delete(level(made, 0)),
    "the exchange of a level": lambda channel, made: channel.exchange_delete(level(made, 0)),
    "a way between levels": lambda channel, made: channel.exchange_unbind(
        level(made, 0), level(made, 1), "*." * 23 + "0.#"
    ),
    "the end of the chain": lambda channel, _: channel.exchange_delete("ck.v1.delay.deliver"),
    "the way back": lambda channel, _: channel.exchange_delete("ck.v1.back"),
    "the way back to a queue": lambda channel, made: channel.queue_unbind(
        made.queue().full, "ck.v1.back", made.queue().full
    ),
}


def level(made: Bench, number: int) -> str:
    return f"ck.v1.delay.{made.app}.level-{number:02d}"


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait a minute for what is done once a minute."""
    monkeypatch.setattr(upkeep, "INTERVAL", 0.4)
    monkeypatch.setattr(upkeep, "SOON", 0.1)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no second look: the first after a start must do."""
    monkeypatch.setattr(upkeep, "INTERVAL", 3600.0)
    monkeypatch.setattr(upkeep, "SOON", 0.1)


async def there(url: str, kind: str, name: str) -> bool:
    async with raw_channel(url) as channel:
        try:
            await getattr(channel, f"{kind}_declare")(name, passive=True)
        except aiormq.exceptions.ChannelNotFoundEntity:
            return False
        return True


async def damage(url: str, made: Bench, what: str) -> None:
    async with raw_channel(url) as channel:
        await DAMAGES[what](channel, made)


async def replaced(url: str, exchange: str) -> bool:
    """Put an exchange of another type in the place of one, unless it was mended between."""
    async with raw_channel(url) as channel:
        await channel.exchange_delete(exchange)
        try:
            await channel.exchange_declare(exchange, exchange_type="fanout", durable=True)
        except aiormq.exceptions.ChannelPreconditionFailed:
            return False
        return True


async def all_come(made: Bench, taker: Taker) -> None:
    """Publish tasks of all delays, again and again, until all of one round have come."""

    async def one_round() -> bool:
        tasks = {delay: made.task() for delay in CHAINED + LADDERED}
        for delay, task in tasks.items():
            await made.publish(task, delay=delay)
        try:
            async with asyncio.timeout(2.0):
                while not {task.id for task in tasks.values()} <= set(taker.ids):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        return True

    await eventually(one_round)


@pytest.mark.usefixtures("watchful")
@pytest.mark.parametrize("what", DAMAGES)
async def test_a_damage_is_mended_while_an_instance_runs(rabbitmq: str, what: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=10, on_delivery=taker)
        await all_come(made, taker)
        await damage(rabbitmq, made, what)

        await all_come(made, taker)
        assert made.adapter.health().status == "ok"


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("what", ["the queue of a level", "the end of the chain"])
async def test_a_damage_is_mended_by_whoever_starts(rabbitmq: str, what: str) -> None:
    async with bench(rabbitmq) as first:
        taker = Taker(acks=True)
        await first.adapter.consume(first.queue(), prefetch=10, on_delivery=taker)
        await all_come(first, taker)
    await damage(rabbitmq, first, what)
    async with bench(rabbitmq, app=first.app) as second:
        taker = Taker(acks=True)
        await second.adapter.consume(second.queue(), prefetch=10, on_delivery=taker)

        await all_come(second, taker)


@pytest.mark.usefixtures("soon")
async def test_a_consumer_that_delays_nothing_mends_what_others_use(rabbitmq: str) -> None:
    async with bench(rabbitmq) as first:
        await first.publish(first.task(), delay=0.2)
        await damage(rabbitmq, first, "the queue of a level")
    async with bench(rabbitmq, app=first.app) as second:
        await second.adapter.consume(second.queue(), prefetch=10, on_delivery=Taker(acks=True))

        await eventually(lambda: there(rabbitmq, "queue", level(first, 0)))


@pytest.mark.usefixtures("watchful")
async def test_the_chain_is_made_as_far_as_delays_need_it(rabbitmq: str) -> None:
    async with bench(rabbitmq) as first, bench(rabbitmq, app=first.app) as second:
        await first.publish(first.task(), delay=0.3)
        for number, is_made in ((3, True), (4, False)):
            assert await there(rabbitmq, "queue", level(first, number)) is is_made
        await first.publish(first.task(), delay=1.7)
        for number, is_made in ((4, True), (12, True), (13, False)):
            assert await there(rabbitmq, "queue", level(first, number)) is is_made

        await second.publish(second.task(), delay=0.3)  # looks after all that was made
        async with raw_channel(rabbitmq) as channel:
            await channel.queue_delete(level(first, 4))
        await eventually(lambda: there(rabbitmq, "queue", level(first, 4)))
        assert not await there(rabbitmq, "queue", level(first, 13))


@pytest.mark.usefixtures("watchful")
async def test_nobody_makes_a_chain_that_nobody_uses(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        await made.adapter.consume(made.queue(), prefetch=10, on_delivery=Taker(acks=True))
        await damage(rabbitmq, made, "the way back")
        await eventually(lambda: there(rabbitmq, "exchange", "ck.v1.back"))

        assert not await there(rabbitmq, "exchange", level(made, 0))


@pytest.mark.usefixtures("watchful")
async def test_a_queue_that_was_deleted_stays_so_until_it_is_needed(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        queue = made.queue().full
        await made.publish(made.task(), delay=0.1)
        async with raw_channel(rabbitmq) as channel:
            await channel.queue_delete(queue)
        for _ in range(2):  # looks
            await damage(rabbitmq, made, "the end of the chain")
            await eventually(lambda: there(rabbitmq, "exchange", "ck.v1.delay.deliver"))
        assert not await there(rabbitmq, "queue", queue)

        await made.publish(made.task())
        assert await there(rabbitmq, "queue", queue)


@pytest.mark.usefixtures("watchful")
async def test_what_cannot_be_mended_shows_in_health(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=10, on_delivery=taker)
        await eventually(lambda: replaced(rabbitmq, "ck.v1.back"))
        health = await eventually(made.adapter.health, lambda health: health.status != "ok")
        assert health.status == "degraded"
        assert "exchange 'ck.v1.back': type is 'fanout' on the broker" in health.detail

        await damage(rabbitmq, made, "the way back")
        await eventually(lambda: made.adapter.health().status == "ok")
        await all_come(made, taker)


@pytest.mark.usefixtures("watchful")
async def test_one_that_may_only_look_tells_what_is_missing(rabbitmq: str) -> None:
    async with bench(rabbitmq) as maker:
        await maker.publish(maker.task(), delay=0.1)
    async with bench(f"{rabbitmq}?declare=passive", app=maker.app) as made:
        await made.publish(made.task(), delay=0.1)
        await damage(rabbitmq, made, "the queue of a level")
        missing = f"queue {level(made, 0)!r}: missing on the broker"
        health = await eventually(made.adapter.health, lambda health: missing in health.detail)
        assert health.status == "degraded"


@pytest.mark.own_broker
@pytest.mark.broker_control
@pytest.mark.usefixtures("watchful")
async def test_what_waited_before_a_damage_goes_on_when_the_broker_tries_again(
    own_rabbitmq: str, own_rabbitmq_server: RabbitServer
) -> None:
    name = "dead_letter_worker_publisher_confirm_timeout"
    ctl = own_rabbitmq_server.ctl
    await asyncio.to_thread(ctl, "eval", f"application:set_env(rabbit, {name}, 1000).")
    try:
        async with bench(own_rabbitmq) as made:
            taker = Taker(acks=True)
            await made.adapter.consume(made.queue(), prefetch=10, on_delivery=taker)
            await all_come(made, taker)
            tasks = [made.task() for _ in range(10)]
            for task in tasks:
                await made.publish(task, delay=0.6)  # two levels
            await damage(own_rabbitmq, made, "the end of the chain")

            await eventually(lambda: {task.id for task in tasks} <= set(taker.ids))
    finally:
        # The default, three minutes. Unset, no quorum queue can be made on this node any more.
        await asyncio.to_thread(ctl, "eval", f"application:set_env(rabbit, {name}, 180000).")
