from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from cluster_kit import Cluster, Delivery, RetryPolicy, Settings
from cluster_kit.deadlines import Deadlines
from cluster_kit.errors import PublishRefused
from cluster_kit.event_queue import quarantine
from cluster_kit.event_queue.run import Place, Run, Spent
from cluster_kit.message import Envelope
from cluster_kit.names import QueueName
from cluster_kit.settings.groups import EventQueueValues
from cluster_kit.testing.clock import FakeClock
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.waiting import eventually
from cluster_kit_memory.consumer import MemoryConsumer
from tests.unit.adapters import Faults

pytestmark = pytest.mark.asyncio

DECODED: list[int] = []


def noted(payload: int) -> int:
    DECODED.append(payload)
    return payload


Noted = Annotated[int, AfterValidator(noted)]


def a_run(name: str, crashes: int) -> Run:
    envelope = Envelope(queue=QueueName("shop", "held"), id=name, body=b"1", crashes=crashes)
    place = Place(
        grace=5,
        deadlines=Deadlines(),
        on_release=lambda: None,
        torn_down=lambda: False,
        stopping=lambda: False,
    )
    return Run(Spent(envelope), place, timeout=60)


class House:
    """One instance with two channels, of which one may be told to hold its tasks."""

    def __init__(self, hub: str, cancel_grace: float = 5) -> None:
        queue: EventQueueValues = {"url": f"faulty://{hub}", "crash_limit": 10}
        settings = Settings(event_queue={**queue, "cancel_grace": cancel_grace})
        self.cluster = Cluster("shop", settings=settings)
        self.faults = Faults(self.cluster)
        self.go = asyncio.Event()
        self.holding, self.plain = Recorder(until(self.go)), Recorder()
        self.cluster.event_queue.subscribe("held", self.holding.handle, concurrency=4)
        self.cluster.event_queue.subscribe("plain", self.plain.handle, concurrency=4)

    async def put(
        self, channel: str, name: str, crashes: int, *, expires_at: float | None = None
    ) -> None:
        envelope = Envelope(
            queue=QueueName("shop", channel),
            id=name,
            body=b"1",
            content_type="application/json",
            crashes=crashes,
            expires_at=expires_at,
        )
        await self.faults.made[0].publish(envelope, timeout=5)

    async def running(self, channel: str) -> int:
        stats = self.cluster.event_queue.stats().get(channel)
        return 0 if stats is None else stats.running


async def test_a_suspect_begins_when_what_ran_has_ended_and_nothing_begins_beside_it() -> None:
    house = House("alone")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("plain", "suspect", 6)
        await eventually(lambda: house.running("plain"), lambda n: n == 1)
        await house.put("plain", "later", 0)
        await house.put("held", "later too", 5)
        depth = house.cluster.event_queue.depth
        await eventually(lambda: depth("held"), lambda found: found is not None and found.ready > 0)
        await asyncio.sleep(quarantine.SETTLING * 2)
        assert house.plain.ids == []

        house.go.set()
        await house.plain.finished(2)
        await house.holding.finished(2)
    assert house.plain.ids == ["suspect", "later"]
    assert house.holding.ids == ["before", "later too"]


async def test_what_was_counted_lets_a_suspect_go_first_that_comes_along_with_it() -> None:
    house = House("first")
    async with house.cluster:
        house.go.set()
        await house.put("held", "counted", 1)
        await house.put("plain", "suspect", 10)
        await house.holding.finished()
        suspect, counted = house.plain.runs[0], house.holding.runs[0]
    assert suspect.delivery.deadline < counted.delivery.deadline


@pytest.mark.parametrize("crashes", [1, 6])
async def test_what_was_counted_is_not_decoded_before_it_may_begin(crashes: int) -> None:
    house = House("decoded")
    DECODED.clear()

    async def work(_: Noted) -> None: ...

    house.cluster.event_queue.subscribe("deadly", work)
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("deadly", "counted", crashes)
        await house.put("held", "suspect", 6)
        await asyncio.sleep(quarantine.SETTLING * 2)
        assert DECODED == []

        house.go.set()
        await eventually(lambda: DECODED)
        await house.holding.finished(2)


