"""Many tasks through worker processes while things break, and the count of what became of them.

``python integration/load/run.py --tasks 20000 --workers 4``

Tasks are published all the time. After a fifth of them every client connection is closed, another
fifth later a worker is killed (SIGKILL) and replaced, another fifth later all connections are
closed again and at that very moment a second worker is told to drain (SIGTERM). At the end every
task whose publish returned has to have been processed, and whichever ran more than once has to have
been in flight at one of these moments; both are computed from what the processes wrote down.

Without ``--url`` it uses a RabbitMQ as the tests do: the one of ``CLUSTER_KIT_TEST_AMQP_URL``, a
container, or a node that it starts. On a broker that takes no commands from here, connections are
closed by a proxy in between. The exit code is 0 when every promise was kept, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from rich.console import Console

from cluster_kit.testing.servers import NodeUnavailableError, RabbitServer, start_rabbitmq
from integration.load.faults import open_faults
from integration.load.report import Report
from integration.load.scenario import Plan, run


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load and faults on worker processes.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--tasks", type=int, default=20_000, help="to publish, at least")
    parser.add_argument("--workers", type=int, default=4, help="processes, 2 or more")
    parser.add_argument("--seconds", type=float, help="that publishing takes; default: tasks / 400")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep journals and logs here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


async def measure(plan: Plan, url: str, server: RabbitServer | None) -> Report:
    async with open_faults(url, server) as faults:
        return await run(plan, faults)


def show(report: Report, *, json: bool) -> None:
    console = Console()
    if json:
        console.print_json(report.as_json())
        return
    console.print(report.table())
    for line in report.details():
        console.print(line, markup=False)


def main() -> int:
    given = arguments()
    plan = Plan(
        tasks=given.tasks,
        workers=given.workers,
        seconds=given.seconds or max(10.0, given.tasks / 400),
        folder=given.keep,
    )
    if given.url:
        report = asyncio.run(measure(plan, given.url, None))
    else:
        try:
            server = start_rabbitmq()
        except NodeUnavailableError as exc:
            sys.exit(str(exc))
        try:
            report = asyncio.run(measure(plan, server.new_url(), server))
        finally:
            server.close()
    show(report, json=given.json)
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
