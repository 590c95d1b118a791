"""What aiormq raises, in the words of the seam. The only place that knows the driver's errors."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Self

import aiormq.exceptions as driver
from pamqp.exceptions import PAMQPException

from cluster_kit_amqp.link import (
    ChannelDown,
    DialFailed,
    LinkDown,
    LinkError,
    Nacked,
    Returned,
    Unencodable,
)

_CHANNEL_CODES: dict[type[driver.ChannelClosed], int] = {
    driver.ChannelAccessRefused: 403,
    driver.ChannelNotFoundEntity: 404,
    driver.ChannelLockedResource: 405,
    driver.ChannelPreconditionFailed: 406,
    driver.DuplicateConsumerTag: 530,
}
_ACCESS_REFUSED, _NOT_ALLOWED = 403, 530
_TEMPORARY = re.compile(r"limit|is down|shut", re.IGNORECASE)


def translate(error: BaseException) -> LinkError:
    """Return the seam's error for one of the driver's."""
    match error:
        case driver.PublishError():
            return Returned(" ".join(str(arg) for arg in error.args))
        case driver.DeliveryError():
            return Nacked(str(error))
        case driver.AMQPChannelError():
            return _channel_down(error)
        case driver.ChannelInvalidStateError():
            return ChannelDown(0, "the channel is closed", sent=False)
        case driver.AuthenticationError() | driver.ProbableAuthenticationError():
            return DialFailed(_text(error), retryable=False)
        case TypeError() | ValueError() | OverflowError() | RecursionError():
            return Unencodable(_text(error))
        case _:
            return LinkDown(_text(error))


def _channel_down(error: driver.AMQPChannelError) -> ChannelDown:
    code, text = _CHANNEL_CODES.get(type(error), 0), _text(error)  # type: ignore[arg-type]
    if not code and len(error.args) == 2 and isinstance(error.args[0], int):  # noqa: PLR2004
        code, text = error.args[0], str(error.args[1])
    return ChannelDown(code, text)


def _text(error: BaseException) -> str:
    return " ".join(str(arg) for arg in error.args if arg is not None) or type(error).__name__


def dial_failed(error: BaseException, closed_by: tuple[int, str] | None) -> DialFailed:
    """Return why a link could not be made; `closed_by` is how the broker closed, if it did."""
    if closed_by is None:
        told = translate(error)
        return told if isinstance(told, DialFailed) else DialFailed(told.reason)
    code, text = closed_by
    lasting = code in {_ACCESS_REFUSED, _NOT_ALLOWED} and not _TEMPORARY.search(text)
    return DialFailed(f"{code} {text}", retryable=not lasting)


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


MAPPED = (driver.AMQPError, driver.ChannelInvalidStateError, PAMQPException, OSError, EOFError)
"""Roots of everything the driver raises by itself; a test walks what is below them."""
