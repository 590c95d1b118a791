from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Never, Unpack

import pytest
from pydantic import AfterValidator

from cluster_kit import Cluster, Delivery, RetryPolicy, Settings
from cluster_kit.clock import SystemClock
from cluster_kit.errors import (
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    PublishRefused,
    PublishUnconfirmed,
    TopologyError,
    TransportError,
)
from cluster_kit.event_queue import idleness, quarantine, settlement, subscription
from cluster_kit.event_queue.ledger import Ledger
from cluster_kit.event_queue.outcome import Outcome
from cluster_kit.event_queue.run import Run
from cluster_kit.event_queue.worker import Worker
from cluster_kit.message import Envelope
from cluster_kit.ports import Received
from cluster_kit.settings.groups import EventQueueValues
from cluster_kit.testing.recorder import Recorder, always, answers, until
from cluster_kit.testing.waiting import eventually
from tests.unit.adapters import Faults, FaultyQueue

pytestmark = pytest.mark.asyncio

TOPOLOGY = TopologyError("queue 'shop.mails'", "x-queue-type is 'classic'")


def faulty(hub: str, **event_queue: Unpack[EventQueueValues]) -> tuple[Cluster, Faults]:
    made = Cluster("shop", settings=Settings(event_queue={"url": f"faulty://{hub}", **event_queue}))
    return made, Faults(made)


@pytest.mark.parametrize("error", [ConnectionLost("no connection now"), TOPOLOGY])
async def test_health_names_a_queue_subscribed_late_until_it_is_consumed(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(subscription, "OPEN_PAUSE", 0.01)
    monkeypatch.setattr(subscription, "OPEN_PAUSE_TOPOLOGY", 0.01)
    made, faults = faulty("late")
    recorder = Recorder()
    async with made:
        assert made.health()["status"] == "ok"
        faults.consume_fails = error
        made.event_queue.subscribe("mails", recorder.handle)

        await eventually(lambda: made.health()["status"] == "degraded")
        detail = made.health()["adapters"]["event_queue"]["detail"]
        assert "shop.mails" in detail
        assert str(error) in detail

        faults.consume_fails = None
        await eventually(lambda: made.health()["status"] == "ok")
        await made.event_queue.publish("mails", 1)
        await recorder.finished()


async def test_a_consumer_the_broker_refuses_is_told_once_and_asked_for_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subscription, "OPEN_PAUSE", 0.02)
    monkeypatch.setattr(subscription, "OPEN_PAUSE_TOPOLOGY", 0.1)
    made, faults = faulty("refused")
    faults.consume_fails = TransportError("there are 6 channels, and no more are allowed")
    made.event_queue.subscribe("mails", Recorder().handle)
    asked: list[float] = []
    consume = FaultyQueue.consume

    async def noted(*args: Any, **options: Any) -> Any:
        asked.append(asyncio.get_running_loop().time())
        return await consume(*args, **options)

    monkeypatch.setattr(FaultyQueue, "consume", noted)
    async with made:
        await eventually(lambda: len(asked) >= 6)
        [trouble] = [line for line in caplog.messages if "no more are allowed" in line]
        assert trouble in made.health()["adapters"]["event_queue"]["detail"]
    pauses = [later - sooner for sooner, later in pairwise(asked[1:])]
    assert min(pauses[2:]) >= 0.08


async def test_a_start_fails_where_the_broker_has_no_connection_for_a_consumer() -> None:
    made, faults = faulty("limited")
    faults.consume_fails = ConnectError("amqp://host", "user connection limit (2) is reached")
    made.event_queue.subscribe("mails", Recorder().handle)

    with pytest.raises(ConnectError, match="connection limit"):
        await made.start()


async def test_health_forgets_a_queue_that_is_unsubscribed() -> None:
    made, faults = faulty("forgotten")
    async with made:
        faults.consume_fails = ConnectionLost("no connection now")
        made.event_queue.subscribe("mails", Recorder().handle)
        await eventually(lambda: made.health()["status"] == "degraded")

        made.event_queue.unsubscribe("mails")
        assert made.health()["status"] == "ok"


