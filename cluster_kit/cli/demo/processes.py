"""Instances as operating-system processes, on a real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

from cluster_kit.cli.demo.journal import BrokenPromise, Event
from cluster_kit.supervisor import Supervisor

if TYPE_CHECKING:
    from cluster_kit.cli.demo.journal import Journal

DIED = 99
"""Exit code of an instance whose task took it down."""

CUT, MEND = "cut", "mend"
"""Orders that concern the connections of the process."""

COMMAND = (sys.executable, "-m", "cluster_kit.cli.demo.worker")


class ProcessInstance:
    """An instance that dies by SIGKILL. It reports on its standard output, a line an event."""

    def __init__(self, url: str, name: str, journal: Journal) -> None:
        self.name = name
        self._url = url
        self._journal = journal
        self._supervisor = Supervisor()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process."""
        pipe = asyncio.subprocess.PIPE
        # A group of its own, so that Ctrl-C reaches this process alone, which ends the others.
        self._process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=pipe, stdout=pipe, process_group=0
        )
        # Through the pipe: the URL has a password, and others can read command lines.
        self._tell({"url": self._url, "name": self.name})
        if self._process.stdout is not None:
            work = self._read(self._process.stdout)
            self._reading = self._supervisor.spawn(work, name=f"read:{self.name}")

    async def stop(self) -> None:
        """Drain it, as an orchestrator would."""
        self._running().send_signal(signal.SIGTERM)

    async def crash(self) -> None:
        """Kill it."""
        self._running().kill()

    async def died(self) -> bool:
        """Whether the process ended by itself."""
        if self._process is None:
            return False
        try:
            async with asyncio.timeout(self._journal.patience):
                return await self._process.wait() == DIED
        except TimeoutError:
            return False

    def tell(self, order: str, **about: object) -> None:
        """Have it do something."""
        self._tell({"order": order, "about": about})

    async def cut(self) -> None:
        """Let it shut down its connections, new ones too."""
        self.tell(CUT)

    async def mend(self) -> None:
        """Let it connect again."""
        self.tell(MEND)

    async def close(self) -> None:
        """Kill it, unless it has ended."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._reading is not None:
            await self._reading

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            raise BrokenPromise(f"{self.name} ended by itself")
        return self._process

    def _tell(self, what: object) -> None:
        stdin = self._running().stdin
        if stdin is not None:
            stdin.write(json.dumps(what).encode() + b"\n")

    async def _read(self, stdout: asyncio.StreamReader) -> None:
        async for line in stdout:
            self._journal.add(Event.parse(line.decode()))
