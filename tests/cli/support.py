"""Runs the command line: in this process, or as a program."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cluster_kit.cli.app import app
from cluster_kit.cluster import Cluster
from cluster_kit.settings import Settings

PATIENCE = 30.0


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


def run_command(*arguments: str, stdin: str | bytes | None = None) -> Outcome:
    result = CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)
    return Outcome(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Broker:
    """A broker at `url`, and the application called shop on it."""

    url: str

    def command(self, *arguments: str, stdin: str | bytes | None = None) -> Outcome:
        return run_command(*arguments, "--url", self.url, "--app", "shop", stdin=stdin)

    def work(self, work: Callable[[Cluster], Awaitable[None]]) -> None:
        asyncio.run(self._work(work))

    async def _work(self, work: Callable[[Cluster], Awaitable[None]]) -> None:
        settings = Settings(
            event_queue={"url": self.url, "retry": {"initial_delay": 0, "jitter": 0}}
        )
        async with Cluster("shop", settings=settings) as cluster:
            await work(cluster)


class Program:
    """``python -m cluster_kit ...`` as a process."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str]) -> None:
        self._outputs = (folder / "out", folder / "err")
        with self._outputs[0].open("w") as out, self._outputs[1].open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cluster_kit", *arguments],
                cwd=folder.parent,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        return self._outputs[0].read_text()

    @property
    def err(self) -> str:
        return self._outputs[1].read_text()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def until(self, text: str, times: int = 1) -> None:
        """Wait until `text` was written so often, to either output."""

        def written() -> bool:
            return (self.out + self.err).count(text) >= times

        eventually(lambda: written() or self.process.poll() is not None)
        assert written(), (self.process.returncode, self.out, self.err)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def eventually(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process_id: int) -> bool:
    """Whether a process runs; one that nobody has buried yet does not."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


APPLICATION = """
from __future__ import annotations

import asyncio
import os

from cluster_kit import Cluster, Plugin, Settings
from cluster_kit.ports import AdapterSpec


def say(*words: object) -> None:
    # In one piece: several processes write to one output.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())


class Shop(Plugin):
    name = "shop"

    async def load(self) -> None:
        self.cluster.event_queue.subscribe("nap", self.nap)
        self.cluster.event_queue.subscribe("stubborn", self.stubborn)

    async def after_start(self) -> None:
        if channel := os.environ.get("CHANNEL"):
            await self.cluster.event_queue.publish(channel, 1, message_id="task-1", timeout=600)
        say("serving", os.getpid(), self.cluster.instance_id)

    async def nap(self, seconds: object) -> None:
        say("napping")
        await asyncio.sleep(float(os.environ.get("NAP", "0.5")))
        say("woke up")

    async def stubborn(self, payload: object) -> None:
        say("napping")
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                say("no")


settings = Settings(
    drain_timeout=float(os.environ.get("DRAIN", "10")), event_queue={"cancel_grace": 0.2}
)
cluster = Cluster("shop", plugins=[Shop], settings=settings)


def make() -> Cluster:
    return Cluster("made", plugins=[Shop])


def broken() -> Cluster:
    raise LookupError("no shop here")


async def late() -> Cluster:
    return cluster


number = 3


def apart(url, context, memory=cluster.registry.find("memory://").event_queue):
    # What memory does, under a scheme that counts as a broker.
    return memory("memory" + url.removeprefix("apart"), context)


cluster.registry.register(AdapterSpec(name="apart", schemes=("apart",), event_queue=apart))
"""
