"""What becomes of a task after a run, and why."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

from cluster_kit.clock import MAX_WAIT, seconds
from cluster_kit.message import (
    DeadReason,
    Death,
    Envelope,
    HandlerAnswer,
    Reject,
    Retry,
    Snooze,
)
from cluster_kit.wording import shorten

if TYPE_CHECKING:
    from cluster_kit.errors import EncodeError
    from cluster_kit.retry import RetryPolicy


MAX_ERROR_TEXT_BYTES = 4096
"""Most bytes of an error's text kept in a dead letter."""

MAX_LEAVES, MAX_LEAF_TEXT = 3, 300
"""Most errors of a group that are named in its text, and most characters of each."""


class Done:
    """The task is finished, or a copy of it is stored elsewhere: acknowledge it."""


DONE = Done()
"""The one there is a need for."""


class Again(NamedTuple):
    """Store `envelope` for a later run, `delay` seconds from now, then acknowledge.

    `event` is what is reported: ``task.retried`` or ``task.snoozed``; `instance_id` of who ran it.
    `in_place` has it run here and now instead, where it still may.
    """

    envelope: Envelope
    delay: float
    event: str
    instance_id: str
    error: BaseException
    in_place: bool = False


class Dead(NamedTuple):
    """Store `envelope` among the dead letters, then acknowledge."""

    envelope: Envelope
    death: Death
    error: BaseException | None = None


class GiveBack(NamedTuple):
    """Return it to the queue unchanged; nothing happened that counts as an attempt."""

    why: str


Outcome = Done | Again | Dead | GiveBack


class Judge(NamedTuple):
    """Decides the outcome of a run of one subscription's handler."""

    policy: RetryPolicy
    instance_id: str

    def verdict(
        self, envelope: Envelope, error: BaseException, *, max_retries: int
    ) -> Again | Dead:
        """Return what becomes of `envelope` after a run that ended with `error`."""
        match error:
            case Snooze():
                return self._again(envelope, envelope.attempt, error.delay, error)
            case Reject():
                return self.dead(envelope, DeadReason.REJECTED, error)
            case _:
                return self._failed(envelope, error, max_retries)

    def _failed(self, envelope: Envelope, error: BaseException, max_retries: int) -> Again | Dead:
        asked = error if isinstance(error, Retry) else None
        if envelope.attempt > max_retries or not (asked or self.policy.retries(error)):
            return self.dead(envelope, DeadReason.FAILED, error)
        coming = envelope.attempt + 1
        if asked is not None and asked.delay is not None:
            return self._again(envelope, coming, asked.delay, error)
        beyond = envelope.attempt - self.policy.immediate
        # Of a policy of the user's making, which may answer anything.
        delay = self.policy.delay(max(beyond, 1))
        delay = seconds("the delay of the retry policy", delay, limit=MAX_WAIT)
        return self._again(envelope, coming, delay, error, in_place=beyond <= 0)

    def _again(
        self,
        envelope: Envelope,
        attempt: int,
        delay: float,
        error: BaseException,
        *,
        in_place: bool = False,
    ) -> Again:
        event = "task.retried" if attempt > envelope.attempt else "task.snoozed"
        copy = _copy(envelope, attempt)
        return Again(copy, delay, event, self.instance_id, error, in_place)

    def dead(
        self,
        envelope: Envelope,
        reason: DeadReason,
        error: BaseException | None = None,
        text: str | None = None,
    ) -> Dead:
        """Return the outcome that makes `envelope` a dead letter."""
        death = Death(
            reason=reason,
            error_type=_type_name(error) if error is not None else "",
            error_text=_cut(_text(error) if text is None and error is not None else text or ""),
            instance_id=self.instance_id,
        )
        return Dead(envelope, death, error)


def unstorable(envelope: Envelope, outcome: Again, error: EncodeError) -> Dead:
    """Return what becomes of a task that no broker takes for another run."""
    last = in_one_line(outcome.error)
    death = Death(
        reason=DeadReason.FAILED,
        error_type=_type_name(error),
        error_text=_cut(f"cannot be stored for another run: {error}; the last ended with {last}"),
        instance_id=outcome.instance_id,
    )
    return Dead(envelope, death, outcome.error)


def _copy(envelope: Envelope, attempt: int) -> Envelope:
    """Return the task for the run of this number, its crashes forgotten; its id stays from now on.

    What `dataclasses.replace` does takes six times as long.
    """
    return Envelope(
        queue=envelope.queue,
        id=envelope.id,
        body=envelope.body,
        content_type=envelope.content_type,
        published_at=envelope.published_at,
        attempt=attempt,
        max_retries=envelope.max_retries,
        timeout=envelope.timeout,
        expires_at=envelope.expires_at,
        origin=envelope.origin,
        headers=envelope.headers,
    )


def meant(error: BaseException) -> BaseException:
    """Return the answer of a handler that is all a group has, as of `asyncio.TaskGroup`, or error.

    Only with the answer alone nothing else is lost.
    """
    first = list(islice(_leaves(error), 2))
    alone = len(first) == 1 and isinstance(first[0], HandlerAnswer)
    return first[0] if alone else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Iterate over the errors of a group, and of those in it, in order; else over error itself."""
    left = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", one)
            left.extend(reversed(group.exceptions))
        else:
            yield one


def in_one_line(error: BaseException) -> str:
    """Return type and text of an error, and where it was raised, for a log."""
    place = next(_leaves(error)).__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    text = " ".join(_text(error).split())
    told = shorten(f"{_type_name(error)}: {text}" if text else _type_name(error), 300)
    if place is None:
        return told
    return f"{told} ({Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno})"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else (f"{kind.__module__}.{kind.__qualname__}")
    )


def _cut(text: str) -> str:
    """Return at most `MAX_ERROR_TEXT_BYTES` of `text`, so that it fits a broker's frame."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= MAX_ERROR_TEXT_BYTES:
        return encoded.decode()
    return encoded[:MAX_ERROR_TEXT_BYTES].decode("utf-8", "ignore") + "…"


def _text(error: BaseException) -> str:
    """The error's text; of a group, also that of its first errors."""
    text, leaves = _own_text(error), _leaves(error)
    if not isinstance(error, BaseExceptionGroup):
        return text
    first = list(islice(leaves, MAX_LEAVES + 1))
    named = [shorten(f"{_type_name(e)}: {_own_text(e)}", MAX_LEAF_TEXT) for e in first[:MAX_LEAVES]]
    more = ["…"] if len(first) > MAX_LEAVES else []
    return f"{text}: {'; '.join(named + more)}"


def _own_text(error: BaseException) -> str:
    """The error's text. A __str__ that raises must not take the task with it."""
    try:
        return str(error)
    except Exception as exc:  # noqa: BLE001 - foreign code
        return f"<text not available: {type(exc).__name__}>"
