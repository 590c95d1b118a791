"""Measures cluster-kit and its peers side by side, and prints tables: tasks on RabbitMQ, caches.

``python benchmarks/run.py``, or ``make bench``. Rounds are interleaved: every round measures every
peer once, each in fresh processes, in turning order. Rates depend on the machine and on whatever
else it does; the processor time for a message and the ratios within a round depend on it least.

Without ``--url`` it uses a RabbitMQ as the tests do: the one of ``CLUSTER_KIT_TEST_AMQP_URL``, a
container, or a node that it starts; and a Redis likewise. With ``--url``, give it a virtual host
that you can drop afterwards: exchanges and some queues stay. The exit code is 1 when anything was
lost, left in a queue or done twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import broker, cache, cache_contenders, document, peer
from benchmarks.cache import CachePlan
from benchmarks.experiments import EXPERIMENTS, Experiment, Sample
from benchmarks.figures import CACHE_TABLES, LIMIT, OWN, OWN_IN_PLACE, TABLES, YARDSTICK
from benchmarks.lab import ChildError, Lab, Plan
from cluster_kit.testing.servers import REDIS, NodeUnavailableError, start_plain, start_rabbitmq

ROOT = Path(__file__).resolve().parents[1]

CACHE = "cache"
"""The workload that needs no broker."""

Samples = dict[str, dict[str, list[Sample]]]
Wrong = dict[str, dict[str, int]]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    default, cached, workloads = Plan(), CachePlan(redis=None), [*EXPERIMENTS, CACHE]
    parser = argparse.ArgumentParser(description="Benchmarks on RabbitMQ, and of caches.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--redis-url", help="a Redis, likewise; a key stays there until it expires")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=peer.names(), help="default: the installed")
    parser.add_argument("--workloads", nargs="+", default=workloads, choices=workloads)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of full speed")
    parser.add_argument("--paced", type=int, default=default.paced, help="messages at 200/s")
    parser.add_argument("--memory", type=int, default=default.memory, help="messages")
    parser.add_argument("--hits", type=int, default=cached.hits, help="of a cache, 15 times")
    parser.add_argument("--calls", type=int, default=cached.calls, help="of Redis by each cache")
    parser.add_argument("--sets", type=int, default=cached.sets, help="of a cache")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements here")
    parser.add_argument(
        "--document", type=Path, metavar="FILE", help="write the figures between its markers"
    )
    return parser.parse_args()


@contextlib.contextmanager
def redis(url: str | None) -> Iterator[str]:
    """Give the URL of a Redis to measure on."""
    if url:
        yield url
        return
    try:
        server = start_plain(REDIS)
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        yield server.url
    finally:
        server.close()


@contextlib.contextmanager
def rabbitmq(url: str | None) -> Iterator[str]:
    """Give the URL of a broker to measure on."""
    if url:
        yield url
        return
    try:
        server = start_rabbitmq()
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        yield server.new_url()
    finally:
        server.close()


def installed() -> list[str]:
    """Return the peers whose libraries are here."""
    found: list[str] = []
    for name in peer.names():
        with contextlib.suppress(ImportError):
            peer.load(name)
            found.append(name)
    return found


def _place(name: str) -> tuple[int, str]:
    """Order of the tables: this library, the yardstick, the others, the limit."""
    places = {OWN: 0, OWN_IN_PLACE: 0, YARDSTICK: 1, LIMIT: 3}
    return places.get(name, 2), name


class Bench:
    """Runs experiments and keeps what they give.

    Args:
        url: of the broker.
        peers: to measure.
        plan: how much.
        console: shows what is being done.
    """

    def __init__(self, url: str, peers: Sequence[str], plan: Plan, console: Console) -> None:
        self._url = url
        self._peers = peers
        self._plan = plan
        self._console = console
        self.samples: Samples = {}
        self.wrong: Wrong = {}

    def run(self, names: Sequence[str], rounds: int) -> None:
        """Do every experiment with every peer once a round."""
        for number in range(rounds):
            for name in names:
                experiment = EXPERIMENTS[name]
                if number == 0 or not experiment.once:
                    self._round(name, experiment, number)

    def _round(self, name: str, experiment: Experiment, number: int) -> None:
        turn = number % len(self._peers)
        samples = self.samples.setdefault(name, {p: [] for p in self._peers if _fits(name, p)})
        for contender in (*self._peers[turn:], *self._peers[:turn]):
            if contender in samples:
                with self._console.status(f"round {number + 1}: {name} {contender}"):
                    samples[contender].append(self._once(experiment, contender))

    def _once(self, experiment: Experiment, contender: str) -> Sample:
        lab = Lab(self._url, contender, self._plan)
        try:
            return experiment.run(lab)
        except ChildError as exc:
            self._console.print(str(exc), style="red")
            lab.wrong["failed"] += 1
            return {}  # the others go on, and the rounds stay side by side
        finally:
            lab.close()
            for what, count in lab.wrong.items():
                if count:
                    counts = self.wrong.setdefault(contender, {})
                    counts[what] = counts.get(what, 0) + count


def _fits(workload: str, name: str) -> bool:
    experiment, contender = EXPERIMENTS[workload], peer.load(name)
    if isinstance(contender, peer.AsyncPeer) and workload not in (
        contender.workloads or [workload]
    ):
        return False
    return (name == OWN or not experiment.own_only) and experiment.suits(contender)


def surroundings(packages: Sequence[str], rounds: int) -> dict[str, str]:
    """Return what a figure is worth nothing without."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "machine": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "Python": platform.python_version(),
        **{package: _version(package) for package in dict.fromkeys(packages)},
        "commit": _commit(),
        "rounds": str(rounds),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip() or "unknown"
    return "unknown"