async def test_what_a_suspect_waited_for_to_no_end_is_not_waited_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quarantine, "LONGEST_WAIT", 0.1)
    house = House("patient")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        for name in ("first", "second", "third"):
            await house.put("plain", name, 6)
        await house.plain.finished(3)
        house.go.set()
    assert len([line for line in caplog.messages if "runs alone here" in line]) == 3
    assert len([line for line in caplog.messages if "begins beside 1 others" in line]) == 1


async def test_others_have_their_turn_between_suspects() -> None:
    house, begun = House("turns"), list[str]()

    async def note(_: object, delivery: Delivery) -> None:
        begun.append(delivery.id)

    house.go.set()
    house.cluster.event_queue.subscribe("others", note)
    house.cluster.event_queue.subscribe("suspects", note, concurrency=4)
    async with house.cluster:
        names = ["first", "second", "third"]
        for name in names:
            await house.put("suspects", name, 6)
        for number in range(3):
            await house.put("others", f"other {number}", 0)
        await eventually(lambda: len(begun) == 6)
    assert sorted(begun[1:4]) == ["other 0", "other 1", "other 2"]
    assert sorted([begun[0], *begun[4:]]) == sorted(names)


async def test_suspects_have_their_turn_early_where_the_others_have_nothing_to_do(
    fake_clock: FakeClock,
) -> None:
    first, other, in_hand = a_run("first", 6), a_run("other", 0), list[object]()
    guarded = quarantine.Quarantine(fake_clock)
    guarded.watch(lambda: in_hand, lambda: None)
    guarded.enter(first)
    await fake_clock.advance(20)
    guarded.leave(first)
    assert guarded.opens_in == quarantine.QUIET

    in_hand.append(other)
    assert guarded.opens_in == 20
    await fake_clock.advance(5)
    in_hand.remove(other)
    guarded.worked()
    assert guarded.opens_in == quarantine.QUIET
    in_hand.append("a refused delivery")
    await fake_clock.advance(quarantine.QUIET)
    assert guarded.opens_in == 0
    in_hand.append(other)
    await fake_clock.advance(20)
    assert guarded.opens_in <= 0


async def test_others_of_the_same_channel_do_not_wait_for_all_suspects_before_them() -> None:
    house, begun = House("mixed"), list[str]()

    async def note(_: object, delivery: Delivery) -> None:
        begun.append(delivery.id)

    async with house.cluster:
        for number in range(4):
            await house.put("mixed", f"suspect {number}", 6)
        for number in range(2):
            await house.put("mixed", f"other {number}", 0)
        house.cluster.event_queue.subscribe("mixed", note, concurrency=4)
        await eventually(lambda: len(begun) == 6)
    assert (begun[0], sorted(begun[1:3])) == ("suspect 0", ["other 0", "other 1"])


async def test_a_suspect_that_cannot_be_returned_is_kept_until_its_turn() -> None:
    house, tries, ends = House("spinning"), list[str](), asyncio.Event()
    house.faults.worn = 6  # at a broker where give-backs count

    def fail(envelope: Envelope, _: float) -> Exception | None:
        tries.append(envelope.id)
        return PublishRefused("an alarm") if envelope.id in tries[:-1] else None

    recorder = Recorder(until(ends))
    house.cluster.event_queue.subscribe("suspects", recorder.handle, concurrency=2)
    async with house.cluster:
        house.faults.publish_fails = fail
        await house.put("suspects", "first", 0)
        await recorder.started()
        await house.put("suspects", "second", 0)
        await asyncio.sleep(1)  # for as long it is not the turn of suspects
        ends.set()
        await recorder.finished()
        before = len(tries)
        await asyncio.sleep(0.5)
        assert len(tries) <= before + 1
        await recorder.finished(2)
    assert recorder.ids == ["first", "second"]


