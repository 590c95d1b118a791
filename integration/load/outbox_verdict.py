"""What became of the messages of an outbox, from what was written down."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """A copy that came out of the queue."""

    id: str
    key: str
    number: int


_WRONG = (
    "lost",
    "never_committed",
    "out_of_order",
    "repeats_without_a_kill",
    "repeats_beyond_a_batch_for_each_kill",
    "effects_lost",
    "effects_doubled",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Counts. Those of which nothing is allowed are in `wrong`."""

    messages: int
    rolled_back: int
    kills: int
    seconds: float
    arrived: int
    lost: int
    never_committed: int
    out_of_order: int
    repeats: int
    repeats_without_a_kill: int
    repeats_beyond_a_batch_for_each_kill: int
    effects: int
    effects_lost: int
    effects_doubled: int
    repeats_kept_off_by_the_inbox: int

    @property
    def wrong(self) -> dict[str, int]:
        """What should not be, by name."""
        counts = asdict(self)
        return {name: counts[name] for name in _WRONG if counts[name]}

    def as_json(self) -> str:
        """Return all counts as JSON."""
        return json.dumps(asdict(self) | {"wrong": self.wrong}, indent=2)


def out_of_order(arrivals: Sequence[Arrival]) -> int:
    """Count the messages that came for the first time after a later one of their key."""
    last: defaultdict[str, int] = defaultdict(lambda: -1)
    seen: set[str] = set()
    wrong = 0
    for arrival in arrivals:
        if arrival.id in seen:
            continue
        seen.add(arrival.id)
        wrong += arrival.number < last[arrival.key]
        last[arrival.key] = max(last[arrival.key], arrival.number)
    return wrong


def unexplained(arrivals: Sequence[Arrival], left: Mapping[str, int]) -> tuple[int, int]:
    """Count the repeats, and those that no killed relay explains.

    Args:
        arrivals: all copies.
        left: how many relays were killed that had begun to send a message and not settled it, by
            its id. Each explains one further copy of that message, and of no other.
    """
    further = {id_: count - 1 for id_, count in Counter(copy.id for copy in arrivals).items()}
    without = (max(0, count - left.get(id_, 0)) for id_, count in further.items())
    return sum(further.values()), sum(without)


def judge(
    *,
    committed: Mapping[str, set[str]],
    rolled_back: set[str],
    kills: int,
    left: Mapping[str, int],
    batch_size: int,
    seconds: float,
    arrivals: Sequence[Arrival],
    effects: Counter[str],
    kept_off: int,
) -> Verdict:
    """Compare what was committed, by channel, with what arrived and what has effects.

    `left` is as of `unexplained`; `kept_off` are the repeats that the inbox has seen.
    """
    ids = {arrival.id for arrival in arrivals}
    repeats, without = unexplained(arrivals, left)
    return Verdict(
        messages=sum(len(found) for found in committed.values()),
        rolled_back=len(rolled_back),
        kills=kills,
        seconds=round(seconds, 1),
        arrived=len(ids),
        lost=len(committed["raw"] - ids),
        never_committed=len((ids | effects.keys()) & rolled_back),
        out_of_order=out_of_order(arrivals),
        repeats=repeats,
        repeats_without_a_kill=without,
        repeats_beyond_a_batch_for_each_kill=max(0, repeats + kept_off - kills * batch_size),
        effects=sum(effects.values()),
        effects_lost=len(committed["effects"] - effects.keys()),
        effects_doubled=sum(count > 1 for count in effects.values()),
        repeats_kept_off_by_the_inbox=kept_off,
    )
