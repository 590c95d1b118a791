"""Measures a cache once, in a fresh process, and prints it as one line of JSON.

``python -m benchmarks.cache WORKLOAD OPTIONS``; OPTIONS is a JSON object. `run` does it with all
contenders, round by round; that is what ``benchmarks/run.py`` calls. What is in the process is
measured in a fresh process for each of them. On Redis all share one and take turns of a hundred
calls: what else the machine does, and how fast it is just now, meets all of them. The processor
time of a turn is that of the process, with what the others do in the background.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.cache_contenders import CONTENDERS, Calls, installed
from benchmarks.figures import OWN
from benchmarks.measure import memory

Call = Callable[[], Awaitable[object]]
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
_TURN = 100  # calls


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePlan:
    """How much is measured.

    Attributes:
        redis: URL of a Redis; None measures in the process alone.
        hits: of values in the process, five times for each kind of value.
        calls: of Redis by each, set and get.
        sets: values set one after the other, each under another key, before memory is looked at.
    """

    redis: str | None
    hits: int = 20_000
    calls: int = 5_000
    sets: int = 10_000_000


def run(plan: CachePlan, rounds: int, say: Callable[[str], None]) -> Samples:
    """Measure all that is installed once a round, in turning order."""
    names, samples = installed(), Samples()
    for number in range(rounds):
        turned = [*names[number % len(names) :], *names[: number % len(names)]]
        for name in turned:
            say(f"round {number + 1}: cache {name}")
            found = _in_a_process("hits", name=name, hits=plan.hits)
            samples.setdefault(HITS, {}).setdefault(name, []).append(found)
        if plan.redis is not None:
            say(f"round {number + 1}: caches on Redis")
            together = [name for name in turned if CONTENDERS[name].on_redis is not None]
            all_found = _in_a_process("redis", names=together, url=plan.redis, calls=plan.calls)
            for name, workload in itertools.product(together, (SET, GET)):
                samples.setdefault(workload, {}).setdefault(name, []).append(all_found[name])
    say(f"{plan.sets:,} sets")
    samples[SETS] = {OWN: [_in_a_process("sets", name=OWN, count=plan.sets)]}
    return {workload: _in_order(found) for workload, found in samples.items()}


def _in_order(samples: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    return {name: samples[name] for name in CONTENDERS if name in samples}


def _in_a_process(workload: str, **options: object) -> Any:  # noqa: ANN401 - what it prints
    command = [sys.executable, "-m", "benchmarks.cache", workload, json.dumps(options)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


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


async def redis(names: Sequence[str], *, url: str, calls: int) -> dict[str, Sample]:
    """Set and get an object on Redis, each contender in its turn."""
    async with AsyncExitStack() as stack:
        sets, gets = dict[str, Call](), dict[str, Call]()
        for name in names:
            opens = CONTENDERS[name].on_redis
            assert opens is not None
            get, put = await stack.enter_async_context(opens(url))
            sets[name], gets[name] = partial(put, name, VALUES["object"]), partial(get, name)
        taken = await _in_turns("set", sets, calls)
        for look in gets.values():
            assert await look() == VALUES["object"]
        got = await _in_turns("get", gets, calls)
        return {name: taken[name] | got[name] for name in names}


async def _in_turns(what: str, of: Mapping[str, Call], count: int) -> dict[str, Sample]:
    """Return microseconds of a call, as `_times`, the median of all turns."""
    turns: dict[str, list[Sample]] = {name: [] for name in of}
    order = list(of)
    for number in range(max(1, count // _TURN)):
        for name in (*order[number % len(order) :], *order[: number % len(order)]):
            turns[name].append(await _timed(what, of[name], min(count, _TURN)))
    return {
        name: {unit: statistics.median(turn[unit] for turn in found) for unit in found[0]}
        for name, found in turns.items()
    }


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


async def _times(what: str, call: Call, count: int) -> Sample:
    """Return microseconds of a call: of the processor and by the clock, the least of several."""
    samples = [await _timed(what, call, count) for _ in range(_REPEATED)]
    return {unit: min(sample[unit] for sample in samples) for unit in samples[0]}


async def _timed(what: str, call: Call, count: int) -> Sample:
    worked, began = time.process_time(), time.perf_counter()
    for _ in range(count):
        await call()
    worked, passed = time.process_time() - worked, time.perf_counter() - began
    return {f"{what}.cpu": worked / count * 1e6, f"{what}.wall": passed / count * 1e6}


WORKLOADS: dict[str, Callable[..., Awaitable[object]]] = {
    "hits": hits,
    "redis": redis,
    "sets": sets,
}


def main(words: Sequence[str]) -> None:
    """Measure and print."""
    workload, options = words
    warnings.simplefilter("ignore")  # what drivers say of their own calls

    async def measure() -> object:
        return await WORKLOADS[workload](**json.loads(options))

    print(json.dumps(asyncio.run(measure())))


if __name__ == "__main__":
    main(sys.argv[1:])
