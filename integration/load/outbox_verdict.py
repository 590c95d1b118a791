"""What became of the messages of an outbox, from what was written down."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

BEFORE_A_KILL = 5.0
"""Seconds that may pass between the arrival of a message and the kill of who sent it."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A copy that came out of the queue."""

    id: str
    key: str
    number: int
    at: float


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
    effects: int
    effects_lost: int
    effects_doubled: int
    repeats_kept_off_by_the_inbox: int

    @property
    def wrong(self) -> dict[str, int]:
        """What should not be, by name."""
        names = ("lost", "never_committed", "out_of_order", "repeats_without_a_kill")
        counts = asdict(self)
        wrong = {name: counts[name] for name in (*names, "effects_lost", "effects_doubled")}
        return {name: count for name, count in wrong.items() if count}

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


def unexplained(arrivals: Sequence[Arrival], kills: Sequence[float]) -> tuple[int, int]:
    """Count the repeats, and those between which and the first copy nothing was killed."""
    first: dict[str, float] = {}
    repeats = without = 0
    for arrival in arrivals:
        if arrival.id not in first:
            first[arrival.id] = arrival.at
            continue
        repeats += 1
        began = first[arrival.id] - BEFORE_A_KILL
        without += not any(began <= kill <= arrival.at for kill in kills)
    return repeats, without


def judge(
    *,
    committed: Mapping[str, set[str]],
    rolled_back: set[str],
    kills: Sequence[float],
    seconds: float,
    arrivals: Sequence[Arrival],
    effects: Counter[str],
    kept_off: int,
) -> Verdict:
    """Compare what was committed, by channel, with what arrived and what has effects."""
    ids = {arrival.id for arrival in arrivals}
    repeats, without = unexplained(arrivals, kills)
    return Verdict(
        messages=sum(len(found) for found in committed.values()),
        rolled_back=len(rolled_back),
        kills=len(kills),
        seconds=round(seconds, 1),
        arrived=len(ids),
        lost=len(committed["raw"] - ids),
        never_committed=len((ids | effects.keys()) & rolled_back),
        out_of_order=out_of_order(arrivals),
        repeats=repeats,
        repeats_without_a_kill=without,
        effects=sum(effects.values()),
        effects_lost=len(committed["effects"] - effects.keys()),
        effects_doubled=sum(count > 1 for count in effects.values()),
        repeats_kept_off_by_the_inbox=kept_off,
    )
