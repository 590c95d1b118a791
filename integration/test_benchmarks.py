from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(180)  # seconds; it takes about 10
def test_every_peer_can_still_be_measured(rabbitmq: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [
        *(sys.executable, "benchmarks/run.py", "--url", rabbitmq, "--json", str(figures)),
        *("--rounds", "1", "--messages", "60", "--serial", "5", "--delays", "2,0.2"),
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    peers = {path.stem for path in (ROOT / "benchmarks" / "peers").glob("*.py")}
    results = json.loads(figures.read_text())
    assert {workload: set(rounds) for workload, rounds in results["rates"].items()} == {
        "publish-serial": peers,
        "publish-256": peers,
        "consume-64": peers,
    }
    [waits] = results["delays"]["cluster_kit"]
    assert waits["order"] == [0.2, 2.0]
    assert min(waits["late"].values()) >= 0
