"""Where a message waits: on a step of the ladder, or along the chain.

Nothing waits in a worker, and a long delay never holds up a short one, because every wait queue
has one constant time to live and is thus in order. Wait queues belong to the application that
makes messages wait: those whose target takes nothing hold up the ones behind them.

* The ladder has one wait queue for each of a few common delays; one hop.
* The chain reaches any delay in ticks of 100 ms: level n holds a message for 2^n ticks when bit n
  of its delay is set, and the routing key carries the bits, the highest first. It is made in
  sections, from its end on, as far as delays need it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cluster_kit.errors import ConfigurationError
from cluster_kit_amqp.topology import (
    BACK,
    CHAIN_LEVELS,
    DELIVER,
    NO_LIMIT,
    Binding,
    Exchange,
    Queue,
    Step,
    Steps,
    address,
    quorum,
)

if TYPE_CHECKING:
    from cluster_kit.names import QueueName

_BACKOFF_MS = (*(500 << step for step in range(11)), 600_000)
_ROUND_MS = tuple(1000 * s for s in (5, 10, 15, 20, 30, 60, 120, 300, 900, 1800, 3600))
LADDER_MS = frozenset(_BACKOFF_MS + _ROUND_MS)
"""The default backoff without its jitter, and the round numbers people write."""

TICK_MS = 100
LONGEST_MS = TICK_MS * (2**CHAIN_LEVELS - 1)
_ROUNDING_MS = 1e-6  # 1.1 s are 1100.0000000000002 ms


_SECTIONS = (range(4), range(4, 13), range(13, CHAIN_LEVELS))
"""Levels of the chain that are made together: up to 1.5 s, 13 min (the default backoff), all."""


class Section(NamedTuple):
    """Steps made together: equal names, equal steps.

    Where there are many, the last of them tells, by being there, that all are.
    """

    name: str
    steps: Steps
    last: Exchange | None = None


class Wait(NamedTuple):
    """Where to publish so that a message comes after its delay, and what that needs, in order."""

    exchange: str
    key: str
    needs: tuple[Section, ...]

    @property
    def chained(self) -> bool:
        """Whether it is along the chain."""
        return self.needs[-1].last is not None


def milliseconds(delay: float) -> int:
    """Return a delay in whole milliseconds, rounded up.

    >>> milliseconds(1.1), milliseconds(0.0001)
    (1100, 1)
    """
    return max(1, math.ceil(delay * 1000 - _ROUNDING_MS))


def wait_for(app: str, queue: QueueName, delay: float, *, ladder: bool = True) -> Wait:
    """Return where `app` lets a message for `queue` wait `delay` seconds (above 0).

    Without `ladder` always along the chain, which reaches all that the ladder does.

    Raises:
        ConfigurationError: it is longer than the chain reaches.

    >>> from cluster_kit.names import QueueName
    >>> wait_for("shop", QueueName("shop", "mails"), 0.5).exchange
    'ck.v1.wait.shop.500'
    >>> wait_for("shop", QueueName(None, "audit"), 0.2).exchange
    'ck.v1.delay.shop.level-01'
    """
    ms = milliseconds(delay)
    if ms > LONGEST_MS:
        raise ConfigurationError(f"a delay may be at most {LONGEST_MS / 1000:g} s, not {delay:g}")
    if ladder and ms in LADDER_MS:
        name = ladder_name(app, ms)
        return Wait(name, queue.full, (Section(name, ladder_steps(app, ms)),))
    ticks = -(-ms // TICK_MS)
    bits = ".".join(format(ticks, f"0{CHAIN_LEVELS}b"))
    highest = ticks.bit_length() - 1
    sections = zip(_SECTIONS, chain(app), strict=True)
    needs = tuple(section for levels, section in sections if levels.start <= highest)
    return Wait(level_name(app, highest), f"{bits}.{address(queue)}", needs)


def ladder_name(app: str, ms: int) -> str:
    """Return the name of a step's exchange and queue."""
    return f"ck.v1.wait.{app}.{ms}"


def level_name(app: str, level: int) -> str:
    """Return the name of a level's exchange and queue."""
    return f"ck.v1.delay.{app}.level-{level:02d}"


def ladder_steps(app: str, ms: int) -> Steps:
    """Return what one step of the ladder needs."""
    name = ladder_name(app, ms)
    return (Exchange(BACK, "direct"), Exchange(name, "fanout"), *_wait_queue(name, ms, BACK, ""))


@lru_cache(maxsize=16)
def chain(app: str) -> tuple[Section, ...]:
    """Return all sections of an application's chain, its end first."""
    return tuple(_section(app, levels) for levels in _SECTIONS)


def _section(app: str, levels: range) -> Section:
    after = level_name(app, levels.start - 1) if levels.start else DELIVER
    steps: list[Step] = [Exchange(after, "topic")]
    for level in levels:
        name, higher = level_name(app, level), "*." * (CHAIN_LEVELS - 1 - level)
        steps += (
            Exchange(name, "topic"),
            *_wait_queue(name, TICK_MS << level, after, f"{higher}1.#"),
            Binding("exchange", after, name, f"{higher}0.#"),
        )
        after = name
    last = Exchange(f"ck.v1.delay.{app}.up-to-{levels[-1]:02d}", "fanout")
    return Section(last.name, (*steps, last), last)


def _wait_queue(name: str, ms: int, after: str, key: str) -> Steps:
    arguments = quorum(
        limit=NO_LIMIT,
        message_ttl=ms,
        dead_letter_strategy="at-least-once",
        dead_letter_exchange=after,
    )
    return (Queue(name, arguments), Binding("queue", name, name, key))
