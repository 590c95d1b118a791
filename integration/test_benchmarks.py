from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from pamqp import commands, frame

from benchmarks import payload
from benchmarks.document import BEGIN, CACHE_BEGIN, CACHE_END, END
from benchmarks.figures import Spread, ratio, spread
from benchmarks.measure import Tally
from benchmarks.peer import AgainError
from benchmarks.peers.raw_socket import Confirms

ROOT = Path(__file__).resolve().parents[1]
HERE = ["aio_pika_raw", "cluster_kit", "raw_socket"]  # what the development environment has
IN_PLACE = "cluster_kit_in_place"  # measured where its retries are


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; it takes about 40
def test_what_needs_no_other_library_can_still_be_measured(
    rabbitmq: str, redis: str, tmp_path: Path
) -> None:
    figures, document = tmp_path / "figures.json", tmp_path / "benchmarks.md"
    caches = f"{CACHE_BEGIN}old\n{CACHE_END}"
    document.write_text(f"before\n{BEGIN}old\n{END}between\n{caches}after\n")
    command = [
        *(sys.executable, "benchmarks/run.py", "--url", rabbitmq, "--rounds", "1"),
        *("--seconds", "0.02", "--paced", "40", "--memory", "50", "--peers", *HERE, IN_PLACE),
        *("--redis-url", redis, "--hits", "2000", "--calls", "100", "--sets", "2000"),
        *("--json", str(figures), "--document", str(document)),
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(figures.read_text())
    samples = measured["tasks"]["samples"]
    assert {name: sorted(peers) for name, peers in samples.items()} == {
        "serial": HERE,
        "bulk": HERE,
        "retry": [*HERE[:2], IN_PLACE],
        "latency": HERE,
        "start": HERE,
        "delays": ["cluster_kit"],
        "memory": ["cluster_kit"],
    }
    [waits] = samples["delays"]["cluster_kit"]
    assert (waits["delays.early"], waits["delays.in_queue"], waits["delays.disorder"]) == (0, 0, 0)
    assert all(sample["publish.rate"] > 0 for [sample] in samples["bulk"].values())
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}")
    assert f"{END}between\n{CACHE_BEGIN}" in text
    assert text.endswith(f"{CACHE_END}after\n")
    cached = measured["caches"]["samples"]
    assert set(cached) == {"cache.hit", "cache.set", "cache.get", "cache.memory"}
    for workload in ("cache.hit", "cache.set", "cache.get"):
        assert {"cluster_kit", "aiocache"} <= set(cached[workload])
    [hits] = cached["cache.hit"]["cluster_kit"]
    assert 0 < hits["hit.text.cpu"] < hits["hit.object.cpu"]
    assert "old" not in text
    assert ET.fromstring(document.with_suffix(".svg").read_text()).tag.endswith("svg")


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)  # seconds; it takes about 10
def test_a_broadcast_to_many_subscribers_can_still_be_measured(rabbitmq: str) -> None:
    command = [
        *(sys.executable, "-m", "benchmarks.fan_out", "--url", rabbitmq),
        *("--messages", "50", "--paced", "50"),
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "50 messages to 8 subscribers" in done.stdout
    assert "at 200/s: p50" in done.stdout


def test_a_tally_counts_what_is_lost_and_what_comes_again() -> None:
    tally = Tally(4, failures=1)
    for number in (0, 1, 2):
        with pytest.raises(AgainError):
            tally.handle(payload.make(number))
    for number in (0, 1, 1):
        tally.handle(payload.make(number))

    found = tally.figures()

    assert (tally.finished, found["lost"], found["again"]) == (False, 2, 1)


@pytest.mark.parametrize("size", [1, 7, 21, 1000])
def test_the_limit_counts_confirms_in_any_order_and_in_any_pieces(size: int) -> None:
    told = [(1, False), (3, False), (2, True), (6, False), (5, True)]
    frames = b"".join(frame.marshal(commands.Basic.Ack(tag, many), 1) for tag, many in told)
    confirms, counts = Confirms(), [0]

    for at in range(0, len(frames), size):
        confirms.feed(frames[at : at + size])
        counts.append(confirms.count)

    assert counts == sorted(counts)
    assert counts[-1] == 6


def test_a_ratio_is_one_of_rounds() -> None:
    rounds = {
        "slow": [{"x.rate": 1.0}, {"x.rate": 10.0}],
        "fast": [{"x.rate": 3.0}, {"x.rate": 30.0}],
    }

    assert ratio(rounds, "fast", "slow", "x.rate") == 3.0
    assert spread(rounds, "slow", "x.rate") == Spread(low=1.0, middle=5.5, high=10.0)
    assert spread(rounds, "slow", "x.cpu") is None


def test_every_payload_is_equally_long() -> None:
    lengths = {len(json.dumps(payload.make(n), separators=(",", ":"))) for n in (0, 7, 999_999)}

    assert lengths == {288}


@pytest.mark.slow
def test_locks_can_be_measured_beside_those_of_the_driver(redis: str) -> None:
    command = [sys.executable, "-m", "benchmarks.locks", redis, "--sections", "32", "--rounds", "1"]

    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(done.stdout)
    assert measured["server"] == "redis"
    assert {"cluster-kit", "redis-py"} <= {figures["peer"] for figures in measured["alone"]}
    crowds = measured["wanted"]
    assert {figures["tasks"] for figures in crowds} == {2, 8, 32}
    assert all(0 < figures["sections"] <= 200 for figures in crowds)
    assert all(figures["longest_wait"] > figures["handover"] for figures in crowds)