@pytest.mark.parametrize(("level", "tracebacks"), [("WARNING", 1), ("DEBUG", 3)])
async def test_the_traceback_of_a_handler_stands_with_its_dead_letter(
    caplog: pytest.LogCaptureFixture, level: str, tracebacks: int
) -> None:
    async def fail(_: object) -> None:
        raise ValueError("boom")

    at_once = RetryPolicy(initial_delay=0)
    caplog.set_level(level)
    async with Cluster("shop") as cluster:
        cluster.event_queue.subscribe("mails", fail, max_retries=1, retry=at_once)
        await cluster.event_queue.publish("mails", {})
        await eventually(lambda: cluster.event_queue.stats()["mails"].dead)

    assert caplog.text.count("ValueError: boom (test_subscription.py:") == 2
    assert caplog.text.count("Traceback") == tracebacks


async def test_what_a_failed_run_held_is_free_without_the_garbage_collector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("ERROR")  # a record of the log would hold the error
    made, _ = faulty("cycles")
    held: list[weakref.ref[Recorder]] = []

    async def process(_: object) -> None:
        large = Recorder()
        held.append(weakref.ref(large))
        raise RuntimeError("again")

    gc.disable()
    try:
        async with made:
            made.event_queue.subscribe("mails", process, retry=RetryPolicy(initial_delay=60))
            await made.event_queue.publish("mails", 1)
            await eventually(lambda: made.event_queue.stats()["mails"].retried == 1)
            await eventually(lambda: made.event_queue.stats()["mails"].running == 0)
            await eventually(lambda: held[0]() is None)
    finally:
        gc.enable()


@pytest.mark.parametrize("counting", [False, True], ids=["given back", "kept where that counts"])
async def test_a_twin_that_cannot_be_postponed_waits_here(
    monkeypatch: pytest.MonkeyPatch, *, counting: bool
) -> None:
    monkeypatch.setattr(subscription, "TWIN_DELAY", 0.05)
    monkeypatch.setattr(settlement, "FIRST_PAUSE", 0.05)
    made, faults = faulty(f"twin-{counting}", cancel_grace=0.05)
    faults.counting = counting
    before: list[int] = []  # so often it was given back when it could not be postponed
    gate, seen = asyncio.Event(), Counter[str]()

    def fail_at_first(envelope: Envelope, delay: float) -> Exception | None:
        if delay != 0.05 or len(before) == 3:
            return None
        before.append(seen["task.given_back"])
        return TOPOLOGY

    async def ignore_the_first_timeout(_payload: object, delivery: Delivery) -> None:
        while delivery.attempt == 1 and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    faults.publish_fails = fail_at_first
    recorder = Recorder(ignore_the_first_timeout)
    made.telemetry.subscribe(lambda event, _: seen.update([event]))
    made.event_queue.subscribe(
        "mails", recorder.handle, concurrency=2, retry=RetryPolicy(initial_delay=0)
    )
    async with made:
        await made.event_queue.publish("mails", 1, timeout=0.05)
        await eventually(lambda: seen["task.given_back"] > len({*before}))  # postponed at last
        begun = len(recorder.runs)
        gate.set()

        runs = await recorder.finished(2)
        assert begun == 1
        assert before == ([0, 0, 0] if counting else [0, 1, 2])
        assert [run.delivery.attempt for run in runs] == [1, 2]
        assert await made.event_queue.dead_letters("mails").count() == 0


async def test_a_task_nobody_takes_that_cannot_be_postponed_stays_until_it_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, faults = faulty("worn", crash_limit=10)
    faults.worn = 5
    tries: list[str] = []
    willing = asyncio.Event()
    asked: list[bool] = []

    def fail(envelope: Envelope, _delay: float) -> Exception | None:
        tries.append(envelope.id)
        return TOPOLOGY

    def is_idle() -> bool:
        asked.append(willing.is_set())
        return willing.is_set() or len(asked) == 1  # busy again as soon as it consumes

    recorder = Recorder()
    made.event_queue.subscribe("mails", recorder.handle, idle=is_idle)
    async with made:
        published = await made.event_queue.publish("mails", 1)
        faults.publish_fails = fail
        await eventually(lambda: len(tries) >= 2)
        assert recorder.runs == []
        willing.set()

        await recorder.finished()
        faults.publish_fails = None
        after = await made.event_queue.publish("mails", 2)
        await recorder.finished(2)

    assert recorder.ids == [published, after]
    assert {*tries} == {published}
    assert "was not settled" not in caplog.text
    assert "cannot pause or resume" not in caplog.text


