"""Measures a cache once, in a fresh process, and prints it as one line of JSON.

``python -m benchmarks.cache CONTENDER WORKLOAD OPTIONS``; OPTIONS is a JSON object. `run` does it
with all contenders, round by round; that is what ``benchmarks/run.py`` calls.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.cache_contenders import CONTENDERS, Calls, installed
from benchmarks.figures import OWN
from benchmarks.measure import memory

Sample = dict[str, float]
Samples = dict[str, dict[str, list[Sample]]]

VALUES: dict[str, object] = {
    "object": {
        "id": 17,
        "name": "Ada Lovelace",
        "roles": ["admin", "editor"],
        "profile": {"lang": "en", "tz": "UTC", "age": 36},
        "active": True,
        "score": 3.5,
    },
    "flat": {"a": 1, "b": 2},
    "text": "Ada",
}

HITS, SET, GET, SETS = "cache.hit", "cache.set", "cache.get", "cache.memory"

_REPEATED = 5  # of which the least counts: what else the machine does only adds


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """How much is measured.

    Attributes:
        redis: URL of a Redis; None measures in the process alone.
        hits: of values in the process, five times for each kind of value.
        calls: of Redis, five times.
        sets: values set one after the other, each under another key, before memory is looked at.
    """

    redis: str | None
    hits: int = 20_000
    calls: int = 1_000
    sets: int = 10_000_000


def run(plan: CachePlan, rounds: int, say: Callable[[str], None]) -> Samples:
    """Measure all that is installed once a round, in turning order."""
    names, samples = installed(), Samples()
    for number in range(rounds):
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            say(f"round {number + 1}: cache {name}")
            found = _in_a_process(name, "hits", hits=plan.hits)
            samples.setdefault(HITS, {}).setdefault(name, []).append(found)
            if plan.redis is not None and CONTENDERS[name].on_redis is not None:
                found = _in_a_process(name, "redis", url=plan.redis, calls=plan.calls)
                for workload in (SET, GET):
                    samples.setdefault(workload, {}).setdefault(name, []).append(found)
    say(f"{plan.sets:,} sets")
    samples[SETS] = {OWN: [_in_a_process(OWN, "sets", count=plan.sets)]}
    return {workload: _in_order(found) for workload, found in samples.items()}


def _in_order(samples: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    return {name: samples[name] for name in CONTENDERS if name in samples}


def _in_a_process(*words: str, **options: object) -> Sample:
    command = [sys.executable, "-m", "benchmarks.cache", *words, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: Sample = json.loads(done.stdout)
    return found


# --- in the process that measures -----------------------------------------------------------------


async def hits(name: str, *, hits: int) -> Sample:
    """Get values that are in this process."""
    sample: Sample = {}
    async with CONTENDERS[name].in_process() as (get, put):
        for kind, value in VALUES.items():
            await put(kind, value)
            assert await get(kind) == value
            sample |= await _times(f"hit.{kind}", partial(get, kind), hits)
    return sample


async def redis(name: str, *, url: str, calls: int) -> Sample:
    """Set and get an object on Redis."""
    opens = CONTENDERS[name].on_redis
    assert opens is not None
    async with opens(url) as (get, put):
        sample = await _times("set", lambda: put("key", VALUES["object"]), calls)
        assert await get("key") == VALUES["object"]
        return sample | await _times("get", lambda: get("key"), calls)


async def sets(name: str, *, count: int) -> Sample:
    """Set so many values, each under another key, and look at the memory."""
    async with CONTENDERS[name].in_process() as calls:
        await _set(calls, 0, count // 10)
        tenth = _resident()
        await _set(calls, count // 10, count)
        return {"memory.tenth": tenth, "memory.all": _resident(), "memory.sets": count}


async def _set(calls: Calls, start: int, end: int) -> None:
    _, put = calls
    for number in range(start, end):
        await put(f"key-{number}", VALUES["object"])


def _resident() -> float:
    gc.collect()
    return memory().get("rss", 0.0)


async def _times(what: str, call: Callable[[], Awaitable[object]], count: int) -> Sample:
    """Return microseconds of a call: of the processor and by the clock, the least of several."""
    cpu, wall = [], []
    for _ in range(_REPEATED):
        worked, began = time.process_time(), time.perf_counter()
        for _ in range(count):
            await call()
        cpu.append(time.process_time() - worked)
        wall.append(time.perf_counter() - began)
    return {f"{what}.cpu": min(cpu) / count * 1e6, f"{what}.wall": min(wall) / count * 1e6}


WORKLOADS: dict[str, Callable[..., Awaitable[Sample]]] = {
    "hits": hits,
    "redis": redis,
    "sets": sets,
}


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    name, workload, options = words
    warnings.simplefilter("ignore")  # what drivers say of their own calls

    async def measure() -> Sample:
        return await WORKLOADS[workload](name, **json.loads(options))

    print(json.dumps(asyncio.run(measure())))


if __name__ == "__main__":
    main(sys.argv[1:])
