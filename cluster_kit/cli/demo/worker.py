"""One instance of the demo as a process. Started by `cluster_kit.cli.demo.processes`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading

from cluster_kit.cli.demo.journal import Event
from cluster_kit.cli.demo.processes import DIED
from cluster_kit.cli.demo.stage import APP, demo_settings
from cluster_kit.cli.demo.workload import Workload
from cluster_kit.cli.reporting import say
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ClusterKitError


def main() -> None:
    """Run until SIGTERM, or until the process that started this one is gone."""
    order = json.loads(sys.stdin.readline())
    logging.getLogger().addHandler(logging.NullHandler())  # failing is what the demo is about
    try:
        asyncio.run(_work(order["url"], order["name"]))
    except ClusterKitError as exc:
        say(f"{order['name']}: {exc}")
        sys.exit(1)


async def _work(url: str, name: str) -> None:
    cluster = Cluster(APP, settings=demo_settings(url, name))
    workload = Workload(cluster, _report, lambda: os._exit(DIED))
    cluster.telemetry.subscribe(
        lambda event, _fields: workload.note("started") if event == "cluster.started" else None
    )
    _listen(workload)
    unfinished = await cluster.run_until_signal()
    workload.note("stopped", ",".join(unfinished))


def _report(event: Event) -> None:
    sys.stdout.write(f"{event.line()}\n")
    sys.stdout.flush()


def _listen(workload: Workload) -> None:
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "fix":
                loop.call_soon_threadsafe(workload.fix)
        os.kill(os.getpid(), signal.SIGTERM)  # nobody is there to report to

    threading.Thread(target=listen, name="orders", daemon=True).start()


if __name__ == "__main__":
    main()
