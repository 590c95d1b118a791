"""Processes that relay an outbox: started, killed, replaced."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from cluster_kit.testing.waiting import eventually

_SENT_SECONDS = 60.0
_DELAY = 0.1

BATCH_SIZE = 100
"""Most messages of a turn, and so most repeats after a kill."""


@dataclass(slots=True)
class Relay:
    """One process, and the ids of which it has said that it sends them, and has settled them."""

    process: Process
    sending: set[str] = field(default_factory=set[str], repr=False)
    sent: set[str] = field(default_factory=set[str], repr=False)
    reading: asyncio.Task[None] | None = field(default=None, repr=False)


class Relays:
    """So many at a time. Their output is in `folder`.

    Attributes:
        killed: those that were killed while they sent.
    """

    def __init__(self, folder: Path, database: str, url: str, app: str, count: int) -> None:
        self.killed: list[Relay] = []
        self._folder = folder
        self._database = database
        self._environment = {
            **os.environ,
            "CLUSTER_KIT_APP": app,
            "CLUSTER_KIT_EVENT_QUEUE__URL": url,
        }
        self._count = count
        self._chance = random.Random(count)
        self._running: list[Relay] = []

    async def __aenter__(self) -> Self:
        for _ in range(self._count):
            await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for relay in self._running:
            await self._end(relay)

    def left(self) -> Counter[str]:
        """Return the ids that killed ones had begun to send and not settled, with how many had."""
        return Counter(id_ for relay in self.killed for id_ in relay.sending - relay.sent)

    async def kill_one_that_sends(self, least: int) -> None:
        """Kill one once it has sent so many messages from now on, and start another."""
        before = {id(relay): len(relay.sent) for relay in self._running}

        def busy() -> Relay | None:
            running = self._running
            found = [relay for relay in running if len(relay.sent) - before[id(relay)] >= least]
            return found[0] if found else None

        relay = await eventually(busy, timeout=_SENT_SECONDS, interval=0.001)
        assert relay is not None
        await asyncio.sleep(self._chance.uniform(0, _DELAY))  # any moment of a turn
        self._running.remove(relay)
        self.killed.append(relay)
        await self._end(relay)
        await self._start()

    @staticmethod
    async def _end(relay: Relay) -> None:
        if relay.process.returncode is None:
            relay.process.kill()
        await relay.process.wait()
        if relay.reading is not None:
            await relay.reading

    async def _start(self) -> None:
        command = (sys.executable, "-m", "integration.load.outbox_relay")
        with (self._folder / "relays.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                *("--database", self._database, "--batch-size", str(BATCH_SIZE)),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=PIPE,
                stderr=log,
            )
        relay = Relay(process)
        relay.reading = asyncio.create_task(self._read(relay))
        self._running.append(relay)

    @staticmethod
    async def _read(relay: Relay) -> None:
        assert relay.process.stdout is not None
        said = {b"sending": relay.sending, b"sent": relay.sent}
        async for line in relay.process.stdout:
            what, id_ = line.split()
            said[what].add(id_.decode())
