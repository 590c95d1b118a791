"""What aiormq raises, in the words of the seam. The only place that knows the driver's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiormq.exceptions as driver

from cluster_kit_amqp.link import (
    ChannelDown,
    DialFailed,
    LinkDown,
    LinkError,
    Nacked,
    Returned,
    Unencodable,
)

_CHANNEL_CODES: dict[type[BaseException], int] = {
    driver.ChannelAccessRefused: 403,
    driver.ChannelNotFoundEntity: 404,
    driver.ChannelLockedResource: 405,
    driver.ChannelPreconditionFailed: 406,
    driver.DuplicateConsumerTag: 530,
}


def translate(error: BaseException) -> LinkError:
    """Return the seam's error for one of the driver's."""
    for kind, make in _TRANSLATIONS:
        if isinstance(error, kind):
            return make(error)
    return LinkDown(_text(error))


def _channel_down(error: BaseException) -> ChannelDown:
    code, text = _CHANNEL_CODES.get(type(error), 0), _text(error)
    if not code and len(error.args) == 2 and isinstance(error.args[0], int):  # noqa: PLR2004
        code, text = error.args[0], str(error.args[1])
    return ChannelDown(code, text)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(arg) for arg in error.args if arg is not None) or type(error).__name__


_Kinds = type[BaseException] | tuple[type[BaseException], ...]
_TRANSLATIONS: tuple[tuple[_Kinds, Callable[[BaseException], LinkError]], ...] = (
    (driver.PublishError, lambda error: Returned(_text(error))),
    (driver.DeliveryError, lambda error: Nacked(str(error))),
    (driver.AMQPChannelError, _channel_down),
    (
        driver.ChannelInvalidStateError,
        lambda _: ChannelDown(0, "the channel is closed", sent=False),
    ),
    (
        (driver.AuthenticationError, driver.ProbableAuthenticationError),
        lambda error: DialFailed(_text(error), retryable=False),
    ),
    ((TypeError, ValueError, OverflowError, RecursionError), lambda e: Unencodable(_text(e))),
)
"""The first that fits counts; whatever else the driver raises is the end of the link."""


def dial_failed(
    error: LinkError, lost: str | None, closed_by: tuple[int, str] | None
) -> DialFailed:
    """Return why a link could not be made, in the broker's words where it said any."""
    if closed_by is not None:
        return DialFailed.by_broker(*closed_by)
    if isinstance(error, DialFailed):
        return error
    return DialFailed(lost or error.reason)


class Translated:
    """A block in which the driver's errors become those of the seam.

    The driver also raises `asyncio.CancelledError` at callers nobody cancelled, when it ends a
    connection that went silent: told apart by whether this task was asked to cancel meanwhile.
    """

    __slots__ = ("_before",)

    def __enter__(self) -> Self:
        self._before = _cancellations()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, LinkError | TimeoutError):
            return
        if isinstance(error, asyncio.CancelledError):
            if _cancellations() > self._before:
                return
            raise LinkDown("the driver gave the connection up") from error
        if isinstance(error, Exception):
            raise translate(error) from error


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
