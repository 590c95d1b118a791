"""What handlers return or raise by mistake: nothing of it may be lost, and the error says what."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from cluster_kit import Cluster, DeadLetter, Reject, Retry, Snooze
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.waiting import eventually

pytestmark = pytest.mark.asyncio

QUIET = "unhandled errors in a TaskGroup"


async def work(cluster: Cluster, handler: Callable[[object], object]) -> list[DeadLetter]:
    """Return what became a dead letter of one task."""
    cluster.event_queue.subscribe("mails", handler, max_retries=0)
    await cluster.event_queue.publish("mails", 1)
    letters = cluster.event_queue.dead_letters("mails")

    async def ended() -> bool:
        return bool(cluster.event_queue.stats()["mails"].done or await letters.count())

    await eventually(ended)
    return await letters.browse()


@pytest.mark.parametrize("answer", [Reject("no"), Retry(), Snooze(1), Reject, Retry, Snooze])
@pytest.mark.parametrize("plain", [False, True])
async def test_an_answer_that_is_returned_is_a_failed_attempt(
    cluster_factory: ClusterFactory, answer: object, plain: bool
) -> None:
    async def handle(_payload: object) -> object:
        return answer

    [cluster] = await cluster_factory()
    [letter] = await work(cluster, (lambda _payload: answer) if plain else handle)

    name = getattr(answer, "__name__", type(answer).__name__)
    assert (letter.reason, letter.error_type) == ("failed", "TypeError")
    assert letter.error_text == f"the handler's return value is a {name}: raise it"


async def late(done: list[str]) -> None:
    await asyncio.sleep(0)
    done.append("work")


@pytest.mark.parametrize("plain", [False, True])
async def test_what_a_handler_returns_unawaited_is_awaited(
    cluster_factory: ClusterFactory, plain: bool
) -> None:
    done: list[str] = []

    async def handle(_payload: object) -> object:
        return late(done)

    [cluster] = await cluster_factory()

    assert await work(cluster, (lambda _payload: late(done)) if plain else handle) == []
    assert done == ["work"]


async def test_what_fails_after_it_was_returned_has_failed(cluster_factory: ClusterFactory) -> None:
    async def fail() -> None:
        raise LookupError("no such shelf")

    async def handle(_payload: object) -> object:
        return fail()

    [cluster] = await cluster_factory()
    [letter] = await work(cluster, handle)

    assert (letter.error_type, letter.error_text) == ("LookupError", "no such shelf")


async def test_a_broadcast_handler_is_taken_at_its_word_alike(
    cluster_factory: ClusterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    async def handle(message: str) -> object:
        return late(done) if message == "work" else Reject("no")

    [cluster] = await cluster_factory()
    await cluster.pubsub.subscribe("news", handle)
    await cluster.pubsub.publish("news", "refuse", skip_self=False)
    await cluster.pubsub.publish("news", "work", skip_self=False)

    await eventually(lambda: done == ["work"])
    assert "the handler's return value is a Reject: raise it" in caplog.text


async def raising(error: BaseException) -> None:
    raise error


async def test_an_answer_that_is_all_a_task_group_has_counts_as_raised(
    cluster_factory: ClusterFactory,
) -> None:
    async def handle(_payload: object) -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(raising(Reject("an empty order")))
            outer.create_task(asyncio.sleep(0))

    [cluster] = await cluster_factory()
    [letter] = await work(cluster, handle)

    assert (letter.reason, letter.error_text) == ("rejected", "an empty order")


async def test_an_answer_beside_an_error_is_a_failure_that_names_both(
    cluster_factory: ClusterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(_payload: object) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(raising(Snooze(3)))
            group.create_task(raising(LookupError("no such shelf")))

    caplog.set_level(logging.WARNING)
    [cluster] = await cluster_factory()
    [letter] = await work(cluster, handle)

    named = "cluster_kit.message.Snooze: snoozed for 3 s; LookupError: no such shelf"
    assert (letter.reason, letter.error_type) == ("failed", "ExceptionGroup")
    assert letter.error_text == f"{QUIET} (2 sub-exceptions): {named}"
    assert named in caplog.text
    assert "test_handler_mistakes.py:" in caplog.text


async def test_of_a_large_group_the_first_errors_are_named(cluster_factory: ClusterFactory) -> None:
    async def handle(_payload: object) -> None:
        errors = [ValueError(f"{number}" * 1000) for number in range(5)]
        raise ExceptionGroup("all of it", errors)

    [cluster] = await cluster_factory()
    [letter] = await work(cluster, handle)

    assert letter.error_text.count("ValueError: ") == 3
    assert letter.error_text.endswith("; …")
    assert len(letter.error_text) < 1100


async def test_stop_iteration_of_a_plain_handler_names_its_line(
    cluster_factory: ClusterFactory, caplog: pytest.LogCaptureFixture
) -> None:
    def handle(_payload: object) -> None:
        next(iter(()))

    [cluster] = await cluster_factory()
    [letter] = await work(cluster, handle)

    assert "StopIteration" in letter.error_text
    assert "(test_handler_mistakes.py:" in caplog.text
