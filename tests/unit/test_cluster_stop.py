from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest

from cluster_kit import Cluster, Delivery, Plugin, Settings
from cluster_kit.errors import (
    ConfigurationError,
    ConnectError,
    LifecycleError,
    NotStartedError,
    PluginFailedError,
)
from cluster_kit.ports import AdapterContext, Health
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder, until
from tests.unit.adapters import Faults

ABANDONED = r"^start\(\) was abandoned: stop\(\) was called$"


class Gate(Plugin):
    """Holds a hook back until the test opens it."""

    name = "gate"

    def __init__(self, hook: str) -> None:
        self._hook = hook
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.passed = 0

    async def load(self) -> None:
        await self._hold("load")

    async def before_stop(self) -> None:
        await self._hold("before_stop")

    async def _hold(self, hook: str) -> None:
        if hook == self._hook:
            self.reached.set()
            await self.opened.wait()
            self.passed += 1


def cluster(*plugins: Plugin, **settings: Any) -> Cluster:
    return Cluster("shop", plugins=plugins, settings=Settings(**settings))


@pytest.mark.asyncio
async def test_stopping_before_start_and_twice_is_legal() -> None:
    made = cluster()

    assert await made.stop() == []
    await made.start()
    assert await made.stop() == []
    assert await made.stop() == []


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", 1e10])
@pytest.mark.asyncio
async def test_a_bad_timeout_is_refused_and_nothing_stops(timeout: Any) -> None:
    async with cluster() as made:
        with pytest.raises(ConfigurationError, match=r"^timeout (must be|may be at most) "):
            await made.stop(timeout)
        assert made.health()["ready"] is True


@pytest.mark.asyncio
async def test_a_second_stop_waits_for_the_first() -> None:
    gate = Gate("before_stop")
    made = cluster(gate)
    await made.start()
    stops = [asyncio.create_task(made.stop()) for _ in range(3)]
    async with asyncio.timeout(5):
        await gate.reached.wait()
    assert not any(stop.done() for stop in stops)

    gate.opened.set()

    assert [await stop for stop in stops] == [[], [], []]
    assert gate.passed == 1
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_stop_outlives_its_caller() -> None:
    gate = Gate("before_stop")
    made = cluster(gate)
    await made.start()
    stop = asyncio.create_task(made.stop())
    async with asyncio.timeout(5):
        await gate.reached.wait()
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop

    gate.opened.set()
    await made.stop()

    assert gate.passed == 1
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_stop_during_start_ends_it_and_cancels_no_caller() -> None:
    gate = Gate("load")
    made = cluster(gate)
    cancelled: list[int] = []

    async def caller() -> None:
        with pytest.raises(LifecycleError, match=ABANDONED):
            await made.start()
        task = asyncio.current_task()
        assert task is not None
        cancelled.append(task.cancelling())

    starting = asyncio.create_task(caller())
    async with asyncio.timeout(5):
        await gate.reached.wait()
    async with asyncio.timeout(5):
        assert await made.stop() == []
        await starting
    assert cancelled == [0]
    assert made.health()["status"] == "down"

    gate.opened.set()
    async with asyncio.timeout(5):
        await made.start()
        await made.stop()