async def test_two_kept_copies_of_one_task_do_not_run_at_once() -> None:
    made, faults = faulty("kept", crash_limit=10)
    faults.worn = 5
    tries = Counter[str]()
    willing = asyncio.Event()
    asked: list[bool] = []

    def fail(envelope: Envelope, _delay: float) -> Exception | None:
        tries[envelope.id] += 1
        return TOPOLOGY if tries[envelope.id] > 2 else None

    def is_idle() -> bool:
        asked.append(willing.is_set())
        return willing.is_set() or len(asked) == 1

    recorder = Recorder(lambda _payload, _delivery: asyncio.sleep(0.05))
    made.event_queue.subscribe("mails", recorder.handle, concurrency=2, idle=is_idle)
    faults.publish_fails = fail
    async with made:
        copies = [made.event_queue.publish("mails", 1, message_id="order-17") for _ in range(2)]
        await asyncio.gather(*copies)
        await eventually(lambda: tries["order-17"] >= 6)  # published, and twice kept each
        faults.publish_fails = None
        willing.set()

        await recorder.finished()
        after = await made.event_queue.publish("mails", 2)
        await recorder.finished(2)

    assert recorder.ids == ["order-17", after]


async def test_what_was_refused_goes_back_even_if_it_could_be_taken_by_now() -> None:
    """Between the refusal and now it may have been lost, and somebody else may be running it."""
    made, _ = faulty("refused")
    recorder, answers = Recorder(), iter([True, False])
    made.event_queue.subscribe("mails", recorder.handle, idle=lambda: next(answers, True))
    async with made:
        await made.event_queue.publish("mails", 1)
        await recorder.finished()

        assert made.event_queue.stats()["mails"].given_back == 1
        assert [run.delivery.redelivered for run in recorder.runs] == [True]


async def test_a_task_that_cannot_be_settled_is_given_back_after_a_pause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, _ = faulty("unforeseen")
    recorder, steps = Recorder(), list[object]()
    outcome, sleep = Worker._outcome, SystemClock.sleep

    async def fail_twice(worker: Worker, run: Run) -> Outcome:
        steps.append("work")
        if steps.count("work") < 3:
            raise OverflowError("nobody foresaw this")
        return await outcome(worker, run)

    async def hurry(clock: SystemClock, seconds: float) -> None:
        steps.append(seconds)
        await sleep(clock, 0)

    monkeypatch.setattr(Worker, "_outcome", fail_twice)
    monkeypatch.setattr(SystemClock, "sleep", hurry)
    made.event_queue.subscribe("mails", recorder.handle)
    async with made:
        await made.event_queue.publish("mails", 1)
        await recorder.finished()

    assert [step for step in steps if step in ("work", 1.0)] == ["work", 1.0, "work", 1.0, "work"]
    assert caplog.text.count("was not settled") == 2


async def test_health_names_an_outcome_that_cannot_be_stored() -> None:
    made, faults = faulty("unstored")
    recorder = Recorder(always(ValueError("no")))
    made.event_queue.subscribe("mails", recorder.handle, retry=RetryPolicy(initial_delay=0))
    async with made:
        published = await made.event_queue.publish("mails", 1, max_retries=1)
        faults.publish_fails = lambda envelope, _: TOPOLOGY if envelope.attempt > 1 else None

        await eventually(lambda: made.health()["status"] == "degraded")
        detail = made.health()["adapters"]["event_queue"]["detail"]
        assert f"the outcome of task {published} cannot be stored" in detail

        faults.publish_fails = None
        await recorder.finished(2)
        await eventually(lambda: made.health()["status"] == "ok")


