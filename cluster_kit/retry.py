"""How often and how late a failed task is tried again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import cast

from cluster_kit.checks import whole_number
from cluster_kit.clock import MAX_WAIT, seconds
from cluster_kit.errors import ConfigurationError

ExceptionTypes = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with jitter. Durations are seconds.

    Attributes:
        initial_delay: before the second attempt. Defaults to 0.5; 0 means at once.
        factor: by which each further delay grows. Defaults to 2.
        max_delay: upper bound of a delay, jitter included, and at least `initial_delay`. Defaults
            to 600 (ten minutes).
        jitter: share by which a delay is varied at random either way, so that what failed
            together does not come back together; at `max_delay` it is only shortened. Defaults to
            0.1; from 0 to 1.
        retry_on: exceptions that are retried. Defaults to every `Exception`. What is none, such as
            ``sys.exit()`` in a handler or a cancellation it ran into, is retried as well.
        give_up_on: exceptions that are dead-lettered at once; wins over `retry_on`.
        immediate: of the retries a task has, so many are the first, run at once and in place: in
            the same instance and slot, with nothing stored in between. Defaults to 0. Each is an
            attempt like any other, with a timeout of its own, and counts for `max_retries`; the
            first retry after them waits `initial_delay`. That they happened is known to this
            instance alone: when it dies, or a stop cuts one of them short, the task begins again
            at the attempt that was last stored. So each crash may cost `immediate` runs more. A
            retry that may not begin in place any more is stored, and waits as it does without
            `immediate`: because the instance stops, the connection is gone, or the handler named
            a delay or ignores its cancellation. An outbox, which has no handlers, ignores it.

    >>> [RetryPolicy(jitter=0).delay(failures) for failures in (1, 2, 3, 99)]
    [0.5, 1.0, 2.0, 600.0]
    """

    initial_delay: float = 0.5
    factor: float = 2.0
    max_delay: float = 600.0
    jitter: float = 0.1
    retry_on: ExceptionTypes = Exception
    give_up_on: ExceptionTypes = ()
    immediate: int = 0
    random: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("initial_delay", "max_delay"):
            checked = seconds(name, getattr(self, name), limit=MAX_WAIT)
            object.__setattr__(self, name, checked)  # a timedelta becomes seconds
        if self.initial_delay > self.max_delay:
            bounds = f"initial_delay, {self.initial_delay:g}, is above max_delay"
            raise ConfigurationError(f"{bounds}, {self.max_delay:g} seconds")
        if not (_is_number(self.factor) and math.isfinite(self.factor) and self.factor >= 1):
            raise ConfigurationError(f"factor must be finite and 1 or more, not {self.factor!r}")
        if not (_is_number(self.jitter) and 0 <= self.jitter <= 1):
            raise ConfigurationError(f"jitter must be from 0 to 1, not {self.jitter!r}")
        for name in ("retry_on", "give_up_on"):
            if not _are_exceptions(getattr(self, name)):
                raise ConfigurationError(f"{name} must be an exception class or a tuple of them")
        whole_number("immediate", self.immediate)

    def retries(self, error: BaseException) -> bool:
        """Whether the policy retries after `error` at all."""
        if isinstance(error, self.give_up_on):
            return False
        return isinstance(error, self.retry_on) or not isinstance(error, Exception)

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after the given number of failed attempts (1 or more).

        Those that `immediate` made up for are not among them.
        """
        try:
            nominal = min(self.initial_delay * self.factor ** (failures - 1), self.max_delay)
        except OverflowError:
            nominal = self.max_delay if self.initial_delay else 0.0
        # Not cut off after the draw: half of those at the bound would then come back together.
        longest = min(nominal * (1 + self.jitter), self.max_delay)
        return min(self.random.uniform(nominal * (1 - self.jitter), longest), longest)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_exceptions(value: object) -> bool:
    kinds = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (value,)
    return all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds)
