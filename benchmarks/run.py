"""Measures cluster-kit and its peers side by side on one RabbitMQ, and prints tables.

``python benchmarks/run.py``, or ``make bench``. Rounds are interleaved: every round measures every
peer once, each in a fresh process, in turning order. Rates depend on the machine and on whatever
else it does; the ratios within a round and the processor time for a message depend on it least.

Without ``--url`` it uses a RabbitMQ as the tests do: the one of ``CLUSTER_KIT_TEST_AMQP_URL``, a
container, or a node that it starts. With ``--url``, give it a virtual host that you can drop
afterwards: exchanges and dead-letter queues stay.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import broker, figures, peer
from benchmarks.workloads import WORKLOADS, Measurement, Waits
from cluster_kit.testing.servers import NodeUnavailableError, start_rabbitmq

YARDSTICK = "aio_pika_raw"
CHILD_SECONDS = 600.0

Rates = dict[str, dict[str, list[Measurement]]]
Delays = dict[str, list[Waits | None]]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Benchmarks on RabbitMQ.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=5_000, help="for each measurement")
    parser.add_argument("--serial", type=int, default=500, help="for publishing one by one")
    parser.add_argument("--delays", default="5,1,0.2", help="seconds, in the order of publishing")
    parser.add_argument("--peers", nargs="+", default=peer.names(), choices=peer.names())
    parser.add_argument("--workloads", nargs="*", default=list(WORKLOADS), choices=[*WORKLOADS])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements here")
    return parser.parse_args()


@contextmanager
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


class Bench:
    """Runs measurements in child processes.

    Args:
        url: of the broker.
        peers: to measure.
        console: shows what is being done.
    """

    def __init__(self, url: str, peers: Sequence[str], console: Console) -> None:
        self._url = url
        self._peers = peers
        self._console = console

    def rates(self, workloads: Sequence[str], rounds: int, *, messages: int, serial: int) -> Rates:
        """Measure every workload with every peer once a round."""
        results: Rates = {w: {p: [] for p in self._peers} for w in workloads}
        for number in range(rounds):
            for workload in workloads:
                count = serial if WORKLOADS[workload].serial else messages
                for name in self._order(number):
                    got = self._child("rate", name, workload, last=str(count))
                    results[workload][name].append(Measurement(**(got or {})))
        return results

    def delays(self, rounds: int, seconds: str) -> Delays:
        """Measure the delays with every peer once a round."""
        results: Delays = {p: [] for p in self._peers}
        for number in range(rounds):
            for name in self._order(number):
                got = self._child("delays", name, last=seconds)
                results[name].append(_waits(got))
        return results

    def _order(self, number: int) -> list[str]:
        turn = number % len(self._peers)
        return [*self._peers[turn:], *self._peers[:turn]]

    def _child(self, *what: str, last: str) -> dict[str, Any] | None:
        queue = f"bench-{uuid.uuid4().hex[:8]}"
        command = [sys.executable, "-m", "benchmarks.child", *what, queue, last]
        with self._console.status(" ".join(what)):
            done = subprocess.run(
                command,
                env={**os.environ, "BENCHMARK_URL": self._url},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
                timeout=CHILD_SECONDS,
            )
        if done.returncode != 0:
            sys.exit(f"{' '.join(what)} failed")
        for full in (queue, f"{queue}.tasks"):
            asyncio.run(broker.drop(self._url, full))
        result: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
        return result


def _waits(got: dict[str, Any] | None) -> Waits | None:
    if got is None:
        return None
    late = {float(delay): seconds for delay, seconds in got["late"].items()}
    return Waits(**{**got, "late": late})


def surroundings(url: str) -> dict[str, str]:
    """Return what a figure is worth nothing without."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": f"{os.cpu_count()} x {models[0] if models else platform.machine()}",
        "system": f"{platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "broker": broker.version(url),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("cluster-kit", "aio-pika", "aiormq", "pamqp")},
    }


def main() -> int:
    """Measure and print."""
    given = arguments()
    console = Console()
    with rabbitmq(given.url) as url:
        around = surroundings(url)
        bench = Bench(url, given.peers, console)
        rates = bench.rates(
            given.workloads, given.rounds, messages=given.messages, serial=given.serial
        )
        delays = bench.delays(given.rounds, given.delays) if given.delays else {}
    for name, value in around.items():
        console.print(f"{name}: {value}", highlight=False)
    for workload, rounds in rates.items():
        console.print(figures.rates_table(workload, rounds, YARDSTICK))
    if delays:
        console.print(figures.waits_table(delays))
    if given.json:
        results = {"surroundings": around, "rates": rates, "delays": delays}
        given.json.write_text(json.dumps(results, default=dataclasses.asdict, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
