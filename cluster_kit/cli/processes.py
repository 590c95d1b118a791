"""Keeps worker processes running: starts them, restarts dead ones, stops them together."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence

from cluster_kit.cli.lifeline import STOP_MARGIN, Report
from cluster_kit.cli.reporting import WRONG_USE, say
from cluster_kit.loops import set_within
from cluster_kit.signals import SAME_STOP

MOST_FAILED_STARTS = 3
"""Ends before being ready, in a row, after which the pool is given up, if it never worked."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds before a dead worker is restarted; each pause doubles."""

HEALTHY_AGE = 60.0
"""Seconds of life after which a worker's death counts as the first again."""

LAST_WORDS = 1.0
"""Seconds in which what an ended worker had said is read; a child of its may hold the line."""

HURRY = "a second signal kills the workers at once, and what they run is delivered again"
"""What the first signal is answered with."""

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Worker:
    """One process."""

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, ours: socket.socket
    ) -> None:
        self.number = number
        self.process = process
        self.report = Report()
        self._ours = ours
        self._started = asyncio.get_running_loop().time()
        self._asked = asyncio.Event()

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"

    @property
    def asked(self) -> bool:
        """Whether it was told to stop."""
        return self._asked.is_set()

    @property
    def healthy(self) -> bool:
        """Whether it has lived long."""
        return asyncio.get_running_loop().time() - self._started > HEALTHY_AGE

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._asked.set()
        if self.process.returncode is None:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the end and return the exit code; kill it when its stop takes too long."""
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen())
            killing = group.create_task(self._kill_late())
            code = await self.process.wait()
            killing.cancel()
            await asyncio.wait({listening}, timeout=LAST_WORDS)
            listening.cancel()
        return code

    def drained(self, code: int) -> bool:
        """Whether exit `code`, after being told to stop, left no task behind."""
        return code == 0 or (not self.report.ready and -code in STOP_SIGNALS)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_connection(sock=self._ours)
        try:
            async for line in reader:
                if line.endswith(b"\n"):  # else it was killed while it wrote
                    self.report = Report.parse(line)
        except (ValueError, TypeError, OSError) as exc:
            say(f"{self} reports what cannot be read: {exc}")
        finally:
            writer.close()

    async def _kill_late(self) -> None:
        await self._asked.wait()
        await asyncio.sleep(self.report.stop_seconds + STOP_MARGIN)
        say(f"{self} does not stop and is killed")
        self.process.kill()


class Pool:
    """A number of workers that run the same command.

    Attributes:
        misused: it was given up because a worker refused to run as it was told to.

    Args:
        command: of a worker; ``--lifeline FD`` is appended.
        environments: of each worker; as many as there are workers.
        patient: a worker that cannot start waits for `restart` instead of ending the pool.
        first_pause: seconds before a dead worker is restarted for the first time.
    """

    def __init__(
        self,
        command: Sequence[str],
        environments: Sequence[dict[str, str]],
        *,
        patient: bool = False,
        first_pause: float = FIRST_PAUSE,
    ) -> None:
        self._command = tuple(command)
        self._environments = environments
        self._patient = patient
        self._first_pause = first_pause
        self._workers: set[Worker] = set()
        self._stopping = asyncio.Event()
        self._signalled_at: float | None = None
        self._changed = asyncio.Event()
        self._worked = False
        self._failed = False
        self._refusals: set[str] = set()
        self.misused: bool = False

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT; return whether every worker drained completely.

        A second signal kills what is left; one within `SAME_STOP` seconds of the first is none.
        """
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(self._environments)):
                    group.create_task(self._keep(index))
        finally:
            for number in STOP_SIGNALS:
                loop.remove_signal_handler(number)
        return not self._failed

    def restart(self) -> None:
        """Drain every worker and start it anew."""
        self._changed.set()
        self._refusals.clear()
        for worker in self._workers:
            worker.send(signal.SIGTERM)

    def _signalled(self, number: int) -> None:
        now = asyncio.get_running_loop().time()
        again = self._signalled_at is not None
        if self._signalled_at is None:
            self._signalled_at = now
        elif now - self._signalled_at <= SAME_STOP:
            return
        name = signal.Signals(number).name
        say(f"{name} again: workers are killed" if again else f"stopping on {name}; {HURRY}")
        self._stop(signal.SIGKILL if again else number)

    def _stop(self, number: int) -> None:
        self._stopping.set()
        self._changed.set()
        for worker in self._workers:
            worker.send(number)

    async def _keep(self, number: int) -> None:
        pause, failed_starts = self._first_pause, 0
        while not self._stopping.is_set():
            self._changed.clear()
            worker = await self._start(number)
            code = await worker.ended()
            self._workers.discard(worker)
            if worker.asked:
                self._failed |= self._stopping.is_set() and not worker.drained(code)
                continue
            failed_starts = 0 if worker.report.ready else failed_starts + 1
            self._worked |= worker.report.ready or any(w.report.ready for w in self._workers)
            pause = self._first_pause if worker.healthy else pause
            await self._after_death(worker, code, failed_starts, pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _after_death(
        self, worker: Worker, code: int, failed_starts: int, pause: float
    ) -> None:
        refusal = worker.report.refusal
        self._pass_on(refusal)
        how = f"{worker} ended {_how(code)}"
        if failed_starts and self._patient:
            say(f"{how}; waiting for a change")
            await self._changed.wait()
        elif failed_starts and (refusal or code == WRONG_USE) and not self._worked:
            self.misused = bool(refusal) and code == WRONG_USE
            self._give_up("" if refusal else how)
        elif failed_starts >= MOST_FAILED_STARTS and not self._worked:
            self._give_up(f"{how}, {failed_starts} times in a row before it was ready")
        else:
            say(f"{how}; starting another in {pause:g} s")
            await set_within(self._changed, pause)

    def _pass_on(self, refusal: str) -> None:
        """Say once what all workers say."""
        if refusal and refusal not in self._refusals:
            self._refusals.add(refusal)
            say(refusal)

    def _give_up(self, why: str) -> None:
        if why and not self._failed:
            say(f"{why}; giving up")
        self._failed = True
        self._stop(signal.SIGTERM)

    async def _start(self, number: int) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--lifeline",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environments[number],
                # A group of its own: Ctrl-C goes to this process alone, which passes it on once.
                process_group=0,
            )
        worker = Worker(number + 1, process, ours)
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.send(signal.SIGTERM)
        return worker


def child_environments(count: int, instance_id: str | None) -> list[dict[str, str]]:
    """Return the environment of each worker; an instance id that is set becomes one for each."""
    name = "CLUSTER_KIT_INSTANCE_ID"
    if instance_id is None or count == 1:
        return [dict(os.environ) for _ in range(count)]
    return [{**os.environ, name: f"{instance_id}-{number + 1}"} for number in range(count)]


def _how(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
