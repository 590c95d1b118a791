"""Worker processes: started, killed, drained."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from asyncio.subprocess import Process
from pathlib import Path
from typing import Self

from cluster_kit.testing.waiting import eventually
from integration.load.journal import path_of

_START_SECONDS = 60.0
_END_SECONDS = 60.0


class Fleet:
    """The workers of one application. Their journals and logs are in `folder`.

    Args:
        folder: for what they write.
        url: of the broker.
        app: name of the application.
        concurrency: tasks a worker runs at a time.
        environment: further variables, for settings.
    """

    def __init__(
        self,
        folder: Path,
        url: str,
        app: str,
        *,
        concurrency: int,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._folder = folder
        self._concurrency = concurrency
        self._environment = {
            **os.environ,
            **(environment or {}),
            "CLUSTER_KIT_APP": app,
            "CLUSTER_KIT_EVENT_QUEUE__URL": url,
        }
        self._numbers = itertools.count()
        self.running: dict[str, Process] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in tuple(self.running):
            await self.kill(name)

    async def start(self) -> str:
        """Start one more worker and return its name; it may not be connected yet."""
        name = f"worker-{next(self._numbers)}"
        command = [
            *(sys.executable, "-m", "integration.load.worker"),
            *("--journal", str(path_of(self._folder, name))),
            *("--concurrency", str(self._concurrency)),
        ]
        with (self._folder / f"{name}.log").open("wb") as log:
            self.running[name] = await asyncio.create_subprocess_exec(
                *command,
                env={**self._environment, "CLUSTER_KIT_INSTANCE_ID": name},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return name

    async def ready(self, name: str) -> None:
        """Wait until a worker takes tasks."""

        def started() -> bool:
            if self.running[name].returncode is not None:
                raise RuntimeError(f"{name} did not start:\n{self.said(name)}")
            path = path_of(self._folder, name)
            return path.exists() and "\tcluster.started\t" in path.read_text()

        await eventually(started, timeout=_START_SECONDS, interval=0.1)

    async def kill(self, name: str) -> None:
        """End a worker without any warning."""
        process = self.running.pop(name)
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def drain(self, name: str) -> int:
        """Ask a worker to finish what it runs and end; return its exit code."""
        process = self.running.pop(name)
        if process.returncode is not None:
            raise AssertionError(f"{name} had ended by itself:\n{self.said(name)}")
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_SECONDS):
                return await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"{name} did not end after SIGTERM:\n{self.said(name)}") from None

    async def wait(self, name: str) -> int:
        """Wait until a worker ends by itself and return its exit code."""
        code = await self.running[name].wait()
        del self.running[name]
        return code

    def said(self, name: str) -> str:
        """Return the end of a worker's log."""
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]
