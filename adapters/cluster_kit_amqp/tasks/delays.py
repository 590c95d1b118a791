"""Where a message waits: on a step of the ladder, or along the chain.

Nothing waits in a worker, and a long delay never holds up a short one, because every wait queue
has one constant time to live and is thus in order. Wait queues belong to the application that
makes messages wait: those whose target takes nothing hold up the ones behind them.

* The ladder has one wait queue for each of a few common delays; one hop.
* The chain reaches any delay in ticks of 100 ms: level n holds a message for 2^n ticks when bit n
  of its delay is set, and the routing key carries the bits, the highest first.
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


class Wait(NamedTuple):
    """Where to publish so that a message comes after its delay, and what that needs.

    `needs` names the steps: equal names, equal steps. Where there are many, the last of them
    tells, by being there, that all are.
    """

    exchange: str
    key: str
    needs: str
    steps: Steps
    last: Exchange | None = None


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
        return Wait(name, queue.full, name, ladder_steps(app, ms))
    ticks = -(-ms // TICK_MS)
    bits = ".".join(format(ticks, f"0{CHAIN_LEVELS}b"))
    start = level_name(app, ticks.bit_length() - 1)
    needs, complete = chain_name(app), chain_complete(app)
    return Wait(start, f"{bits}.{address(queue)}", needs, chain_steps(app), complete)


def ladder_name(app: str, ms: int) -> str:
    """Return the name of a step's exchange and queue."""
    return f"ck.v1.wait.{app}.{ms}"


def chain_name(app: str) -> str:
    """Return what the names of a chain's parts begin with."""
    return f"ck.v1.delay.{app}"


def level_name(app: str, level: int) -> str:
    """Return the name of a level's exchange and queue."""
    return f"{chain_name(app)}.level-{level:02d}"


def chain_complete(app: str) -> Exchange:
    """Return what is made last of a chain."""
    return Exchange(f"{chain_name(app)}.complete", "fanout")


def ladder_steps(app: str, ms: int) -> Steps:
    """Return what one step of the ladder needs."""
    name = ladder_name(app, ms)
    return (Exchange(BACK, "direct"), Exchange(name, "fanout"), *_wait_queue(name, ms, BACK, ""))


@lru_cache(maxsize=16)
def chain_steps(app: str) -> Steps:
    """Return what the whole chain needs, its end first."""
    steps: list[Step] = [Exchange(DELIVER, "topic")]
    for level in range(CHAIN_LEVELS):
        name = level_name(app, level)
        after = level_name(app, level - 1) if level else DELIVER
        higher = "*." * (CHAIN_LEVELS - 1 - level)
        steps += (
            Exchange(name, "topic"),
            *_wait_queue(name, TICK_MS << level, after, f"{higher}1.#"),
            Binding("exchange", after, name, f"{higher}0.#"),
        )
    return (*steps, chain_complete(app))


def _wait_queue(name: str, ms: int, after: str, key: str) -> Steps:
    arguments = quorum(
        limit=NO_LIMIT,
        message_ttl=ms,
        dead_letter_strategy="at-least-once",
        dead_letter_exchange=after,
    )
    return (Queue(name, arguments), Binding("queue", name, name, key))