def show(console: Console, samples: Samples, titles: Mapping[str, str]) -> None:
    """Print the tables."""
    for table in (*TABLES, *CACHE_TABLES):
        rounds = samples.get(table.experiment, {})
        if not rounds:
            continue
        head, *rows = document.table_rows(table, rounds, dict(titles))
        shown = RichTable(*head, title=table.title, title_justify="left")
        for row in rows:
            shown.add_row(*row)
        console.print(shown)


def measure_tasks(given: argparse.Namespace, console: Console) -> document.Results:
    """Measure tasks on RabbitMQ."""
    peers = sorted(given.peers or installed(), key=_place)
    plan = Plan(seconds=given.seconds, paced=given.paced, memory=given.memory)
    packages = [package for name in peers for package in peer.load(name).packages]
    with rabbitmq(given.url) as url:
        around = surroundings(packages, given.rounds)
        around["broker"] = f"{broker.version(url)}, same machine"
        around["seconds of full speed"] = f"{plan.seconds:g}"
        bench = Bench(url, peers, plan, console)
        bench.run([name for name in given.workloads if name != CACHE], given.rounds)
    return {
        "surroundings": around,
        "titles": {name: peer.load(name).title for name in peers},
        "notes": {name: peer.load(name).note for name in peers},
        "samples": bench.samples,
        "wrong": bench.wrong,
    }


def measure_caches(given: argparse.Namespace, console: Console) -> document.Results:
    """Measure caches in the process and on Redis."""
    names = cache_contenders.installed()
    packages = [package for name in names for package in cache_contenders.CONTENDERS[name].packages]
    around = surroundings(packages, given.rounds)
    with redis(given.redis_url) as url, console.status("") as status:
        plan = CachePlan(redis=url, hits=given.hits, calls=given.calls, sets=given.sets)
        samples = cache.run(plan, given.rounds, status.update)
    return {
        "surroundings": around,
        "titles": {name: cache_contenders.CONTENDERS[name].title for name in names},
        "notes": {name: cache_contenders.CONTENDERS[name].note for name in names},
        "samples": samples,
        "wrong": {},
    }


def main() -> int:
    """Measure and print."""
    given = arguments()
    console = Console()
    results: dict[str, document.Results] = {}
    if set(given.workloads) != {CACHE}:
        results["tasks"] = measure_tasks(given, console)
    if CACHE in given.workloads:
        results["caches"] = measure_caches(given, console)
    for found in results.values():
        found["surroundings"]["load after"] = f"{os.getloadavg()[0]:.2f}"
        show(console, found["samples"], found["titles"])
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    if given.document:
        document.write(results, given.document)
    if any(found["wrong"] for found in results.values()):
        console.print(document.in_order(results["tasks"]), style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