@pytest.mark.asyncio
async def test_a_stop_ends_every_start_that_came_before_it() -> None:
    gate = Gate("load")
    made = cluster(gate)
    starting = [asyncio.create_task(made.start()) for _ in range(3)]
    async with asyncio.timeout(5):
        await gate.reached.wait()
        assert await made.stop() == []
        outcomes = await asyncio.gather(*starting, return_exceptions=True)

    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [
        (LifecycleError, "start() was abandoned: stop() was called")
    ] * 3
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_stop_ends_a_start_in_the_task_that_asked_for_both(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hook may spawn what stops; the task that waits for start() itself goes on."""

    class Ends(Plugin):
        name = "ends"

        async def load(self) -> None:
            stopping.append(asyncio.create_task(made.stop()))
            await asyncio.Event().wait()

    stopping: list[asyncio.Task[list[str]]] = []
    made = cluster(Ends())
    async with asyncio.timeout(5):
        with pytest.raises(LifecycleError, match=ABANDONED):
            await made.start()
        assert await stopping[0] == []
    assert made.health()["status"] == "down"
    assert caplog.records == []


@pytest.mark.asyncio
async def test_a_start_whose_caller_is_gone_is_undone_although_a_hook_swallows_it() -> None:
    class Deaf(Plugin):
        name = "deaf"

        async def load(self) -> None:
            reached.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

        async def before_stop(self) -> None:
            undone.set()

    reached, undone = asyncio.Event(), asyncio.Event()
    made = cluster(Deaf())
    starting = asyncio.create_task(made.start())
    async with asyncio.timeout(5):
        await reached.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    assert undone.is_set()
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_caller_that_is_cancelled_as_its_start_ends_leaves_nothing_running() -> None:
    made = cluster()
    starting = asyncio.create_task(made.start())

    def observe(event: str, _fields: object) -> None:
        if event == "cluster.started":
            starting.cancel()

    made.telemetry.subscribe(observe)

    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_failed_start_is_told_to_its_caller_alone(caplog: pytest.LogCaptureFixture) -> None:
    made = cluster(event_queue={"url": "faulty://start"})
    Faults(made).refuses = True

    with pytest.raises(ConnectError):
        await made.start()
    assert caplog.records == []


@pytest.mark.asyncio
async def test_a_hook_that_hangs_does_not_keep_the_rest_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stopped: list[str] = []

    class First(Plugin):
        name = "first"

        async def before_stop(self) -> None:
            stopped.append(self.name)

    class Hangs(Plugin):
        name = "hangs"
        requires: tuple[str, ...] = ("first",)

        async def before_stop(self) -> None:
            await asyncio.Event().wait()

    made = cluster(First(), Hangs())
    await made.start()
    async with asyncio.timeout(10):
        await made.stop(timeout=0)

    assert stopped == ["first"]
    assert "before_stop of plugin 'hangs' failed" in caplog.text


@pytest.mark.asyncio
async def test_a_hook_that_stops_its_cluster_is_refused_also_while_a_start_is_undone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stops(Plugin):
        name = "stops"

        async def before_stop(self) -> None:
            await made.stop()

    class Fails(Plugin):
        name = "fails"

        async def load(self) -> None:
            raise LookupError("no data")

    made = cluster(Stops(), Fails())
    async with asyncio.timeout(5):
        with pytest.raises(PluginFailedError, match="no data"):
            await made.start()

    assert "before_stop of plugin 'stops' failed" in caplog.text
    assert "stop() in a plugin's hook would wait for itself" in caplog.text


class Waits(Plugin):
    """Waits in one of its hooks for a task that starts or stops a cluster."""

    name = "waits"

    def __init__(self, hook: str, call: str, through: Cluster | None = None) -> None:
        self._hook, self._call, self._through = hook, call, through
        self.errors: list[BaseException | None] = []

    async def before_load(self) -> None:
        await self._wait("before_load")

    async def load(self) -> None:
        await self._wait("load")

    async def after_start(self) -> None:
        await self._wait("after_start")

    async def before_stop(self) -> None:
        await self._wait("before_stop")

    async def _wait(self, hook: str) -> None:
        if hook == self._hook and not self.errors:
            call = getattr(self._through or self.cluster, self._call)
            self.errors += await asyncio.gather(asyncio.create_task(call()), return_exceptions=True)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("before_load", "start"),
        ("load", "start"),
        ("after_start", "start"),
        ("before_stop", "start"),
        ("before_stop", "stop"),
    ],
)
async def test_a_hook_may_wait_for_a_task_that_wants_to_start_or_stop(hook: str, call: str) -> None:
    waits = Waits(hook, call)
    made = cluster(waits)
    async with asyncio.timeout(5):
        await made.start()
        await made.stop()

    [error] = waits.errors
    assert isinstance(error, LifecycleError)
    assert str(error) == f"{call}() in a plugin's hook would wait for itself"


@pytest.mark.asyncio
async def test_a_hook_of_another_cluster_in_between_changes_nothing() -> None:
    """The one is being stopped, which starts the other, which wants to stop the first."""
    inner, outer = Waits("load", "stop"), Waits("before_stop", "start")
    clusters = cluster(inner), cluster(outer)
    outer._through, inner._through = clusters
    async with asyncio.timeout(5):
        await clusters[1].start()
        await clusters[1].stop()
        await clusters[0].stop()

    assert outer.errors == [None]
    [error] = inner.errors
    assert isinstance(error, LifecycleError)


@pytest.mark.asyncio
async def test_an_extension_may_wait_for_a_task_that_wants_to_stop() -> None:
    class Stops:
        name = "stops"

        def __init__(self) -> None:
            self.errors: list[BaseException | list[str]] = []

        async def start(self, context: AdapterContext) -> None: ...

        async def stop(self, timeout: float) -> None:
            stop = asyncio.create_task(made.stop())
            self.errors += await asyncio.gather(stop, return_exceptions=True)

        def health(self) -> Health:
            return Health(status="ok", detail="", since=0.0)

    made, stops = cluster(), Stops()
    made.extend(stops)
    async with asyncio.timeout(5), made:
        pass

    [error] = stops.errors
    assert isinstance(error, LifecycleError)


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", ["load", "after_start", "before_stop"])
async def test_a_task_that_outlives_its_hook_may_stop_and_start(hook: str) -> None:
    class Leaves(Plugin):
        name = "leaves"
        left: asyncio.Task[None] | None = None

        async def load(self) -> None:
            self._leave("load")

        async def after_start(self) -> None:
            self._leave("after_start")

        async def before_stop(self) -> None:
            self._leave("before_stop")

        def _leave(self, here: str) -> None:
            if here == hook and self.left is None:
                self.left = asyncio.create_task(self._turn())

        async def _turn(self) -> None:
            await asked.wait()
            await made.stop()
            await made.start()

    leaves, asked = Leaves(), asyncio.Event()
    made = cluster(leaves)
    async with asyncio.timeout(5):
        await made.start()
        if hook == "before_stop":
            await made.stop()
        asked.set()
        assert leaves.left is not None
        await leaves.left
        assert made.health()["ready"]
        await made.stop()


@pytest.mark.asyncio
async def test_a_hook_may_have_its_cluster_stopped_once_it_is_over() -> None:
    class Once(Plugin):
        name = "once"
        stop: asyncio.Task[list[str]] | None = None

        async def after_start(self) -> None:
            self.stop = asyncio.create_task(made.stop())

    once = Once()
    made = cluster(once)
    async with asyncio.timeout(5):
        await made.start()
        assert once.stop is not None
        assert await once.stop == []
    assert made.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_start_during_stop_waits_for_it_and_then_starts() -> None:
    gate = Gate("before_stop")
    made = cluster(gate)
    await made.start()
    stopping = asyncio.create_task(made.stop())
    async with asyncio.timeout(5):
        await gate.reached.wait()
    starting = asyncio.create_task(made.start())
    gate.opened.set()

    async with asyncio.timeout(5):
        await stopping
        await starting
    assert made.health()["ready"] is True
    await made.stop()


@pytest.mark.asyncio
async def test_after_a_restart_everything_declared_works_again(
    cluster_factory: ClusterFactory,
) -> None:
    recorder = Recorder()
    [watching] = await cluster_factory()
    [made] = await cluster_factory(start=False)
    made.event_queue.subscribe("mails", recorder.handle)
    for round_ in (1, 2, 3):
        async with made:
            await made.event_queue.publish("mails", round_)
            await recorder.finished(round_)
        await watching.event_queue.publish("mails", "while it is away")
        assert await watching.event_queue.purge("mails") == 1

    assert recorder.payloads == [1, 2, 3]
    assert made.event_queue.stats()["mails"].done == 3


def test_one_cluster_lives_in_one_event_loop_after_the_other() -> None:
    made = cluster()
    recorders: list[Recorder] = []

    async def handle(payload: object, delivery: Delivery) -> None:
        await recorders[-1].handle(payload, delivery)

    async def life(payload: int) -> None:
        recorders.append(Recorder())
        async with made:
            await made.event_queue.publish("mails", payload)
            await recorders[-1].finished()

    made.event_queue.subscribe("mails", handle)
    asyncio.run(life(1))
    asyncio.run(life(2))

    assert [recorder.payloads for recorder in recorders] == [[1], [2]]


# --- running tasks ---


@pytest.mark.asyncio
async def test_a_stop_waits_for_running_tasks(cluster_factory: ClusterFactory) -> None:
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    [made] = await cluster_factory()
    made.event_queue.subscribe("mails", recorder.handle)
    await made.event_queue.publish("mails", 1)
    await recorder.started()
    stopping = asyncio.create_task(made.stop())
    await asyncio.sleep(0)
    gate.set()

    assert await stopping == []
    [run] = recorder.runs
    assert (run.ended, run.error) == (True, None)
    with pytest.raises(NotStartedError):
        await made.event_queue.publish("mails", 2)


@pytest.mark.asyncio
async def test_a_task_that_is_cut_short_is_told_and_runs_elsewhere_as_the_same_attempt(
    cluster_factory: ClusterFactory,
) -> None:
    reasons: list[str] = []
    unfinished: list[object] = []

    async def answer(_payload: object, delivery: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            reasons.append(delivery.signal.reason)

    cut, elsewhere = Recorder(answer), Recorder()
    first, second = await cluster_factory(2)
    first.telemetry.subscribe(lambda _, fields: unfinished.append(fields.get("unfinished")))
    first.event_queue.subscribe("mails", cut.handle, concurrency=2)
    ids = await first.event_queue.publish_many("mails", [1, 2])
    await cut.started(2)

    assert await first.stop(timeout=0) == sorted(ids)
    assert reasons == ["shutdown", "shutdown"]
    assert unfinished[-1] == sorted(ids)
    second.event_queue.subscribe("mails", elsewhere.handle, concurrency=2)
    runs = await elsewhere.finished(2)
    assert {run.delivery.id for run in runs} == set(ids)
    assert {run.delivery.attempt for run in runs} == {1}


@pytest.mark.asyncio
async def test_plugins_stop_after_the_drain_and_before_the_connection_goes(
    cluster_factory: ClusterFactory,
) -> None:
    started, gate = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def work(_payload: object) -> None:
        started.set()
        await gate.wait()
        order.append("task ended")

    class Last(Plugin):
        name = "last"

        async def before_stop(self) -> None:
            await self.cluster.event_queue.publish("goodbye", 1)
            order.append("before_stop")

    [made] = await cluster_factory(plugins=[Last])
    made.event_queue.subscribe("mails", work)
    made.telemetry.subscribe(lambda event, _: order.append(event))
    await made.event_queue.publish("mails", 1)
    async with asyncio.timeout(5):
        await started.wait()
    order.clear()
    stopping = asyncio.create_task(made.stop())
    gate.set()
    await stopping

    assert order == [
        *("task ended", "task.done", "task.published", "before_stop", "cluster.stopped"),
    ]


# --- trouble ---


@pytest.mark.asyncio
async def test_whatever_fails_while_stopping_is_logged_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate("before_stop")
    gate.opened.set()
    made = cluster(gate, event_queue={"url": "faulty://stop"})
    faults = Faults(made)
    faults.close_fails = OSError("cannot close")
    await made.start()

    async def fails() -> None:
        raise LookupError

    monkeypatch.setattr(made.event_queue, "quiet", fails)
    assert await made.stop() == []

    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == ["taking nothing more failed", "disconnecting failed"]
    assert gate.passed == 1
    assert faults.log == ["connect", "close"]
    assert made.health() == {"status": "down", "ready": False, "adapters": {}}


@pytest.mark.asyncio
async def test_stopping_leaves_no_task_behind() -> None:
    before = asyncio.all_tasks()
    recorder = Recorder()
    made = cluster()
    for number in range(5):
        made.event_queue.subscribe(f"channel-{number}", recorder.handle)
    async with made:
        await made.event_queue.publish("channel-3", 1)
        await recorder.finished()
        assert asyncio.all_tasks() != before

    assert asyncio.all_tasks() == before
