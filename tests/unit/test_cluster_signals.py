from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from cluster_kit import Cluster, Plugin, Settings
from cluster_kit.errors import PluginFailedError
from cluster_kit.signals import ending_signals
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.waiting import eventually

pytestmark = pytest.mark.asyncio

PROGRAM = """
from __future__ import annotations
import asyncio, os, time
from cluster_kit import Cluster, Plugin

class Worker(Plugin):
    name = "worker"

    async def load(self) -> None:
        self.cluster.event_queue.subscribe("work", self.work)

    async def after_start(self) -> None:
        await self.cluster.event_queue.publish("work", 1, message_id="the-task")

    async def work(self, payload: int) -> None:
        print("working", flush=True)
        time.sleep(float(os.environ["BLOCKED"]))
        await asyncio.sleep(60)

    async def before_stop(self) -> None:
        print("before_stop", flush=True)

async def main() -> None:
    print("unfinished", await Cluster("shop", plugins=[Worker]).run_until_signal(), flush=True)

asyncio.run(main())
"""
NUMBERS = [signal.SIGTERM, signal.SIGINT]


@asynccontextmanager
async def program(drain_timeout: float, blocked: float = 0) -> AsyncGenerator[Process]:
    """Run the program above in a process of its own, up to the point where its task runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM),
        env={"CLUSTER_KIT_DRAIN_TIMEOUT": str(drain_timeout), "BLOCKED": str(blocked)},
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(40):
            assert await line(process) == "working"
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_a_process_ends_well_after_a_signal_and_tells_what_was_cut_short() -> None:
    async with program(drain_timeout=0) as process:
        process.send_signal(signal.SIGINT)

        assert await line(process) == "before_stop"
        assert await line(process) == "unfinished ['the-task']"
        assert await process.wait() == 0


async def test_a_second_signal_ends_the_process_at_once() -> None:
    async with program(drain_timeout=60) as process:
        # Signals of one kind that come together are one: sent again until it is felt.
        while process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)  # the process's own way would reap it itself
            try:
                async with asyncio.timeout(0.05):
                    await process.wait()
            except TimeoutError:
                continue

        assert process.returncode == -signal.SIGTERM
        assert await line(process) == ""


async def test_a_second_signal_ends_a_process_whose_loop_is_blocked() -> None:
    async with program(drain_timeout=60, blocked=600) as process:
        os.kill(process.pid, signal.SIGTERM)
        while process.returncode is None:
            os.kill(process.pid, signal.SIGINT)
            try:
                async with asyncio.timeout(0.05):
                    await process.wait()
            except TimeoutError:
                continue

        assert process.returncode == -signal.SIGINT
        assert process.stderr is not None
        assert b"second signal: ended at once" in await process.stderr.read()


@pytest.mark.parametrize("blocked", [0, 1])
@pytest.mark.parametrize("second", NUMBERS)
async def test_signals_of_one_stop_are_one(blocked: float, second: signal.Signals) -> None:
    async with program(drain_timeout=1, blocked=blocked) as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(second)

        assert await line(process) == "before_stop"
        assert await line(process) == "unfinished ['the-task']"
        assert await process.wait() == 0


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_signal_lets_running_tasks_finish(number: signal.Signals) -> None:
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    cluster = Cluster("shop", settings=Settings())
    cluster.event_queue.subscribe("work", recorder.handle)
    stopped = asyncio.create_task(cluster.run_until_signal())
    await eventually(lambda: cluster.health()["ready"])
    await cluster.event_queue.publish("work", 1)
    await recorder.started()

    os.kill(os.getpid(), number)
    gate.set()

    async with asyncio.timeout(20):
        assert await stopped == []
    assert recorder.runs[0].error is None
    assert cluster.health()["status"] == "down"


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_signal_during_start_is_not_missed(number: signal.Signals) -> None:
    class Asks(Plugin):
        name = "asks"

        async def load(self) -> None:
            os.kill(os.getpid(), number)

    cluster = Cluster("shop", plugins=[Asks], settings=Settings())

    async with asyncio.timeout(20):
        assert await cluster.run_until_signal() == []
    assert cluster.health()["status"] == "down"


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_signal_ends_a_start_that_hangs(number: signal.Signals) -> None:
    class Hangs(Plugin):
        name = "hangs"

        async def load(self) -> None:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    cluster = Cluster("shop", plugins=[Hangs], settings=Settings())
    task = asyncio.current_task()

    async with asyncio.timeout(20):
        assert await cluster.run_until_signal() == []
    assert cluster.health()["status"] == "down"
    assert task is not None
    assert task.cancelling() == 0


async def test_a_failed_start_leaves_with_its_error_and_without_signal_handlers() -> None:
    class Fails(Plugin):
        name = "fails"

        async def load(self) -> None:
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            raise LookupError

    cluster = Cluster("shop", plugins=[Fails], settings=Settings())

    with pytest.raises(PluginFailedError):
        await cluster.run_until_signal()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_handler_of_the_loop_leaves_the_default_not_a_deaf_process(
    number: signal.Signals,
) -> None:
    asyncio.get_running_loop().add_signal_handler(number, print)

    with ending_signals(lambda: None):
        pass

    default = signal.SIG_DFL if number is signal.SIGTERM else signal.default_int_handler
    assert signal.getsignal(number) is default


@pytest.mark.parametrize("number", NUMBERS)
async def test_a_handler_of_a_function_is_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    signal.signal(number, own := lambda number, frame: None)
    try:
        with ending_signals(lambda: None):
            assert signal.getsignal(number) is not own

        assert signal.getsignal(number) is own
    finally:
        signal.signal(number, before)


async def test_a_handler_set_in_c_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # what is said of such

    with ending_signals(lambda: None):
        pass


async def test_being_cancelled_stops_like_a_signal() -> None:
    cluster = Cluster("shop", settings=Settings())
    running = asyncio.create_task(cluster.run_until_signal())
    await eventually(lambda: cluster.health()["ready"])
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert cluster.health()["status"] == "down"