async def test_a_suspect_that_meets_a_busy_instance_keeps_its_count() -> None:
    house, takes, stored = House("counts"), True, list[int]()
    house.faults.worn = 7  # at a broker where give-backs count

    def note(envelope: Envelope, _: float) -> None:
        nonlocal takes
        takes = False
        stored.append(envelope.crashes)

    house.cluster.event_queue.subscribe("moody", Recorder().handle, idle=lambda: takes)
    async with house.cluster:
        house.faults.publish_fails = note
        await house.put("moody", "task", 0)
        await eventually(lambda: len(stored) == 2)
    assert stored == [0, 7]


async def test_a_suspect_is_retried_in_place_alone_and_then_others_have_their_turn() -> None:
    house, begun, go = House("again"), list[str](), asyncio.Event()

    async def fail(_: object, delivery: Delivery) -> None:
        begun.append(f"{delivery.id} #{delivery.attempt}")
        await go.wait()
        raise ValueError("no")

    async def note(_: object, delivery: Delivery) -> None:
        begun.append(delivery.id)

    policy = RetryPolicy(immediate=2)
    options: dict[str, Any] = {"concurrency": 4, "retry": policy, "max_retries": 2}
    house.cluster.event_queue.subscribe("suspects", fail, **options)
    house.cluster.event_queue.subscribe("others", note)
    async with house.cluster:
        await house.put("suspects", "first", 6)
        await eventually(lambda: begun)
        await house.put("others", "other", 0)
        await house.put("suspects", "second", 6)
        depth = house.cluster.event_queue.depth
        await eventually(lambda: depth("others"), lambda found: found is not None and found.ready)
        go.set()
        await eventually(lambda: len(begun) == 7)
        letters = house.cluster.event_queue.dead_letters("suspects")
        await eventually(letters.count, lambda count: count == 2)
        assert {(each.reason, each.attempts) for each in await letters.browse()} == {("failed", 3)}
    turn = [f"first #{n}" for n in (1, 2, 3)], [f"second #{n}" for n in (1, 2, 3)]
    assert begun == [*turn[0], "other", *turn[1]]


async def test_a_suspect_that_ignores_its_cancellation_leaves_the_instance_to_others() -> None:
    house, ends = House("stuck", cancel_grace=0.01), asyncio.Event()

    async def stuck(_: object) -> None:
        while not ends.is_set():
            with suppress(asyncio.CancelledError):
                await ends.wait()

    house.cluster.event_queue.subscribe("stuck", stuck, timeout=0.01, max_retries=0)
    async with house.cluster:
        await house.put("stuck", "suspect", 6)
        await eventually(house.cluster.event_queue.dead_letters("stuck").browse)
        await house.put("plain", "later", 0)
        await house.put("plain", "another suspect", 6)
        await house.plain.finished(2)
        ends.set()


@pytest.mark.parametrize("crashes", [1, 6])
async def test_what_waits_goes_back_when_its_instance_stops(crashes: int) -> None:
    house = House("stopping")
    await house.cluster.start()
    await house.put("held", "before", 0)
    await house.holding.started()
    await house.put("plain", "counted", crashes)
    await eventually(lambda: house.running("plain"), lambda n: n == 1)

    assert await house.cluster.stop(timeout=0) == ["before"]
    assert house.plain.runs == []


async def test_what_waits_goes_back_when_it_is_unsubscribed() -> None:
    house = House("unsubscribed")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("plain", "suspect", 6)
        await eventually(lambda: house.running("plain"), lambda n: n == 1)
        house.cluster.event_queue.unsubscribe("plain")
        depth = house.cluster.event_queue.depth
        await eventually(lambda: depth("plain"), lambda found: found is not None and found.ready)
        house.go.set()
    assert house.plain.runs == []


