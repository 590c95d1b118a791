from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any

import pytest

from cluster_kit.errors import HandlerTimeout
from cluster_kit.event_queue.outcome import Again, Dead, Judge, in_one_line
from cluster_kit.message import DeadReason, Envelope, HandlerAnswer, Reject, Retry, Snooze
from cluster_kit.names import QueueName
from cluster_kit.retry import RetryPolicy

JUDGE = Judge(policy=RetryPolicy(jitter=0, give_up_on=KeyError), instance_id="one")


def task(attempt: int = 1) -> Envelope:
    return Envelope(
        queue=QueueName("shop", "mails"),
        id="1",
        body=b"{}",
        attempt=attempt,
        expires_at=99.0,
        headers={"tenant": "a"},
    )


def again(error: BaseException, attempt: int = 1, max_retries: int = 3) -> Again:
    outcome = JUDGE.verdict(task(attempt), error, max_retries=max_retries)
    assert isinstance(outcome, Again)
    return outcome


def dead(error: BaseException, attempt: int = 1, max_retries: int = 3) -> Dead:
    outcome = JUDGE.verdict(task(attempt), error, max_retries=max_retries)
    assert isinstance(outcome, Dead)
    return outcome


class WeirdError(Exception):
    def __str__(self) -> str:
        raise LookupError


@pytest.mark.parametrize("error", [ValueError("odd"), HandlerTimeout(1), Retry()])
@pytest.mark.parametrize(("attempt", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0)])
def test_a_failure_is_retried_later_and_later_as_the_next_attempt(
    error: Exception, attempt: int, delay: float
) -> None:
    outcome = again(error, attempt)

    assert (outcome.delay, outcome.event, outcome.error) == (delay, "task.retried", error)
    assert outcome.envelope == task(attempt + 1), "nothing but the attempt may change"


@pytest.mark.parametrize("error", [ValueError("odd"), HandlerTimeout(1), Retry()])
@pytest.mark.parametrize(
    ("attempt", "in_place", "delay"),
    [(1, True, 0.5), (2, True, 0.5), (3, False, 0.5), (4, False, 1.0)],
)
def test_the_first_retries_may_be_in_place_and_do_not_let_the_delay_grow(
    error: Exception, attempt: int, in_place: bool, delay: float
) -> None:
    judge = Judge(policy=RetryPolicy(immediate=2, jitter=0), instance_id="one")

    outcome = judge.verdict(task(attempt), error, max_retries=9)

    assert isinstance(outcome, Again)
    assert (outcome.in_place, outcome.delay) == (in_place, delay)
    assert outcome.envelope == task(attempt + 1)


@pytest.mark.parametrize("answer", [Retry(delay=0), Retry(delay=7), Snooze(0)])
def test_what_the_handler_puts_off_is_not_in_place(answer: HandlerAnswer) -> None:
    judge = Judge(policy=RetryPolicy(immediate=2), instance_id="one")

    outcome = judge.verdict(task(), answer, max_retries=9)

    assert isinstance(outcome, Again)
    assert not outcome.in_place


@pytest.mark.parametrize(("attempt", "max_retries"), [(1, 0), (4, 3), (9, 3)])
def test_with_no_retry_left_it_dies_as_failed(attempt: int, max_retries: int) -> None:
    outcome = dead(ValueError("odd"), attempt, max_retries)

    assert outcome.envelope == task(attempt)
    assert outcome.death.reason is DeadReason.FAILED
    assert (outcome.death.error_type, outcome.death.error_text) == ("ValueError", "odd")
    assert (outcome.death.instance_id, outcome.death.died_at) == ("one", None)


def test_what_the_policy_gives_up_on_dies_at_once() -> None:
    assert dead(KeyError("id")).death.reason is DeadReason.FAILED


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError()])
def test_what_is_no_exception_is_a_failure_like_any_other(error: BaseException) -> None:
    assert again(error).delay == 0.5
    assert dead(error, attempt=4).death.reason is DeadReason.FAILED


def test_a_retry_may_name_its_delay_and_wins_over_the_policy() -> None:
    assert again(Retry(delay=7)).delay == 7
    assert again(Retry(delay=0), attempt=3).delay == 0
    never = Judge(policy=RetryPolicy(retry_on=()), instance_id="one")
    assert isinstance(never.verdict(task(), Retry(delay=1), max_retries=1), Again)


def test_a_retry_too_many_dies_with_its_reason() -> None:
    death = dead(Retry(reason="still busy"), attempt=4).death

    assert (death.reason, death.error_text) == (DeadReason.FAILED, "still busy")
    assert death.error_type == "cluster_kit.message.Retry"


@pytest.mark.parametrize("attempt", [1, 4, 100])
def test_a_snooze_uses_no_attempt_and_may_be_repeated(attempt: int) -> None:
    outcome = again(Snooze(3), attempt)

    assert (outcome.delay, outcome.event) == (3, "task.snoozed")
    assert outcome.envelope == task(attempt)


def test_a_reject_dies_at_once_with_its_reason() -> None:
    death = dead(Reject("no such order")).death

    assert (death.reason, death.error_text) == (DeadReason.REJECTED, "no such order")
    assert dead(Reject()).death.error_text == "the handler rejected the task"
    assert dead(Retry(), attempt=4).death.error_text == "the handler asked for a retry"


def test_a_copy_differs_in_nothing_but_what_was_counted() -> None:
    before = Envelope(
        queue=QueueName("shop", "mails"),
        id="1",
        body=b"{}",
        content_type="application/json",
        published_at=1.5,
        attempt=2,
        max_retries=7,
        timeout=8.0,
        expires_at=9.0,
        crashes=3,
        origin="two",
        headers={"tenant": "a"},
        id_is_stable=False,
    )
    defaults = Envelope(queue=QueueName("a", "b"), id="", body=b"")
    unset = {
        f.name for f in fields(Envelope) if getattr(before, f.name) == getattr(defaults, f.name)
    }
    outcome = JUDGE.verdict(before, ValueError(), max_retries=9)

    assert unset == {"death"}, "a new field belongs into the copy, and above"
    assert isinstance(outcome, Again)
    assert outcome.envelope == replace(before, attempt=3, crashes=0, id_is_stable=True)


def test_an_error_in_one_line_says_where_it_was_raised() -> None:
    def fail() -> None:
        raise ValueError("two\nlines")

    with pytest.raises(ValueError, match="two") as caught:
        fail()

    line = fail.__code__.co_firstlineno + 1
    assert in_one_line(caught.value) == f"ValueError: two lines (test_outcome.py:{line})"
    assert in_one_line(KeyError()) == "KeyError"
    assert len(in_one_line(ValueError("x" * 999))) == 300


def test_an_error_whose_text_cannot_be_made_does_not_stop_the_verdict() -> None:
    death = dead(WeirdError(), attempt=4).death

    assert death.error_text == "<text not available: LookupError>"
    assert death.error_type.endswith("test_outcome.WeirdError")


@pytest.mark.parametrize(
    ("error", "text", "expected"),
    [
        (None, None, ("", "")),
        (None, "delivered 11 times", ("", "delivered 11 times")),
        (ValueError("odd"), None, ("ValueError", "odd")),
        (asyncio.CancelledError(), "gone", ("asyncio.exceptions.CancelledError", "gone")),
    ],
)
def test_a_death_without_a_run(error: Any, text: str | None, expected: tuple[str, str]) -> None:
    death = JUDGE.dead(task(), DeadReason.CRASHED, error, text).death

    assert death.reason is DeadReason.CRASHED
    assert (death.error_type, death.error_text) == expected
