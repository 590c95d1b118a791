from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import EncodeError, PublishBlocked, PublishRefused, PublishUnconfirmed
from cluster_kit.message import DeadReason, Death
from cluster_kit.names import new_id
from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.recorder import Recorder, answers
from cluster_kit.testing.servers import RabbitServer
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Taker, bench, raw_channel

FIRST_TO_TAKE_16_MIB = 4  # major version; earlier ones take 128 MiB

pytestmark = [pytest.mark.broker, pytest.mark.asyncio]

LATE = 10.0  # seconds; a broker beside other work


async def test_publishes_overlap(fault_proxy: FaultProxy) -> None:
    async with bench(fault_proxy.url) as made:
        await made.publish(made.task())
        fault_proxy.delay(0.05)  # each answer takes a tenth of a second
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(256):
                group.create_task(made.publish(made.task()))

        assert time.monotonic() - began < 256 * 0.1 / 4


async def test_everything_an_envelope_says_arrives(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        task = made.task(
            body=b"\x00\xff{",
            content_type="application/x-thing",
            published_at=1_700_000_000.125,
            attempt=3,
            max_retries=7,
            timeout=1.5,
            expires_at=4_000_000_000.25,
            headers={"text": "häuser", "big": 2**62, "none": None, "yes": True, "empty": ""},
        )
        await made.publish(task)
        await eventually(lambda: len(taker.received) == 1)

        assert taker.received[0].envelope == task
        assert taker.received[0].redeliveries == 0
        assert len(taker.received[0].copy_id) == 32


@pytest.mark.parametrize("order", [(5.0, 1.0, 0.2)])
async def test_a_short_delay_overtakes_a_long_one(rabbitmq: str, order: tuple[float, ...]) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        await made.publish(made.task(), delay=0.1)
        await eventually(lambda: len(taker.received) == 1)
        due: dict[str, float] = {}
        for delay in order:
            task = made.task()
            due[task.id] = time.monotonic() + delay
            await made.publish(task, delay=delay)
        depth = await made.adapter.depth(made.queue())

        await eventually(lambda: len(taker.received) == 1 + len(order))
        assert taker.ids[1:] == list(reversed(due))
        late = {task: taker.at[task] - at for task, at in due.items()}
        assert all(-0.01 < seconds < LATE for seconds in late.values()), late
        assert {received.redeliveries for received in taker.received} == {0}
        assert depth is not None
        assert depth.ready == 0


async def test_what_making_the_chain_takes_is_part_of_the_delay(
    rabbitmq: str, fault_proxy: FaultProxy
) -> None:
    delay, frozen = 5.0, 3.0
    async with bench(rabbitmq) as worker, bench(fault_proxy.url, app=worker.app) as made:
        taker, task = Taker(acks=True), made.task()
        await worker.adapter.consume(worker.queue(), prefetch=9, on_delivery=taker)
        await made.publish(made.task())
        due = time.monotonic() + delay + 0.05  # no step of the ladder
        fault_proxy.freeze()
        publishing = asyncio.create_task(made.publish(task, delay=delay + 0.05), name="taker")
        await asyncio.sleep(frozen)
        fault_proxy.resume()
        await publishing

        await eventually(lambda: task.id in taker.at)
        assert -0.01 < taker.at[task.id] - due < frozen - 0.5


async def test_many_delays_come_in_their_order_once_each(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=50, on_delivery=taker)
        await made.publish(made.task(), delay=0.1)
        due: dict[str, float] = {}

        async def publish(delay: float) -> None:
            task = made.task()
            due[task.id] = time.monotonic() + delay
            await made.publish(task, delay=delay)

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(publish(0.3 + number * 0.047))

        await eventually(lambda: len(taker.received) == 61)
        late = [taker.at[task] - at for task, at in due.items()]
        assert min(late) > -0.01
        assert max(late) < LATE
        assert len(set(taker.ids)) == 61


async def test_a_delayed_task_finds_only_its_own_queue(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        near, far = Taker(acks=True), Taker(acks=True)
        await made.adapter.consume(made.queue("orders"), prefetch=9, on_delivery=near)
        await made.adapter.consume(made.queue("eu.orders"), prefetch=9, on_delivery=far)
        for delay in (0.1, 0.3, 0.5):
            await made.publish(made.task("orders"), delay=delay)
            await made.publish(made.task("eu.orders"), delay=delay)

        await eventually(lambda: len(near.received) == len(far.received) == 3)
        assert {r.envelope.queue.channel for r in near.received} == {"orders"}


async def test_expired_tasks_become_dead_letters_in_the_broker(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        soon = made.task(expires_at=time.time() + 0.2)
        past = made.task(expires_at=time.time() - 60)
        live = made.task(expires_at=time.time() + 3600)
        await made.publish(soon, past, live)
        await eventually(
            lambda: made.adapter.depth(made.queue()), lambda depth: depth and depth.dead == 2
        )
        async with made.adapter.read_dead(made.queue()) as entries:
            dead = [entry.envelope async for entry in entries]

        assert {envelope.id for envelope in dead} == {soon.id, past.id}
        assert {envelope.death.reason for envelope in dead if envelope.death} == {
            DeadReason.EXPIRED
        }
        assert all(envelope.death and envelope.death.died_at for envelope in dead)


async def test_a_message_too_large_for_the_broker_is_refused_alone(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    async with bench(rabbitmq) as made:
        await made.publish(made.task())
        large = made.task(body=b"x" * (17 << 20))
        if int(rabbitmq_server.version.partition(".")[0]) < FIRST_TO_TAKE_16_MIB:
            await made.adapter.publish(large, timeout=30.0)
            return
        small = [made.task() for _ in range(50)]

        async def refused() -> None:
            with pytest.raises(PublishRefused, match="takes at most 16777216"):
                await made.adapter.publish(large, timeout=30.0)

        async with asyncio.TaskGroup() as group:
            group.create_task(refused())
            for task in small:
                group.create_task(made.publish(task))
        with pytest.raises(PublishRefused):  # at once: the limit is known now
            await made.adapter.publish(large, timeout=5.0)
        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready >= 51


async def test_headers_too_large_for_a_frame_are_no_end_of_the_connection(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=1, on_delivery=taker)
        headers = {"huge": "x" * 200_000, "small": "y"}
        await made.publish(made.task(headers=headers))
        await eventually(lambda: len(taker.received) == 1)

        assert taker.received[0].envelope.headers == {"small": "y"}
        assert made.heard("connection.lost") == []


@pytest.mark.parametrize(("size", "kept"), [(7000, True), (7900, False)])
async def test_a_dead_letter_that_does_not_fit_into_a_frame_goes_with_less(
    rabbitmq: str, size: int, kept: bool
) -> None:
    async with bench(f"{rabbitmq}?frame_max=8192") as made:
        task = made.task(headers={"tenant": "x" * size})
        await made.publish(made.task())
        death = Death(reason=DeadReason.REJECTED, error_text="y" * 5000)
        await made.adapter.bury(replace(task, death=death), timeout=10.0)

        async with made.adapter.read_dead(made.queue()) as letters:
            [letter] = [letter.envelope async for letter in letters]
    assert letter.death is not None
    assert (letter.body, letter.death.reason) == (task.body, death.reason)
    assert letter.headers == (task.headers if kept else {})
    assert letter.death.error_text == "y" * 500


async def test_a_task_that_fits_into_no_frame_again_is_a_dead_letter_and_stops_nobody(
    rabbitmq: str,
) -> None:
    recorder = Recorder(answers(ValueError("no"), None))
    narrow = Settings(amqp_url=f"{rabbitmq}?frame_max=8192")
    async with Cluster("shop", settings=narrow) as worker:
        await worker.event_queue.publish("other", 0)
        worker.event_queue.subscribe("mails", recorder.handle, concurrency=1)
        async with Cluster("shop", settings=Settings(amqp_url=rabbitmq)) as publisher:
            first = await publisher.event_queue.publish("mails", 1, headers={"h": "x" * 12_000})
            await publisher.event_queue.publish("mails", 2)
            await recorder.finished(2)

            letters = publisher.event_queue.dead_letters("mails")
            [letter] = await eventually(letters.browse)
            assert (letter.id, letter.reason, letter.attempts, letter.payload) == (
                *(first, "failed", 1, 1),
            )
            assert "cannot be stored for another run" in letter.error_text
            assert "ValueError: no" in letter.error_text
            with pytest.raises(EncodeError, match="the broker allows 8192"):
                await worker.event_queue.publish("mails", 3, headers={"h": "x" * 12_000})


# --- what others have bound ----------------------------------------------------------------------


async def test_queues_of_others_answer_for_no_task(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made, raw_channel(rabbitmq) as channel:
        await made.publish(made.task())
        full = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.queue_declare("audit", arguments=full)
        await channel.queue_bind("audit", f"{made.app}.tasks", "mails")
        await channel.basic_publish(b"{}", exchange="", routing_key="audit")

        await made.publish(made.task())
        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready == 2

        await channel.queue_delete(made.queue().full)
        await made.publish(made.task())
        depth = await made.adapter.depth(made.queue())
        assert depth is not None
        assert depth.ready == 1


async def test_what_may_be_stored_is_never_told_as_a_matter_of_topology(
    rabbitmq: str, fault_proxy: FaultProxy
) -> None:
    async with bench(fault_proxy.url) as made, raw_channel(rabbitmq) as channel:
        await made.publish(made.task())
        fault_proxy.freeze("to_client")
        publishing = asyncio.ensure_future(made.publish(made.task()))
        await eventually(
            lambda: channel.queue_declare(made.queue().full, passive=True),
            lambda found: found.message_count == 2,
        )
        await channel.exchange_delete(f"{made.app}.tasks")
        await channel.exchange_declare(f"{made.app}.tasks", exchange_type="fanout")
        fault_proxy.cut()
        fault_proxy.resume()

        with pytest.raises(PublishUnconfirmed, match="type is 'fanout'"):
            await publishing


def counts(server: RabbitServer, queue: str) -> tuple[int, int]:
    """Return how many messages the broker holds ready, and how many unacknowledged."""
    ask = """
        [Q] = [Q || Q <- rabbit_amqqueue:list(), element(4, amqqueue:get_name(Q)) == <<"%s">>],
        Asked = [messages_ready, messages_unacknowledged],
        [Ready, Unacknowledged] = [Value || {_, Value} <- rabbit_amqqueue:info(Q, Asked)],
        io:format("~w ~w~n", [Ready, Unacknowledged]).
    """
    ready, unacknowledged, *_ = server.ctl("--quiet", "eval", ask % queue).split()
    return int(ready), int(unacknowledged)


@pytest.mark.own_broker
async def test_a_blocked_broker_is_told_waited_for_and_consumed_from(
    own_rabbitmq: str, own_rabbitmq_server: RabbitServer
) -> None:
    async with bench(own_rabbitmq) as made:
        taker = Taker()
        await made.publish(*(made.task() for _ in range(3)))
        await asyncio.to_thread(own_rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            with contextlib.suppress(Exception):  # the first one makes the broker say it
                await made.adapter.publish(made.task(), timeout=1.0)
            health = await eventually(made.adapter.health, lambda h: h.status == "degraded")
            assert "blocks publishers" in health.detail
            with pytest.raises(PublishBlocked, match="blocks publishers"):
                await made.adapter.publish(made.task(), timeout=0.3)
            # Consuming goes on, or a full broker could never be emptied.
            await made.adapter.consume(made.queue(), prefetch=3, on_delivery=taker)
            await eventually(lambda: len(taker.received) == 3)
            for received in taker.received[:3]:
                await received.ack()
            # They arrive too, although the broker reads nothing from whoever publishes.
            await eventually(
                lambda: asyncio.to_thread(counts, own_rabbitmq_server, made.queue().full),
                lambda found: found == (0, 0),
            )
            task = made.task()
            waiting = asyncio.create_task(made.publish(task), name="taker publish")
        finally:
            await asyncio.to_thread(own_rabbitmq_server.ctl, "set_vm_memory_high_watermark", "0.4")
        await waiting
        await eventually(lambda: taker.received[-1].envelope.id == task.id)
        await taker.received[-1].ack()

        await eventually(lambda: made.adapter.health().status == "ok")
        assert len(made.heard("connection.blocked")) == 1
        assert made.heard("connection.lost") == []
        assert len(made.heard("connection.unblocked")) == 1


@pytest.mark.broker_control
async def test_a_queue_that_takes_nothing_is_tried_again_for_a_moment_and_then_told(
    rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    vhost = rabbitmq.rpartition("/")[2]
    limit = ("full", ".*", '{"max-length": 1}', "--apply-to", "queues")
    await asyncio.to_thread(rabbitmq_server.ctl, "set_policy", "-p", vhost, *limit)
    async with bench(rabbitmq) as made:
        with pytest.raises(PublishRefused, match="did not take it"):
            await made.publish(*(made.task() for _ in range(10)))
        async with asyncio.TaskGroup() as group:
            late = made.task()
            publishing = group.create_task(made.publish(late), name="taker publish")
            await asyncio.sleep(0.2)
            assert not publishing.done()
            taker = Taker(acks=True)
            await made.adapter.consume(made.queue(), prefetch=5, on_delivery=taker)

        await eventually(lambda: late.id in taker.ids)
        assert taker.ids.count(late.id) == 1


async def test_one_identity_for_a_task_another_for_each_copy(rabbitmq: str) -> None:
    async with bench(rabbitmq) as made:
        taker = Taker(acks=True)
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        task = made.task(id=new_id())
        await made.publish(task, task)
        await eventually(lambda: len(taker.received) == 2)

        assert taker.ids == [task.id, task.id]
        assert len({received.copy_id for received in taker.received}) == 2
