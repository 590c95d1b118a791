"""Measures one thing once, in a fresh process, and prints it as one line of JSON.

``python -m benchmarks.child rate PEER WORKLOAD QUEUE COUNT`` or ``… delays PEER QUEUE SECONDS,…``.
The URL is in ``BENCHMARK_URL``: a command line is seen by everybody.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys

from benchmarks.peer import load
from benchmarks.workloads import WORKLOADS, Measurement, Waits, delays


async def rate(url: str, peer: str, workload: str, queue: str, count: str) -> Measurement:
    """Measure a rate."""
    return await WORKLOADS[workload].measure(load(peer), url, queue, int(count))


async def waits(url: str, peer: str, queue: str, seconds: str) -> Waits | None:
    """Measure delays; None when the peer has none."""
    try:
        return await delays(load(peer), url, queue, seconds=[float(s) for s in seconds.split(",")])
    except NotImplementedError:
        return None


async def measure(what: str, *arguments: str) -> Measurement | Waits | None:
    """Measure what the command line says."""
    url = os.environ["BENCHMARK_URL"]
    return await (rate(url, *arguments) if what == "rate" else waits(url, *arguments))


def main() -> None:
    """Measure and print."""
    result = asyncio.run(measure(*sys.argv[1:]))
    print(json.dumps(None if result is None else dataclasses.asdict(result)))


if __name__ == "__main__":
    main()
