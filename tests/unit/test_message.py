from __future__ import annotations

import asyncio
import dataclasses
import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster_kit.errors import ConfigurationError
from cluster_kit.message import (
    AbortSignal,
    DeadReason,
    Delivery,
    HandlerAnswer,
    Reject,
    Retry,
    Snooze,
)


def test_answers_carry_what_they_ask_for() -> None:
    assert (Retry().delay, Retry().reason) == (None, "")
    assert (Retry(delay=timedelta(seconds=2), reason="busy").delay, Retry(delay=0).delay) == (2, 0)
    assert Snooze(timedelta(minutes=1)).delay == 60
    assert (Reject().reason, Reject("no such order").reason) == ("", "no such order")
    assert all(issubclass(kind, HandlerAnswer) for kind in (Retry, Snooze, Reject))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Retry(), "the handler asked for a retry"),
        (Retry(reason="busy"), "busy"),
        (Snooze(1.5), "snoozed for 1.5 s"),
        (Reject(), "the handler rejected the task"),
        (Reject("no such order"), "no such order"),
    ],
)
def test_answers_read_well(answer: HandlerAnswer, text: str) -> None:
    assert str(answer) == text


@pytest.mark.parametrize("answer", [Retry, Snooze])
@pytest.mark.parametrize(
    ("delay", "text"),
    [
        (-1, "delay must be finite and 0 or more seconds, not -1"),
        (timedelta(days=31), "delay may be at most 2,592,000 seconds, not"),
        ("1", "delay must be seconds or a timedelta, not str"),
    ],
)
def test_answers_refuse_a_bad_delay(answer: Any, delay: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}"):
        answer(delay)


def test_reasons_compare_with_plain_text() -> None:
    assert [str(reason) for reason in DeadReason] == [
        "failed",
        "expired",
        "rejected",
        "undecodable",
        "crashed",
    ]


def test_a_delivery_counts_earlier_attempts_and_cannot_be_changed() -> None:
    delivery = Delivery(
        id="1",
        channel="mails",
        attempt=3,
        max_retries=5,
        published_at=None,
        deadline=datetime(2030, 1, 1, tzinfo=UTC),
        headers={},
        redelivered=False,
        signal=AbortSignal(),
    )

    assert delivery.retried == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        delivery.attempt = 1  # type: ignore[misc]


@pytest.mark.asyncio
async def test_the_signal_wakes_everyone_who_waits_and_keeps_its_first_reason() -> None:
    signal = AbortSignal()
    assert (signal.aborted, signal.reason) == (False, "")
    signal.raise_if_aborted()

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = [group.create_task(signal.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        signal.abort("timeout")
        signal.abort("shutdown")

    assert [task.result() for task in waiting] == ["timeout"] * 3
    assert (signal.aborted, signal.reason) == (True, "timeout")
    assert await signal.wait() == "timeout"
    with pytest.raises(asyncio.CancelledError, match="timeout"):
        signal.raise_if_aborted()


@pytest.mark.asyncio
async def test_a_waiter_that_was_cancelled_disturbs_nobody() -> None:
    signal = AbortSignal()
    gone, stays = (asyncio.create_task(signal.wait()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()

    signal.abort("shutdown")

    async with asyncio.timeout(5):
        assert await stays == "shutdown"
    assert gone.cancelled()


@pytest.mark.asyncio
async def test_a_thread_sees_the_signal_and_can_wait_for_it() -> None:
    signal, waits = AbortSignal(), threading.Event()
    assert signal.wait_in_thread(timeout=0) is False

    def work() -> tuple[bool, str]:
        waits.set()
        return signal.wait_in_thread(timeout=20), signal.reason

    ended = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.to_thread(waits.wait, 20)
    signal.abort("cancelled")

    assert await ended == (True, "cancelled")
