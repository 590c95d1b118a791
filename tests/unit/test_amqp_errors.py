from __future__ import annotations

import asyncio
from collections.abc import Iterator

import aiormq.exceptions
import pamqp.exceptions
import pytest
from pamqp.commands import Basic

from cluster_kit_amqp.control.conflicts import conflict
from cluster_kit_amqp.link import (
    ChannelDown,
    DialFailed,
    LinkDown,
    LinkError,
    Nacked,
    Returned,
    Unencodable,
)
from cluster_kit_amqp.questions.errors import Translated, dial_failed, translate
from cluster_kit_amqp.topology import Exchange, Queue

DRIVER = aiormq.exceptions

EXPECTED: dict[type[BaseException], type[LinkError]] = {
    DRIVER.PublishError: Returned,
    DRIVER.DeliveryError: Nacked,
    DRIVER.AMQPChannelError: ChannelDown,
    DRIVER.ChannelInvalidStateError: ChannelDown,
    DRIVER.AuthenticationError: DialFailed,
    DRIVER.ProbableAuthenticationError: DialFailed,
    DRIVER.AMQPConnectionError: LinkDown,
    DRIVER.ProtocolSyntaxError: LinkDown,
    DRIVER.MethodNotImplemented: LinkDown,
    DRIVER.AMQPError: LinkDown,
    pamqp.exceptions.PAMQPException: LinkDown,
}
"""Each base of the driver's; what stands below one is translated like it."""


def family(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


def driver_errors() -> list[type[BaseException]]:
    roots = (DRIVER.AMQPError, DRIVER.ChannelInvalidStateError, pamqp.exceptions.PAMQPException)
    found = [kind for root in roots for kind in family(root)]
    return sorted(set(found), key=lambda kind: kind.__qualname__)


def example(kind: type[BaseException]) -> BaseException:
    error = kind.__new__(kind)
    error.args = ("text",)
    if isinstance(error, DRIVER.DeliveryError):
        error.frame = Basic.Nack(1)
    return error


@pytest.mark.parametrize("kind", driver_errors())
def test_every_error_of_the_driver_is_translated(kind: type[BaseException]) -> None:
    told = translate(example(kind))
    base = next(base for base in kind.__mro__ if base in EXPECTED)

    assert type(told) is EXPECTED[base]
    assert told.reason


def test_no_module_of_the_driver_raises_errors_outside_these_families() -> None:
    known = set(driver_errors())
    for module in (aiormq.exceptions, pamqp.exceptions):
        own = {
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Exception)
            if value.__module__ == module.__name__
        }
        assert own <= known


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DRIVER.ChannelAccessRefused("x"), 403),
        (DRIVER.ChannelNotFoundEntity("x"), 404),
        (DRIVER.ChannelLockedResource("x"), 405),
        (DRIVER.ChannelPreconditionFailed("x"), 406),
        (DRIVER.ChannelClosed(311, "too large"), 311),
        (DRIVER.ChannelClosed(None, None), 0),
        (DRIVER.ChannelInvalidStateError("closed"), 0),
    ],
)
def test_the_codes_of_channels(error: BaseException, code: int) -> None:
    told = translate(error)

    assert isinstance(told, ChannelDown)
    assert told.code == code
    assert told.sent is not isinstance(error, DRIVER.ChannelInvalidStateError)


@pytest.mark.parametrize("error", [TypeError("x"), ValueError("x"), OverflowError("x")])
def test_what_cannot_be_encoded_was_not_sent(error: Exception) -> None:
    told = translate(error)

    assert isinstance(told, Unencodable)
    assert not told.sent


@pytest.mark.asyncio
async def test_a_cancellation_nobody_asked_for_is_the_end_of_the_link() -> None:
    with pytest.raises(LinkDown), Translated():
        raise asyncio.CancelledError("the driver's")


@pytest.mark.asyncio
async def test_a_real_cancellation_and_a_deadline_pass() -> None:
    async def wait() -> None:
        with Translated():
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait()


@pytest.mark.asyncio
async def test_it_is_told_apart_in_a_task_that_was_cancelled_before() -> None:
    async def clean_up() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            with pytest.raises(LinkDown), Translated():
                raise asyncio.CancelledError("the driver's") from None

    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    await task


@pytest.mark.parametrize(
    ("closed_by", "retryable"),
    [
        ((403, "ACCESS_REFUSED - Login was refused"), False),
        ((530, "NOT_ALLOWED - vhost x not found"), False),
        ((530, "NOT_ALLOWED - access to vhost refused: connection limit is reached"), True),
        ((530, "NOT_ALLOWED - user connection limit (2) is reached"), True),
        ((530, "NOT_ALLOWED - access to vhost 'x' refused for user 'a': vhost 'x' is down"), True),
        ((530, "NOT_ALLOWED - access to vhost 'limit' refused for user 'shut-down'"), False),
        ((541, "INTERNAL_ERROR - vhost 'x' is down"), True),
    ],
)
def test_what_waiting_helps_against(closed_by: tuple[int, str], retryable: bool) -> None:
    told = dial_failed(LinkDown("whatever"), "gone", closed_by)

    assert told.reason == f"{closed_by[0]} {closed_by[1]}"
    assert told.retryable is retryable
    assert told.by_limit is ("is reached" in closed_by[1])


def test_a_dial_without_the_broker_s_word_tells_what_was_seen() -> None:
    assert dial_failed(LinkDown("a"), "b", None).reason == "b"
    assert dial_failed(LinkDown("a"), None, None).reason == "a"
    assert not dial_failed(DialFailed("a", retryable=False), "b", None).retryable


def test_conflicts_name_the_argument() -> None:
    typed = (
        "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'a' in vhost 'v': "
        "received the value '500' of type 'short' but current is none"
    )
    kind = (
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'shop.tasks' in vhost 'v': "
        "received 'direct' but current is 'topic'"
    )

    assert str(conflict(Queue("a", {}), typed)) == (
        "queue 'a': x-message-ttl is none on the broker, '500' expected"
    )
    assert str(conflict(Exchange("shop.tasks", "direct"), kind)) == (
        "exchange 'shop.tasks': type is 'topic' on the broker, 'direct' expected"
    )
    assert str(conflict(Queue("a", {}), "RESOURCE_LOCKED - whatever")) == (
        "queue 'a': RESOURCE_LOCKED - whatever"
    )
