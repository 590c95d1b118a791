from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import payload
from benchmarks.document import BEGIN, END

ROOT = Path(__file__).resolve().parents[1]
HERE = ["aio_pika_raw", "cluster_kit", "raw_socket"]  # what the development environment has


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; it takes about 40
def test_what_needs_no_other_library_can_still_be_measured(rabbitmq: str, tmp_path: Path) -> None:
    figures, document = tmp_path / "figures.json", tmp_path / "benchmarks.md"
    document.write_text(f"before\n{BEGIN}old\n{END}after\n")
    command = [
        *(sys.executable, "benchmarks/run.py", "--url", rabbitmq, "--rounds", "1"),
        *("--seconds", "0.02", "--paced", "40", "--memory", "50", "--peers", *HERE),
        *("--json", str(figures), "--document", str(document)),
    ]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    samples = json.loads(figures.read_text())["samples"]
    assert {name: sorted(peers) for name, peers in samples.items()} == {
        "serial": HERE,
        "bulk": HERE,
        "retry": HERE[:2],
        "latency": HERE[:2],
        "start": HERE[:2],
        "delays": ["cluster_kit"],
        "memory": ["cluster_kit"],
    }
    [waits] = samples["delays"]["cluster_kit"]
    assert (waits["delays.early"], waits["delays.in_queue"], waits["delays.disorder"]) == (0, 0, 0)
    assert all(sample["publish.rate"] > 0 for [sample] in samples["bulk"].values())
    text = document.read_text()
    assert text.startswith(f"before\n{BEGIN}")
    assert text.endswith(f"{END}after\n")
    assert "old" not in text
    assert ET.fromstring(document.with_suffix(".svg").read_text()).tag.endswith("svg")


def test_every_payload_is_equally_long() -> None:
    lengths = {len(json.dumps(payload.make(n), separators=(",", ":"))) for n in (0, 7, 999_999)}

    assert lengths == {288}
