"""Several processes on one cache while broker and store are cut off, and how stale they ever read.

``python -m integration.load.cache --processes 4 --seconds 60``

Each process is the only writer of some rows, reads all of them through a cache with what it holds
itself, Redis and a backplane on RabbitMQ, and invalidates by key, by tag and by new values. A call
that invalidates makes a claim when it returns: from then on nobody reads the version before, but
for the bound of the situation. Meanwhile the links to the broker and to Redis are cut, of all
processes and of one. The report shows the worst staleness in each situation beside its bound.
Exit code 0 when none was over it, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster_kit.testing.proxy import FaultProxy
from cluster_kit.testing.servers import (
    REDIS,
    NodeUnavailableError,
    start_plain,
    start_rabbitmq,
)
from integration.load.cache_worker import DEGRADED_TTL, L1_TTL, Truth

DELIVERY = 1.0
"""What a broadcast may take on a machine that has other work, seconds."""

NOTICE = 0.3
"""What it may take to notice that a link was cut, seconds."""

WELL = "all well"
READER_CUT = "reader off the broker"
WRITER_CUT = "invalidator off the broker"
STORE_CUT = "store away from either"

BOUNDS = {
    WELL: DELIVERY,
    READER_CUT: min(L1_TTL, NOTICE + DEGRADED_TTL) + DELIVERY,
    WRITER_CUT: L1_TTL + DELIVERY,
    STORE_CUT: DELIVERY,
}
"""Most seconds that a reader may see what was invalidated, by situation."""

SCHEDULE = (
    ("broker, of all", 0.12, 0.24),
    ("store, of all", 0.42, 0.52),
    ("broker, of one", 0.60, 0.70),
    ("store, of one", 0.86, 0.94),
)
"""Whose link is cut, and from when to when, as shares of the run."""


Spans = list[tuple[float, float]]
"""Times from, to."""


@dataclass(kw_only=True)
class Cuts:
    """When each process was off the broker, as far as it or this one knows, and off the store."""

    broker: dict[int, Spans] = field(default_factory=dict[int, Spans])
    store: dict[int, Spans] = field(default_factory=dict[int, Spans])

    def note(self, name: str, start: float, end: float, processes: int) -> None:
        """Links were cut."""
        which = self.broker if name.startswith("broker") else self.store
        for number in range(1 if name.endswith("one") else processes):
            which.setdefault(number, []).append((start, end))

    def note_linked(self, number: int, linked: list[tuple[float, bool]]) -> None:
        """A process said when it knew itself off the broker."""
        since: float | None = None
        for when, live in [*linked, (float("inf"), True)]:
            if live and since is not None:
                self.broker.setdefault(number, []).append((since, when))
            since = None if live else when

    def situation(self, reader: int, writer: int, start: float, end: float) -> str:
        """Return in which situation a claim of `start` was not seen at `end`."""
        if _touches(self.broker.get(reader, []), end, end):
            return READER_CUT
        if _touches(self.broker.get(writer, []), start, end):
            return WRITER_CUT
        if _touches(self.broker.get(reader, []), start, end):
            return READER_CUT
        both = [*self.store.get(reader, []), *self.store.get(writer, [])]
        return STORE_CUT if _touches(both, start, end) else WELL


def _touches(spans: Spans, start: float, end: float) -> bool:
    return any(begin <= end and start <= over for begin, over in spans)


@dataclass(kw_only=True)
class Outcome:
    """What became of it.

    Attributes:
        worst: seconds a claim was old when a read began that did not see it, by situation.
        stale: how many such reads.
    """

    seconds: float
    worst: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BOUNDS, 0.0))
    stale: Counter[str] = field(default_factory=Counter[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    stats: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])

    @property
    def good(self) -> bool:
        """Whether every bound was kept, and there was something to see."""
        within = all(self.worst[name] <= bound for name, bound in BOUNDS.items())
        return within and not self.failures and self.counts["reads"] > 10 * self.seconds

    def __str__(self) -> str:
        rows = [f"{'situation':<28}{'stale reads':>12}{'worst':>10}{'bound':>10}"]
        rows += [
            f"{name:<28}{self.stale[name]:>12}{self.worst[name]:>8.3f} s{bound:>8.3f} s"
            for name, bound in BOUNDS.items()
        ]
        rows.append("done: " + ", ".join(f"{n} {name}" for name, n in sorted(self.counts.items())))
        rows.append("stats: " + ", ".join(f"{n} {name}" for name, n in self.stats.items() if n))
        rows += self.failures
        rows.append("good" if self.good else "BROKEN")
        return "\n".join(rows)


class Links:
    """Each process's way to the broker and to the store."""

    def __init__(self, broker: str, store: str, processes: int) -> None:
        self.brokers = [FaultProxy(broker) for _ in range(processes)]
        self.stores = [FaultProxy(store) for _ in range(processes)]

    def of(self, name: str) -> list[FaultProxy]:
        """Return those of a line of the schedule."""
        proxies = self.brokers if name.startswith("broker") else self.stores
        return proxies[:1] if name.endswith("one") else proxies