@pytest.mark.parametrize("started", [True, False])
async def test_the_same_handler_again_has_no_effect_and_is_told_of_options_that_have_none(
    caplog: pytest.LogCaptureFixture, started: bool
) -> None:
    made, gate = faulty("again")[0], asyncio.Event()
    answer = Recorder(until(gate))
    made.event_queue.subscribe("mails", answer.handle, concurrency=2)
    async with made if started else contextlib.nullcontext():
        made.event_queue.subscribe("mails", answer.handle, concurrency=2)
        assert "mails" not in caplog.text
        made.event_queue.subscribe("mails", answer.handle, concurrency=3, serves="mails:send")
        assert "mails keeps the options of its first subscription" in caplog.text
    async with made:
        await made.event_queue.publish_many("mails", range(4))
        await answer.started(2)
        assert made.event_queue.stats()["mails"].running == 2
        gate.set()
        await answer.finished(4)
    assert made.event_queue.topics() == set()


async def test_unsubscribed_it_takes_other_options() -> None:
    made, recorder = Cluster("shop", settings=Settings(worker_mode="mails:send")), Recorder()
    made.event_queue.subscribe("mails", recorder.handle, serves="mails:index")
    made.event_queue.unsubscribe("mails")
    made.event_queue.subscribe("mails", recorder.handle, serves="mails:send")
    async with made:
        await made.event_queue.publish("mails", 1)
        await recorder.finished()

    assert made.event_queue.topics() == {"mails:send"}


async def test_a_stop_does_not_cut_off_what_cleans_up_after_its_timeout() -> None:
    made, cleaning, cleaned = faulty("clean", cancel_grace=5)[0], asyncio.Event(), asyncio.Event()
    go = asyncio.Event()

    async def work(_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await go.wait()
            cleaned.set()

    made.event_queue.subscribe("mails", work, timeout=0.05, max_retries=0)
    async with made:
        await made.event_queue.publish("mails", 1)
        await cleaning.wait()
        stopping = asyncio.ensure_future(made.stop(timeout=0))
        await eventually(lambda: made.health()["ready"] is False)
        for _ in range(100):  # whatever a stop does at once
            await asyncio.sleep(0)
        go.set()
        assert await stopping == []
    assert cleaned.is_set()


async def test_a_stop_waits_for_a_thread_past_its_timeout_and_names_it() -> None:
    made, late, go = faulty("thread", cancel_grace=0.3)[0], threading.Event(), threading.Event()

    def work(_: object, delivery: Delivery) -> None:
        delivery.signal.wait_in_thread()
        late.set()
        go.wait()

    made.event_queue.subscribe("mails", work, timeout=0.05, max_retries=0)
    async with made:
        published = await made.event_queue.publish("mails", 1)
        await eventually(late.is_set)
        assert await made.stop(timeout=0) == [published]
        go.set()


@pytest.mark.parametrize("flag", ["yes", 1, None])
async def test_what_is_no_flag_is_not_taken_for_one(flag: Any) -> None:
    text = f"^shared must be True or False, not {flag!r}$"
    async with Cluster("shop") as made:
        await made.event_queue.publish("audit", 1, shared=True)
        with pytest.raises(ConfigurationError, match=text):
            await made.event_queue.publish("audit", 1, shared=flag)
        with pytest.raises(ConfigurationError, match=text):
            made.event_queue.subscribe("audit", Recorder().handle, shared=flag)


# --- foreign code beside handlers ---


def leave(_: object = None) -> Never:
    sys.exit(3)


def be_cancelled(_: object = None) -> Never:
    raise asyncio.CancelledError


def be_thrown_away(_: object = None) -> Never:
    raise GeneratorExit


def fail(_: object = None) -> Never:
    raise LookupError("no idea")


class Willing:
    """An `idle` that fails as it is told until it is willing."""

    def __init__(self, failing: Callable[[], Never]) -> None:
        self._failing = failing
        self.is_now = False
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.is_now or self._failing()


@pytest.mark.parametrize("failing", [leave, be_cancelled, be_thrown_away, fail])
async def test_a_validator_that_ends_everything_ends_its_task_only(
    failing: Callable[[object], Never],
) -> None:
    done: list[int] = []

    def check(value: int) -> int:
        return failing(value) if value == 1 else value

    async def process(payload: int) -> None:
        done.append(payload)

    process.__annotations__["payload"] = Annotated[int, AfterValidator(check)]
    async with Cluster("shop") as cluster:
        cluster.event_queue.subscribe("mails", process, retry=RetryPolicy(initial_delay=0))
        bad = await cluster.event_queue.publish("mails", 1, max_retries=1)
        await cluster.event_queue.publish("mails", 7)
        await eventually(lambda: done == [7])
        await eventually(lambda: cluster.event_queue.stats()["mails"].dead == 1)

        [letter] = await cluster.event_queue.dead_letters("mails").browse()
        stats = cluster.event_queue.stats()["mails"]
    assert (letter.id, letter.reason, letter.attempts) == (bad, "failed", 2)
    assert (stats.retried, stats.given_back) == (1, 0)


class Quitting(RetryPolicy):
    def delay(self, failures: int) -> float:
        sys.exit(failures)


async def test_a_retry_policy_that_exits_ends_its_task_only() -> None:
    recorder = Recorder(answers(ValueError("once")))
    async with Cluster("shop") as cluster:
        cluster.event_queue.subscribe("mails", recorder.handle, retry=Quitting())
        bad = await cluster.event_queue.publish("mails", 1)
        good = await cluster.event_queue.publish("mails", 2)
        await recorder.finished(2)
        await eventually(lambda: cluster.event_queue.stats()["mails"].dead == 1)

        [letter] = await cluster.event_queue.dead_letters("mails").browse()
    assert recorder.ids == [bad, good]
    assert (letter.id, letter.error_type) == (bad, "SystemExit")


@pytest.mark.parametrize("failing", [leave, be_cancelled, be_thrown_away, fail])
async def test_an_idle_that_fails_counts_as_no_and_is_shown_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: Callable[[], Never],
) -> None:
    monkeypatch.setattr(subscription, "IDLE_POLL", 0.01)
    recorder, willing = Recorder(), Willing(failing)
    async with Cluster("shop") as cluster:
        cluster.event_queue.subscribe("mails", recorder.handle, idle=willing)
        await cluster.event_queue.publish("mails", 1)
        await eventually(lambda: willing.asked > 5)
        assert recorder.runs == []

        willing.is_now = True
        await recorder.finished()
    assert caplog.text.count("idle() of channel mails failed") == 1
    assert caplog.text.count("Traceback") == 1


