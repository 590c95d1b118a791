"""Sync messages after commits, while connections break and the broker is restarted.

``python integration/load/sync_messages.py``

Eight instance processes hold a table in memory, and a ninth instance changes it: 2,000 times, each
time in a transaction of its own in which it also publishes what has changed, and some more that it
rolls back. Meanwhile every instance's connections are closed at random, and the broker is
restarted. At the end each instance must have handled every message, in the order of the commits,
or have been told of a gap; what it holds must be what is in the database; and nobody may have heard
of what was rolled back.

With ``--too-short`` the broker keeps 20 messages for an instance, and every second one is away for
a third of the time: exactly these must be told of a gap.

Without ``--url`` it uses a RabbitMQ as the tests do. One that it started itself it restarts; on
another every link is refused for some seconds instead, by proxies in between. The exit code is 0
when every promise was kept, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from cluster_kit.broadcast import TRANSPORTS
from cluster_kit.testing.servers import NodeUnavailableError, start_rabbitmq
from integration.load.sync_scenario import Plan, run
from integration.load.sync_verdict import Verdict


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sync messages after commits, with faults.")
    parser.add_argument("--url", help="a RabbitMQ; by default the one the tests would use")
    parser.add_argument("--database", default="", help="URL of SQLAlchemy; default: SQLite")
    parser.add_argument("--messages", type=int, default=2_000, help="to publish")
    parser.add_argument("--instances", type=int, default=8, help="processes")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--transport", choices=TRANSPORTS, default="sticky")
    parser.add_argument("--too-short", action="store_true", help="keep too little for the absent")
    parser.add_argument("--seed", type=int, default=1, help="of what happens at random")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    logging.getLogger("cluster_kit").setLevel(logging.ERROR)
    logging.getLogger("cluster_kit_amqp").setLevel(logging.ERROR)
    options = {name: value for name, value in vars(given).items() if name != "url"}
    with tempfile.TemporaryDirectory() as folder:
        if given.url:
            verdict = asyncio.run(run(Plan(url=given.url, folder=Path(folder), **options)))
        else:
            verdict = _on_own_broker(Path(folder), options)
    console = Console(width=120)
    console.print(verdict.table())
    console.print("every promise was kept" if verdict.good else "A PROMISE WAS BROKEN")
    return 0 if verdict.good else 1


def _on_own_broker(folder: Path, options: dict[str, object]) -> Verdict:
    try:
        server = start_rabbitmq()
    except NodeUnavailableError as exc:
        sys.exit(str(exc))
    try:
        restart = server.restart if server.can_control else None
        plan = Plan(url=server.new_url(), folder=folder, restart=restart, **options)  # type: ignore[arg-type]
        return asyncio.run(run(plan))
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
