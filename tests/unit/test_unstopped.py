"""A process that ends without having stopped its cluster."""

from __future__ import annotations

import subprocess
import sys
from textwrap import indent

import pytest

PROGRAM = """
import asyncio, logging, os
from cluster_kit import Cluster

logging.basicConfig(format="%(levelname)s %(message)s")
cluster = Cluster("shop")

{body}
"""

ENDS = {
    "returns": "asyncio.run(cluster.start())",
    "closes its loop": """
loop = asyncio.new_event_loop()
loop.run_until_complete(cluster.start())
loop.close()
""",
}


def printed(body: str) -> str:
    program = PROGRAM.format(body=body)
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, indent(ran.stderr, "  ")
    return ran.stderr


@pytest.mark.parametrize("end", ENDS)
def test_a_cluster_that_was_not_stopped_is_told_of_once(end: str) -> None:
    lines = [line for line in printed(ENDS[end]).splitlines() if "was not stopped" in line]

    [line] = lines
    assert line.startswith("WARNING cluster shop, instance ")
    assert "async with cluster" in line


@pytest.mark.parametrize(
    "body",
    [
        "async def main():\n    async with cluster: ...\nasyncio.run(main())",
        "",
        "asyncio.run(cluster.start())\nif os.fork():\n    os.wait()\n    os._exit(0)",
    ],
    ids=["stopped", "never started", "a fork of one that was not stopped"],
)
def test_what_was_stopped_or_never_begun_is_not(body: str) -> None:
    assert printed(body) == ""