async def test_an_idle_that_goes_on_failing_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(subscription, "IDLE_POLL", 0.01)
    monkeypatch.setattr(idleness, "SILENCE", 0.1)
    willing = Willing(fail)
    async with Cluster("shop") as cluster:
        cluster.event_queue.subscribe("mails", Recorder().handle, idle=willing)
        await eventually(lambda: " times more in " in caplog.text)

    [line] = [r for r in caplog.records if "times more" in r.message][:1]
    _, counted, *_ = line.args if isinstance(line.args, tuple) else ()
    assert isinstance(counted, int)
    assert 1 <= counted < willing.asked
    assert "LookupError: no idea (test_subscription.py:" in line.message
    assert caplog.text.count("Traceback") == 1


async def test_a_stop_blames_the_broker_for_what_it_does_not_store(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, faults = faulty("alarm", cancel_grace=0.05)
    recorder = Recorder(always(ValueError("no")))
    never = asyncio.Event()

    async def wait(_: Envelope) -> Exception:
        await never.wait()
        return ConnectionLost("blocked")

    async def refuse(payload: int) -> None: ...

    refuse.__annotations__["payload"] = Annotated[int, AfterValidator(fail)]
    await made.start()
    published = [await made.event_queue.publish(channel, 1) for channel in ("mails", "notes")]
    faults.publish_waits = wait
    made.event_queue.subscribe("mails", recorder.handle)
    made.event_queue.subscribe("notes", refuse)
    await recorder.finished()
    await eventually(lambda: "LookupError: no idea" in caplog.text)

    assert await made.stop(0.05) == sorted(published)
    assert "ignore their cancellation" not in caplog.text
    assert "cutting short" not in caplog.text
    assert f"go back to it: {', '.join(sorted(published))}" in caplog.text


async def test_a_stop_blames_a_handler_that_ignores_its_cancellation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, _ = faulty("deaf", cancel_grace=0.05)
    gate = asyncio.Event()

    async def ignore(_payload: object, _delivery: Delivery) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    recorder = Recorder(ignore)
    made.event_queue.subscribe("mails", recorder.handle)
    await made.start()
    published = await made.event_queue.publish("mails", 1)
    await eventually(lambda: recorder.runs)

    assert await made.stop(0) == [published]
    gate.set()
    assert f"tasks that ignore their cancellation: {published}" in caplog.text
    assert "go back to it" not in caplog.text


def reconnect(faults: Faults) -> None:
    faults.made[0].disconnect()
    faults.made[0].reconnect()


async def test_a_worn_copy_is_stored_afresh_when_the_broker_takes_it_at_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settlement, "FIRST_PAUSE", 0.01)
    made, faults = faulty("worn", crash_limit=1)
    go = asyncio.Event()
    recorder = Recorder(until(go))
    errors: list[Exception] = [ConnectionLost("not connected"), PublishRefused("no room")]
    reports: list[str] = []
    made.telemetry.subscribe(lambda event, _: reports.append(event))
    made.event_queue.subscribe("mails", recorder.handle)
    async with made:
        await made.event_queue.publish("mails", 1)
        await recorder.started()
        faults.publish_fails = lambda *_: errors.pop(0) if errors else None

        faults.made[0].disconnect()
        faults.made[0].reconnect()

        await eventually(lambda: "task.renewed" in reports)
        go.set()
        await recorder.finished()
    assert caplog.text.count("cannot be stored afresh yet") == 2
    assert (len(recorder.runs), errors) == (1, [])


