"""One instance of the demo as a process. Started by `cluster_kit.cli.demo.processes`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any

from cluster_kit.cli.demo.journal import Event
from cluster_kit.cli.demo.processes import CUT, DIED, MEND
from cluster_kit.cli.demo.settings import APP, demo_settings
from cluster_kit.cli.demo.severing import keep_severed, sever
from cluster_kit.cli.demo.workload import Workload
from cluster_kit.cli.reporting import say
from cluster_kit.cluster import Cluster
from cluster_kit.errors import ClusterKitError
from cluster_kit.supervisor import Supervisor


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
    worker = Worker(Workload(cluster, _report, lambda: os._exit(DIED)))
    cluster.telemetry.subscribe(worker.observe)
    await worker.workload.prepare()
    worker.listen()
    unfinished = await cluster.run_until_signal()
    await worker.workload.close()
    worker.workload.note("stopped", ",".join(unfinished))


class Worker:
    """Does what the process says that started this one."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._supervisor = Supervisor()
        self._severing: asyncio.Task[None] | None = None

    def observe(self, event: str, _fields: Mapping[str, object]) -> None:
        """Report that the cluster is started."""
        if event == "cluster.started":
            self.workload.note("started")

    def listen(self) -> None:
        """Read orders in a thread; stop this process when nobody is there to report to."""
        loop = asyncio.get_running_loop()

        def listen() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(self._obey, json.loads(line))
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=listen, name="orders", daemon=True).start()

    def _obey(self, told: dict[str, Any]) -> None:
        if told["order"] == CUT:
            sever()
            self._severing = self._supervisor.spawn(keep_severed(), name="keep severed")
            self.workload.note("cut")
        elif told["order"] == MEND and self._severing is not None:
            self._severing.cancel()
            self._supervisor.spawn(self.workload.note_mended(), name="mend")
        else:
            self.workload.obey(told["order"], told["about"])


def _report(event: Event) -> None:
    sys.stdout.write(f"{event.line()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