async def test_a_task_that_expires_while_it_waits_does_not_begin() -> None:
    house = House("late")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        expiry = time.time() + 0.3
        await house.put("plain", "suspect", 6, expires_at=expiry)
        await eventually(lambda: time.time() > expiry)
        house.go.set()
        [letter] = await eventually(house.cluster.event_queue.dead_letters("plain").browse)
    assert (letter.id, letter.reason, house.plain.runs) == ("suspect", "expired", [])


async def test_a_suspect_that_is_lost_while_it_waits_does_not_begin_before_it_comes_again() -> None:
    house = House("lost")
    async with house.cluster:
        await house.put("held", "before", 0)
        await house.holding.started()
        await house.put("plain", "suspect", 6)
        await eventually(lambda: house.running("plain"), lambda n: n == 1)
        house.faults.made[0].disconnect()
        await eventually(lambda: house.running("plain"), lambda n: n == 0)
        house.go.set()
        await house.holding.finished()
        assert house.plain.runs == []

        house.faults.made[0].reconnect()
        await house.plain.finished()
    assert house.plain.ids == ["suspect"]


async def test_a_suspect_waits_for_what_is_being_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    paused, pause = asyncio.Event(), MemoryConsumer.pause

    async def slowly(consumer: MemoryConsumer) -> None:
        if consumer.queue.channel == "held":
            await paused.wait()
        await pause(consumer)

    monkeypatch.setattr(MemoryConsumer, "pause", slowly)
    house = House("returning")
    async with house.cluster:
        house.go.set()
        await house.put("plain", "suspect", 6)
        await eventually(lambda: house.running("plain"), lambda n: n == 1)
        await house.put("held", "later", 0)
        await asyncio.sleep(quarantine.SETTLING * 2)
        assert house.plain.runs == []

        paused.set()
        await house.holding.finished()
    assert house.plain.ids == ["suspect"]


async def test_all_deliveries_of_a_task_that_did_not_begin_go_back() -> None:
    house, returned = House("twice"), list[str]()

    def note(event: str, values: Mapping[str, object]) -> None:
        if event == "task.given_back":
            returned.append(str(values["id"]))

    house.cluster.telemetry.subscribe(note)
    async with house.cluster:
        house.go.set()
        await house.put("held", "counted", 1)
        await house.put("held", "counted", 1)  # the run settles both
        await house.put("plain", "suspect", 6)
        await house.plain.finished()
        await house.holding.finished()
    assert returned.count("counted") == 2


@pytest.mark.parametrize(
    ("crashes", "limit", "suspect"),
    [(5, 10, False), (6, 10, True), (10, 10, True), (11, 10, False), (0, 1, False), (1, 1, True)],
)
async def test_a_suspect_was_counted_more_than_half_as_often_as_it_may(
    crashes: int, limit: int, suspect: bool
) -> None:
    envelope = Envelope(queue=QueueName("shop", "plain"), id="1", body=b"1", crashes=crashes)
    assert quarantine.is_suspect(Spent(envelope), limit) is suspect


async def test_what_was_refused_and_then_lost_is_not_stored_afresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pausing, paused, pause = asyncio.Event(), asyncio.Event(), MemoryConsumer.pause
    takes, published = True, list[str]()

    async def slowly(consumer: MemoryConsumer) -> None:
        pausing.set()
        await paused.wait()
        await pause(consumer)

    def note(envelope: Envelope, _: float) -> None:
        published.append(envelope.id)

    house, recorder = House("gone"), Recorder()
    house.cluster.event_queue.subscribe("moody", recorder.handle, idle=lambda: takes)
    house.faults.worn = 5  # where give-backs count, it is stored afresh instead
    async with house.cluster:
        monkeypatch.setattr(MemoryConsumer, "pause", slowly)
        takes = False
        await house.put("moody", "task", 0)
        await pausing.wait()
        house.faults.publish_fails = note
        house.faults.made[0].disconnect()
        paused.set()
        house.faults.made[0].reconnect()
        takes = True
        await recorder.finished()
    assert (recorder.ids, published) == (["task"], [])