async def test_a_fresh_copy_that_comes_when_the_outcome_is_stored_is_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, faults = faulty("overtaken", crash_limit=1, cancel_grace=0.01)
    ends, adopt, publish = asyncio.Event(), Ledger.adopt, FaultyQueue.publish
    adopted, published = list[str](), list[str]()

    async def ignore(_payload: object, _delivery: Delivery) -> None:
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await ends.wait()

    def note(ledger: Ledger, run: Run, received: Received) -> None:
        adopt(ledger, run, received)
        adopted.append(received.copy_id)

    async def late(queue: FaultyQueue, envelope: Envelope, **options: Any) -> None:
        published.append(envelope.id)
        await publish(queue, envelope, delay=0.5 * (len(published) - 1), timeout=options["timeout"])

    monkeypatch.setattr(Ledger, "adopt", note)
    monkeypatch.setattr(FaultyQueue, "publish", late)
    recorder = Recorder(ignore)
    made.event_queue.subscribe("mails", recorder.handle, max_retries=0)
    async with made:
        await made.event_queue.publish("mails", 1, timeout=0.1, message_id="stuck")
        await recorder.started()
        reconnect(faults)
        await eventually(made.event_queue.dead_letters("mails").count)
        await eventually(lambda: len(set(adopted)) == 2)  # the worn copy and the fresh one
        ends.set()
        await recorder.finished()

        reconnect(faults)
        await made.event_queue.publish("mails", 2, message_id="last")
        await eventually(lambda: "last" in recorder.ids)
    assert recorder.ids == ["stuck", "last"]
    assert published == ["stuck", "stuck", "last"]


async def test_what_could_not_be_stored_afresh_is_taken_where_there_is_room_by_then() -> None:
    made, faults = faulty("kept", crash_limit=10)
    recorder, willing, tries = Recorder(), list[bool](), list[int]()
    faults.worn = 5

    def fail(envelope: Envelope, _delay: float) -> Exception | None:
        if envelope.id != "first":
            return None
        tries.append(1)
        if len(tries) == 1:
            return None  # its publish
        willing.append(True)  # while the fresh copy is under way
        return PublishRefused("an alarm")

    faults.publish_fails = fail
    asked: list[int] = []

    def idle() -> bool:
        asked.append(1)
        return bool(willing) or len(asked) == 1

    made.event_queue.subscribe("mails", recorder.handle, idle=idle, concurrency=1)
    async with made:
        await made.event_queue.publish("mails", 1, message_id="first")
        await recorder.finished()
        await made.event_queue.publish("mails", 2)
        await recorder.finished(2)
    assert recorder.ids[0] == "first"


