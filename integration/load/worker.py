"""A worker process: runs tasks until SIGTERM and writes down what it does.

Started by `integration.load.fleet`; where it connects and what it is called is in the environment
(``CLUSTER_KIT_APP``, ``CLUSTER_KIT_EVENT_QUEUE__URL``, ``CLUSTER_KIT_INSTANCE_ID``).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

from cluster_kit import Cluster, Delivery
from integration.load.journal import Journal

CHANNEL = "work"


class Worker:
    """Runs the tasks of `CHANNEL`. A payload is an object:

    ``seconds``: how long the task takes; ``exit``: code with which it kills the whole process.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def run(self, payload: Any, delivery: Delivery) -> None:
        if "exit" in payload:
            os._exit(payload["exit"])
        await asyncio.sleep(payload["seconds"])
        self._journal.write("done", delivery.id)


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    journal = Journal(options.journal)
    worker = Worker(journal)
    cluster = Cluster()
    cluster.telemetry.subscribe(journal.observe)
    cluster.event_queue.subscribe(CHANNEL, worker.run, concurrency=options.concurrency)
    return 1 if await cluster.run_until_signal() else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