async def run(broker: str, store: str, processes: int, seconds: float, folder: Path) -> Outcome:
    """Do all of it."""
    links = Links(broker, store, processes)
    truth = folder / "truth"
    Truth.make(truth)
    async with AsyncExitStack() as stack:
        for proxy in (*links.brokers, *links.stores):
            await stack.enter_async_context(proxy)
        workers = await _start(links, processes, truth, folder)
        cuts = await _torment(links, seconds)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        async with asyncio.timeout(60):
            codes = [await worker.wait() for worker in workers]
    outcome = Outcome(seconds=seconds)
    outcome.failures += [f"process {n} ended with {code}" for n, code in enumerate(codes) if code]
    judge(outcome, list(_reports(folder, processes)), cuts)
    return outcome


async def _start(
    links: Links, processes: int, truth: Path, folder: Path
) -> list[asyncio.subprocess.Process]:
    app = f"load-{uuid.uuid4().hex[:8]}"
    workers: list[asyncio.subprocess.Process] = []
    for number in range(processes):
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CLUSTER_KIT_TEST")},
            "CLUSTER_KIT_APP": app,
            "CLUSTER_KIT_PUBSUB__URL": links.brokers[number].url,
            "CLUSTER_KIT_CACHE__URL": links.stores[number].url,
            "CLUSTER_KIT_CACHE__DEGRADED_TTL": str(DEGRADED_TTL),
            "CLUSTER_KIT_CACHE__PUBLISH_TIMEOUT": "1",
            "CLUSTER_KIT_EVENT_QUEUE__URL": "memory://",
        }
        with (folder / f"worker-{number}.log").open("wb") as log:
            workers.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "integration.load.cache_worker"),
                    *(str(number), str(processes), str(truth), str(_report(folder, number))),
                    env=environment,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                )
            )
    for number, worker in enumerate(workers):
        assert worker.stdout is not None
        async with asyncio.timeout(60):
            if await worker.stdout.readline() != b"ready\n":
                raise RuntimeError((folder / f"worker-{number}.log").read_text())
    return workers


async def _torment(links: Links, seconds: float) -> Cuts:
    begin, cuts = time.monotonic(), Cuts()

    async def until(share: float) -> None:
        await asyncio.sleep(max(0.0, begin + share * seconds - time.monotonic()))

    for name, start, end in SCHEDULE:
        await until(start)
        cut = time.monotonic()
        for proxy in links.of(name):
            proxy.refuse()
        await until(end)
        for proxy in links.of(name):
            proxy.resume()
        cuts.note(name, cut, time.monotonic(), len(links.brokers))
    await until(1.0)
    return cuts


def judge(outcome: Outcome, reports: list[dict[str, Any]], cuts: Cuts) -> None:
    """Find how old the claims were that reads did not see."""
    claims: dict[int, list[tuple[int, float]]] = {}
    for number, report in enumerate(reports):
        cuts.note_linked(number, report["linked"])
        outcome.counts.update(report["counts"])
        outcome.stats.update(report["stats"])
        outcome.failures += report["failures"]
        for key, version, when in report["claims"]:
            claims.setdefault(key, []).append((version, when))
    for reader, report in enumerate(reports):
        for key, version, start, _ in report["stale"]:
            overtaken = min(when for newer, when in claims[key] if newer > version)
            situation = cuts.situation(reader, key % len(reports), overtaken, start)
            outcome.stale[situation] += 1
            outcome.worst[situation] = max(outcome.worst[situation], start - overtaken)


def _report(folder: Path, number: int) -> Path:
    return folder / f"report-{number}.json"


def _reports(folder: Path, processes: int) -> Iterator[dict[str, Any]]:
    for number in range(processes):
        path = _report(folder, number)
        if path.exists():
            yield json.loads(path.read_text())


def main() -> int:
    """Run it on the servers the tests would use, or on those given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--amqp-url", help="a virtual host that can be dropped")
    parser.add_argument("--redis-url")
    given = parser.parse_args()
    closing: list[Callable[[], None]] = []
    try:
        broker, store = given.amqp_url, given.redis_url
        if broker is None:
            rabbit = start_rabbitmq()
            closing.append(rabbit.close)
            broker = rabbit.new_url()
        if store is None:
            plain = start_plain(REDIS)
            closing.append(plain.close)
            store = plain.url
        with tempfile.TemporaryDirectory() as folder:
            outcome = asyncio.run(run(broker, store, given.processes, given.seconds, Path(folder)))
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    finally:
        for close in closing:
            close()
    Console().print(str(outcome), highlight=False)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