async def test_a_handler_does_not_wait_for_the_renewal_of_its_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settlement, "FIRST_PAUSE", 600.0)
    made, faults = faulty("renewing", crash_limit=1)
    go, refused = asyncio.Event(), asyncio.Event()
    recorder = Recorder(until(go))

    def fail(_envelope: Envelope, _delay: float) -> Exception:
        refused.set()
        return PublishRefused("no room")

    made.event_queue.subscribe("mails", recorder.handle, concurrency=1)
    async with made:
        await made.event_queue.publish_many("mails", [1, 2])
        await recorder.started()
        faults.publish_fails = fail
        faults.made[0].disconnect()
        faults.made[0].reconnect()
        await refused.wait()

        go.set()
        await recorder.finished(2)


async def test_a_task_is_not_settled_while_its_fresh_copy_is_being_stored() -> None:
    made, faults = faulty("both", crash_limit=1)
    go, storing, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answer(_: Envelope) -> Exception:
        storing.set()
        await answered.wait()
        return PublishRefused("no room")

    recorder = Recorder(until(go))
    made.event_queue.subscribe("mails", recorder.handle)
    async with made:
        await made.event_queue.publish("mails", 1)
        await recorder.started()
        faults.publish_waits = answer
        faults.made[0].disconnect()
        faults.made[0].reconnect()
        await storing.wait()
        go.set()
        await recorder.finished()
        await asyncio.sleep(0.1)
        assert made.event_queue.stats()["mails"].running == 1

        answered.set()
        await eventually(lambda: made.event_queue.stats()["mails"].running == 0)
    assert len(recorder.ids) == 1


async def test_a_fresh_copy_that_may_be_stored_is_not_stored_again_before_the_next_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settlement, "FIRST_PAUSE", 0.01)
    made, faults = faulty("unconfirmed", crash_limit=1)
    go, tried, reports = asyncio.Event(), list[str](), list[str]()
    recorder = Recorder(until(go))

    def fail(envelope: Envelope, _delay: float) -> Exception | None:
        tried.append(envelope.id)
        return PublishUnconfirmed(envelope.id, "no answer") if len(tried) == 1 else None

    def lose_the_connection() -> None:
        faults.made[0].disconnect()
        faults.made[0].reconnect()

    made.telemetry.subscribe(lambda event, _: reports.append(event))
    made.event_queue.subscribe("mails", recorder.handle)
    async with made:
        published = await made.event_queue.publish("mails", 1)
        await recorder.started()
        faults.publish_fails = fail
        lose_the_connection()
        await eventually(lambda: tried)
        await asyncio.sleep(0.2)  # many times the pause after which a refused one is sent again
        assert tried == [published]
        assert "task.renewed" not in reports

        lose_the_connection()
        await eventually(lambda: "task.renewed" in reports)
        go.set()
        await recorder.finished()
        depth = made.event_queue.depth
        await eventually(lambda: depth("mails"), lambda left: left is not None and left.ready == 0)
    assert (tried, recorder.ids) == ([published] * 2, [published])


@pytest.mark.parametrize(
    ("busy", "limit"), [(False, 10), (True, 10), (True, 2), (True, 1), (True, 0)]
)
async def test_a_task_that_kills_its_workers_is_dead_though_others_refuse_it_in_between(
    monkeypatch: pytest.MonkeyPatch, busy: bool, limit: int
) -> None:
    monkeypatch.setattr(subscription, "UNSETTLED_PAUSE", 0.0)
    monkeypatch.setattr(subscription, "IDLE_POLL", 0.005)
    monkeypatch.setattr(quarantine, "SETTLING", 0.0)
    made, faults = faulty("killer", crash_limit=limit)
    faults.counting = True
    kills, refuses = 0, False

    async def killed(worker: Worker, run: Run) -> Outcome:
        nonlocal kills, refuses
        refused = worker._refusal(run)
        if refused is not None:
            return refused
        kills, refuses = kills + 1, busy
        raise RuntimeError("the process is gone")

    def idle() -> bool:
        nonlocal refuses
        refused, refuses = refuses, False
        return not refused

    monkeypatch.setattr(Worker, "_outcome", killed)
    made.event_queue.subscribe("mails", Recorder().handle, idle=idle)
    async with made:
        published = await made.event_queue.publish("mails", 1)
        [letter] = await eventually(made.event_queue.dead_letters("mails").browse)
    assert (letter.id, letter.reason) == (published, "crashed")
    assert kills <= limit + 2
