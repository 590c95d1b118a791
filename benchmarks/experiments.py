"""What is measured with a peer in a round, and which figures that gives."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.lab import Figures, Lab
from benchmarks.peer import AsyncPeer, Limit, Peer

LANES = 256
_WARM_UP = 0.2
"""Share of the paced messages that is not looked at."""

Sample = dict[str, float]
"""Figures of one round by name."""


def serial(lab: Lab) -> Sample:
    """Publish one after the other."""
    figures = lab.publish(lanes=1, seconds=lab.plan.seconds / 2)
    return _speed("serial", figures)


def bulk(lab: Lab) -> Sample:
    """Publish with many under way, then consume all of it."""
    published = lab.publish(lanes=LANES, seconds=lab.plan.seconds)
    consumed = lab.consume(published["stored"])
    return _speed("publish", published) | _speed("consume", consumed)


def retry(lab: Lab) -> Sample:
    """Every message fails once and is done at its second run."""
    published = lab.publish(lanes=LANES, seconds=lab.plan.seconds / 3)
    return _speed("retry", lab.consume(published["stored"], failures=1))


def latency(lab: Lab) -> Sample:
    """From the call of publish to the start of the handler in the other process."""
    figures = lab.consume(lab.plan.paced, ages=True, meanwhile=lab.pace)
    first = lab.plan.paced * _WARM_UP
    ages = [seconds * 1e3 for number, seconds in figures["ages"] if number >= first]
    cuts = statistics.quantiles(ages, n=100, method="inclusive")
    return {"latency.p50": cuts[49], "latency.p99": cuts[98]}


def start(lab: Lab) -> Sample:
    """From the start of a process to its first message, and its memory a moment later."""
    lab.publish(lanes=1, count=1)
    figures = lab.start()
    names = ("wall", "import", "rss", "pss")
    return {f"start.{name}": figures[name] for name in names if name in figures}


def memory(lab: Lab) -> Sample:
    """Memory after a tenth of many messages and after all of them, on both sides."""
    published = lab.publish(lanes=LANES, count=lab.plan.memory)
    consumed = lab.consume(published["stored"])
    return {
        f"memory.{side}.{when}": figures[key]
        for side, figures in (("publish", published), ("consume", consumed))
        for when, key in (("warm", "warm_rss"), ("end", "rss"))
        if key in figures
    }


def delays(lab: Lab) -> Sample:
    """How late delayed messages run, whose publisher is gone; the longest delay goes first."""
    # One that waits while nobody consumes: where is it?
    lab.publish_later(max(lab.plan.delays))
    early = lab.stored()
    lab.consume(1)
    figures = lab.consume(
        len(lab.plan.delays),
        ages=True,
        meanwhile=lambda: lab.publish_later(*lab.plan.delays),
    )
    late = [seconds - lab.plan.delays[number] for number, seconds in figures["ages"]]
    order = [lab.plan.delays[number] for number, _ in figures["ages"]]
    return {
        "delays.late": max(late) * 1e3,
        "delays.early": min(0.0, *late) * 1e3,
        "delays.in_queue": early,
        "delays.disorder": sum(a > b for a, b in itertools.pairwise(order)),
    }


def _speed(what: str, figures: Figures) -> Sample:
    count = figures["count"] or 1
    return {
        f"{what}.rate": figures["count"] / figures["seconds"] if figures["seconds"] else 0.0,
        f"{what}.cpu": figures["cpu"] / count * 1e6,
    }


def _any(_: Peer) -> bool:
    return True


def _handles(peer: Peer) -> bool:
    return not isinstance(peer, Limit)


def _delays(peer: Peer) -> bool:
    return isinstance(peer, AsyncPeer) and peer.later is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What is done with a peer.

    Attributes:
        run: does it once.
        suits: whether a peer can do it.
        own_only: only cluster-kit is asked, about itself.
        once: one round is enough.
    """

    run: Callable[[Lab], Sample]
    suits: Callable[[Peer], bool] = _any
    own_only: bool = False
    once: bool = False


EXPERIMENTS: Mapping[str, Experiment] = {
    "serial": Experiment(run=serial),
    "bulk": Experiment(run=bulk),
    "retry": Experiment(run=retry, suits=_handles),
    "latency": Experiment(run=latency),
    "start": Experiment(run=start),
    "delays": Experiment(run=delays, suits=_delays),
    "memory": Experiment(run=memory, suits=_handles, own_only=True, once=True),
}
