"""Messages of transactions that are not a database's: when they leave, and what if they cannot."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from cluster_kit import Cluster, Plugin, PublishFailure, Settings
from cluster_kit.after_commit.outgoing import Outgoing
from cluster_kit.after_commit.parcel import Parcel
from cluster_kit.errors import (
    ConfigurationError,
    ConnectionLost,
    EncodeError,
    InvalidNameError,
    LifecycleError,
    MessageTooLargeError,
    NotStartedError,
    PublishUnconfirmed,
    UnknownTransactionError,
)
from cluster_kit.message import Envelope
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually
from tests.unit.adapters import Faults

CHANNEL = "catalogue"


class Transaction:
    """Calls what it was given at its end, as plain objects do."""

    def __init__(self) -> None:
        self.committed: list[Callable[[], None]] = []
        self.rolled_back: list[Callable[[], None]] = []

    def on_commit(self, call: Callable[[], None]) -> None:
        self.committed.append(call)

    def on_rollback(self, call: Callable[[], None]) -> None:
        self.rolled_back.append(call)

    def commit(self) -> None:
        for call in self.committed:
            call()

    def rollback(self) -> None:
        for call in self.rolled_back:
            call()


class AsyncTransaction(Transaction):
    """Its hooks have other names, and are asynchronous."""

    on_commit = None  # type: ignore[assignment]
    on_rollback = None  # type: ignore[assignment]

    async def after_commit(self, call: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        self.committed.append(call)

    async def after_rollback(self, call: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        self.rolled_back.append(call)


@pytest_asyncio.fixture
async def cluster() -> AsyncIterator[Cluster]:
    queue, pubsub = "faulty://after-commit", "memory://after-commit"
    made = Cluster("shop", settings=Settings(event_queue={"url": queue}, pubsub={"url": pubsub}))
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def faults(cluster: Cluster) -> Faults:
    made = Faults(cluster)
    await cluster.start()
    return made


@pytest.fixture
def failures(cluster: Cluster, faults: Faults) -> list[PublishFailure]:
    heard: list[PublishFailure] = []
    cluster.on_publish_failure(heard.append)
    return heard


# --- hooks of any object ---


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Transaction, AsyncTransaction])
async def test_an_object_with_hooks_is_a_transaction(
    cluster: Cluster, faults: Faults, kind: type[Transaction]
) -> None:
    hearer, transaction = Hearer(), kind()
    await cluster.sync_messages.subscribe(CHANNEL, hearer.handle)

    message_id = await cluster.sync_messages.publish(
        CHANNEL, 1, transaction=transaction, skip_self=False
    )
    assert hearer.heard == []
    transaction.commit()
    transaction.commit()  # which some do, once for each savepoint
    await cluster.sync_messages.publish(CHANNEL, 2, skip_self=False)

    assert await hearer.hears(2) == [1, 2]
    assert hearer.heard[0].event.id == message_id


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Transaction, AsyncTransaction])
async def test_what_was_rolled_back_is_not_sent_by_a_later_commit(
    cluster: Cluster, faults: Faults, kind: type[Transaction]
) -> None:
    recorder, transaction = Recorder(), kind()
    cluster.event_queue.subscribe(CHANNEL, recorder.handle)

    await cluster.event_queue.publish(CHANNEL, "gone", transaction=transaction)
    transaction.rollback()
    transaction.commit()
    await cluster.event_queue.publish(CHANNEL, "end")

    await recorder.started()
    assert recorder.payloads == ["end"]


@pytest.mark.asyncio
async def test_a_hook_that_returns_only_at_the_commit_hangs_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, failures: list[PublishFailure]
) -> None:
    class Waits(Transaction):
        async def on_commit(self, call: Callable[[], None]) -> None:  # type: ignore[override]
            self.committed.append(call)
            await asyncio.Event().wait()

    transaction, published = Waits(), list[str]()
    cluster.telemetry.subscribe(lambda event, _: published.append(event))
    after_commit = cluster._capabilities.after_commit
    monkeypatch.setattr(after_commit._foreign, "_timeout", 0.01)

    with pytest.raises(ConfigurationError, match=r"a hook of Waits took over 0\.01 s"):
        await cluster.event_queue.publish(CHANNEL, 1, transaction=transaction)
    transaction.commit()
    await cluster.event_queue.publish(CHANNEL, 2)

    assert published.count("task.published") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("bad", [object(), "session", 1, True, {"on_commit": print}, Transaction])
async def test_what_cannot_tell_its_commit_is_refused(
    cluster: Cluster, faults: Faults, bad: object
) -> None:
    wanted = r"must be a Session, .* of SQLAlchemy 2 or an object with on_commit\(callable\) or "
    for publish in (cluster.event_queue.publish, cluster.sync_messages.publish):
        with pytest.raises(TypeError, match=wanted if bad is not Transaction else "on_"):
            await publish(CHANNEL, 1, transaction=bad)


@pytest.mark.asyncio
async def test_a_hook_that_takes_no_callable_is_named(cluster: Cluster, faults: Faults) -> None:
    class Signals:
        def on_commit(self) -> None: ...

    text = r"^the transaction must be .* not Signals: on_commit must take \(callable\)$"
    with pytest.raises(UnknownTransactionError, match=text):
        await cluster.event_queue.publish(CHANNEL, 1, transaction=Signals())


# --- at the call ---


@pytest.mark.asyncio
async def test_what_cannot_travel_is_refused_at_the_call(cluster: Cluster, faults: Faults) -> None:
    transaction = Transaction()
    large = "x" * (9 * 1024 * 1024)
    for publish in (cluster.event_queue.publish, cluster.sync_messages.publish):
        for channel, payload, error in (
            ("two words", 1, InvalidNameError),
            (CHANNEL, object(), EncodeError),
            (CHANNEL, large, MessageTooLargeError),
        ):
            with pytest.raises(error):
                await publish(channel, payload, transaction=transaction)
    with pytest.raises(ConfigurationError):
        await cluster.event_queue.publish(CHANNEL, 1, delay=-1, transaction=transaction)

    assert transaction.committed == []


@pytest.mark.asyncio
async def test_before_start_and_after_stop_it_is_refused() -> None:
    cluster, transaction = Cluster("shop"), Transaction()
    for _ in range(2):
        for publish in (cluster.event_queue.publish, cluster.sync_messages.publish):
            with pytest.raises(LifecycleError):
                await publish(CHANNEL, 1, transaction=transaction)
        await cluster.start()
        await cluster.stop()

    assert transaction.committed == []


@pytest.mark.asyncio
async def test_times_count_from_the_commit(cluster: Cluster, faults: Faults) -> None:
    stored: list[Envelope] = []
    faults.publish_fails = lambda envelope, _: stored.append(envelope)
    transaction = Transaction()
    await cluster.event_queue.publish(CHANNEL, 1, delay=5, ttl=10, transaction=transaction)
    await asyncio.sleep(0.05)
    transaction.commit()
    await eventually(lambda: bool(stored))

    [envelope] = stored
    assert envelope.expires_at == pytest.approx((envelope.published_at or 0) + 15)


@pytest.mark.asyncio
@pytest.mark.usefixtures("faults")
async def test_many_at_once_are_sent_after_the_commit(cluster: Cluster) -> None:
    recorder, transaction = Recorder(), Transaction()
    cluster.event_queue.subscribe(CHANNEL, recorder.handle)

    ids = await cluster.event_queue.publish_many(CHANNEL, range(3), transaction=transaction)
    before = await cluster.event_queue.publish(CHANNEL, "before")
    await recorder.finished()
    assert recorder.ids == [before]

    transaction.commit()
    await recorder.finished(4)
    assert sorted(recorder.ids[1:]) == sorted(ids)


@pytest.mark.asyncio
async def test_a_plugin_sends_after_the_commit() -> None:
    class Catalogue(Plugin):
        name = "catalogue"

        async def load(self) -> None:
            self.hearer = Hearer()

        async def handle_sync_message(self, message: Any) -> None:
            await self.hearer.handle(message, None)  # type: ignore[arg-type]

    here, there = Catalogue(), Catalogue()
    async with Cluster("shop", plugins=[here]), Cluster("shop", plugins=[there]):
        undone, done = Transaction(), Transaction()
        await here.send_sync_message("no", transaction=undone)
        await here.send_sync_message("yes", transaction=done)
        undone.rollback()
        done.commit()

        assert await there.hearer.hears() == ["yes"]


# --- what fails after the commit ---


@pytest.mark.asyncio
async def test_a_failure_is_told_with_the_message_which_may_be_repeated(
    cluster: Cluster,
    faults: Faults,
    failures: list[PublishFailure],
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder, events = Recorder(), list[tuple[str, Any]]()
    cluster.event_queue.subscribe(CHANNEL, recorder.handle)
    cluster.telemetry.subscribe(lambda event, fields: events.append((event, fields)))
    faults.publish_fails = lambda *_: ConnectionLost("no connection")
    transaction = Transaction()

    task_id = await cluster.event_queue.publish(CHANNEL, {"n": 1}, transaction=transaction)
    with caplog.at_level(logging.ERROR):
        transaction.commit()
        await eventually(lambda: bool(failures))

    [failure] = failures
    told = {"kind": "task", "channel": CHANNEL, "id": task_id}
    assert {name: getattr(failure, name) for name in told} == told
    assert failure.payload == {"n": 1}
    assert isinstance(failure.error, ConnectionLost)
    assert ("commit.unpublished", {**told, "error": "ConnectionLost: no connection"}) in events
    assert f"task {task_id} on channel {CHANNEL} was committed and could not be" in caplog.text
    faults.publish_fails = None
    await failure.repeat()
    await recorder.started()
    assert (recorder.payloads, recorder.ids) == ([{"n": 1}], [task_id])


@pytest.mark.asyncio
async def test_a_hook_for_failures_may_be_async_and_may_fail(
    cluster: Cluster, faults: Faults, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[str] = []

    async def keep(failure: PublishFailure) -> None:
        await asyncio.sleep(0)
        kept.append(failure.id)

    async def breaks(_: PublishFailure) -> None:
        raise ValueError

    def breaks_at_once(_: PublishFailure) -> None:
        raise KeyError

    undo = cluster.on_publish_failure(breaks_at_once)
    for hook in (breaks, keep):
        cluster.on_publish_failure(hook)
    faults.publish_fails = lambda *_: ConnectionLost("no connection")
    transaction = Transaction()
    ids = [await cluster.event_queue.publish(CHANNEL, n, transaction=transaction) for n in (1, 2)]
    transaction.commit()
    await eventually(lambda: len(kept) == 2)
    undo()
    undo()

    assert kept == ids
    assert caplog.text.count("a hook for publish failures") == 4


# --- stopping ---


@pytest.mark.asyncio
async def test_a_stop_waits_for_what_was_committed(cluster: Cluster, faults: Faults) -> None:
    gate, reached = asyncio.Event(), asyncio.Event()

    async def slow(envelope: Envelope) -> Exception:
        reached.set()
        await gate.wait()
        return ConnectionLost(f"of {envelope.id}")

    faults.publish_waits = slow
    transaction = Transaction()
    await cluster.event_queue.publish(CHANNEL, 1, transaction=transaction)
    transaction.commit()
    stopping = asyncio.create_task(cluster.stop())
    await reached.wait()
    assert not stopping.done()
    gate.set()

    assert await stopping == []


@pytest.mark.asyncio
async def test_a_stop_tells_what_it_could_not_publish(
    cluster: Cluster, faults: Faults, failures: list[PublishFailure]
) -> None:
    async def never(_: Envelope) -> Exception:
        await asyncio.Event().wait()
        raise AssertionError

    faults.publish_waits = never
    transaction = Transaction()
    ids = [await cluster.event_queue.publish(CHANNEL, n, transaction=transaction) for n in (1, 2)]
    transaction.commit()

    assert await cluster.stop(timeout=0) == sorted(ids)
    assert [failure.id for failure in failures] == ids
    assert all(isinstance(failure.error, PublishUnconfirmed) for failure in failures)


@pytest.mark.asyncio
async def test_what_is_committed_while_a_stop_gives_up_is_a_failure(
    cluster: Cluster, faults: Faults, failures: list[PublishFailure]
) -> None:
    later = Transaction()

    async def commits_another_when_cancelled(_: Envelope) -> Exception:
        try:
            await asyncio.Event().wait()
        finally:
            later.commit()
            await asyncio.sleep(0)  # longer than the other would need to be begun
        raise AssertionError

    transaction = Transaction()
    first = await cluster.event_queue.publish(CHANNEL, 1, transaction=transaction)
    second = await cluster.event_queue.publish(CHANNEL, 2, transaction=later)
    faults.publish_waits = commits_another_when_cancelled
    transaction.commit()

    assert await cluster.stop(timeout=0) == [first]
    errors = {failure.id: type(failure.error) for failure in failures}
    assert errors == {first: PublishUnconfirmed, second: NotStartedError}


@pytest.mark.asyncio
async def test_a_last_message_sent_as_time_is_up_is_sent() -> None:
    failed, sending, gate = list[str](), asyncio.Event(), asyncio.Event()
    supervisor = Supervisor()
    outgoing = Outgoing(supervisor, lambda parcel, _: failed.append(parcel.id))

    async def send() -> None:
        sending.set()
        await gate.wait()

    outgoing.take(Parcel(kind="task", channel=CHANNEL, id="last", body=b"1", send=send))
    await sending.wait()
    gate.set()  # in the coming turn it is sent, and then time is up

    assert await outgoing.close(0) == failed == []
    assert await supervisor.close() == []


@pytest.mark.asyncio
async def test_a_commit_after_the_stop_is_a_failure(
    cluster: Cluster, failures: list[PublishFailure], caplog: pytest.LogCaptureFixture
) -> None:
    async def unheard(_: PublishFailure) -> None:
        raise AssertionError

    cluster.on_publish_failure(unheard)
    transaction = Transaction()
    message_id = await cluster.sync_messages.publish(CHANNEL, 1, transaction=transaction)
    assert await cluster.stop() == []
    thread = threading.Thread(target=transaction.commit)
    thread.start()
    thread.join()

    [failure] = failures
    assert (failure.kind, failure.id) == ("sync", message_id)
    assert isinstance(failure.error, NotStartedError)
    assert "an asynchronous hook for publish failures was not run" in caplog.text


def test_a_commit_after_the_event_loop_is_a_failure() -> None:
    cluster, transaction, failures = Cluster("shop"), Transaction(), list[PublishFailure]()
    cluster.on_publish_failure(failures.append)

    async def publish() -> None:
        await cluster.start()
        await cluster.sync_messages.publish(CHANNEL, 1, transaction=transaction)
        await cluster._capabilities.after_commit._outgoing._empty.wait()  # type: ignore[union-attr]

    with asyncio.Runner() as runner:
        runner.run(publish())
    transaction.commit()

    assert [failure.payload for failure in failures] == [1]
