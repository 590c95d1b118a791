from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster_kit.cli.processes import MOST_FAILED_STARTS, Pool
from cluster_kit.testing.waiting import eventually as soon
from tests.cli.support import Program, alive, eventually

Start = Callable[..., Program]

pytestmark = [pytest.mark.usefixtures("application"), pytest.mark.slow]


@pytest.fixture(autouse=True)
def broker_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory the command would refuse to start several."""
    monkeypatch.setenv("CLUSTER_KIT_EVENT_QUEUE__URL", "apart://hub")


def workers(program: Program) -> dict[int, str]:
    """Process id to instance id of every worker that said it serves."""
    return {int(pid): name for pid, name in re.findall(r"serving (\d+) (\S+)", program.out)}


def test_workers_are_processes_of_their_own_and_drain_together(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "2", CHANNEL="nap")
    pool.until("serving", times=2)
    pool.until("napping", times=2)

    pool.send(signal.SIGTERM)

    assert pool.wait() == 0
    assert pool.out.count("woke up") == 2
    assert len(workers(pool)) == 2
    assert not [pid for pid in workers(pool) if alive(pid)]


def test_a_dead_worker_is_replaced(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "2", CLUSTER_KIT_INSTANCE_ID="box")
    pool.until("serving", times=2)
    victim, name = next(iter(workers(pool).items()))

    os.kill(victim, signal.SIGKILL)
    pool.until("serving", times=3)
    pool.send(signal.SIGTERM)

    assert pool.wait() == 0
    number = name.removeprefix("box-")
    assert f"worker {number} (process {victim}) ended by SIGKILL; starting another" in pool.err
    assert sorted(workers(pool).values()) == sorted(["box-1", "box-2", name])


def test_a_worker_that_runs_out_of_time_fails_the_pool(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "1", CHANNEL="nap", NAP="600", DRAIN="0.1")
    pool.until("napping")

    pool.send(signal.SIGINT)

    assert pool.wait() == 1
    assert "cut short: task-1" in pool.err


def test_a_second_signal_kills_the_workers(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "1", CHANNEL="stubborn", DRAIN="600")
    pool.until("napping")
    pool.send(signal.SIGTERM)

    def ended() -> bool:
        pool.send(signal.SIGTERM)
        return pool.process.poll() is not None

    eventually(ended)

    assert not [pid for pid in workers(pool) if alive(pid)]


def test_two_signals_of_one_stop_let_the_workers_drain(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "1", CHANNEL="nap", NAP="1")
    pool.until("napping")

    pool.send(signal.SIGTERM)
    pool.send(signal.SIGINT)

    assert pool.wait() == 0
    assert "woke up" in pool.out
    assert "workers are killed" not in pool.err


def test_workers_end_when_the_supervising_process_is_killed(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "2")
    pool.until("serving", times=2)

    pool.send(signal.SIGKILL)

    pool.wait()
    eventually(lambda: not [pid for pid in workers(pool) if alive(pid)])


def test_workers_that_never_start_are_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    command = (sys.executable, "-S", "-c", "raise SystemExit(1)")
    pool = Pool(command, [{}, {}], first_pause=0.01)

    assert not asyncio.run(pool.run())
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].endswith("with exit code 1, 3 times in a row before it was ready; giving up")


@pytest.mark.parametrize(
    ("target", "url", "line"),
    [
        (
            "shop:cluster",
            "ampq://hub",
            "event_queue.url (CLUSTER_KIT_EVENT_QUEUE__URL): no adapter for ampq://; did you mean",
        ),
        ("shop", "apart://hub", "expected MODULE:CLUSTER, as in shop.main:cluster, not 'shop'"),
        (
            "shop:cluster",
            "memory://",
            "2 workers on memory:// would each keep their tasks; to share them set CLUSTER_KIT_",
        ),
    ],
)
def test_wrong_use_is_not_tried_again(program: Start, target: str, url: str, line: str) -> None:
    pool = program("run", target, "--workers", "2", CLUSTER_KIT_EVENT_QUEUE__URL=url)

    assert pool.wait() == 2
    assert pool.err.startswith(f"cluster-kit: {line}")
    assert len(pool.err.splitlines()) == 1


OWN = """
from cluster_kit import Cluster, Settings

cluster = Cluster("own", settings=Settings(event_queue={"url": "memory://own"}))
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("shop:cluster", "--app", "other"), "--app has no effect: shop:cluster is named 'shop'"),
        (("own:cluster", "--url", "apart://x"), "--url has no effect: own:cluster chooses memory"),
        (("shop:cluster", "--url", "ampq://x"), "--url: no adapter for ampq://; did you mean"),
    ],
)
def test_options_without_effect_are_wrong_use_of_workers_too(
    program: Start, tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    pool = program("run", *arguments, "--workers", "2")

    assert pool.wait() == 2
    assert pool.err.startswith(f"cluster-kit: {line}")
    assert len(pool.err.splitlines()) == 1


LOCKED = """
import os
from cluster_kit import Cluster
from cluster_kit.errors import ConnectError
from cluster_kit.ports import AdapterSpec

def locked(url, context):
    print("tried", flush=True)
    raise ConnectError(url, "wrong password", retryable=False)

cluster = Cluster("locked")
cluster.registry.register(AdapterSpec(name="apart", schemes=("apart",), event_queue=locked))
"""


def test_a_wrong_password_is_not_tried_again(program: Start, tmp_path: Path) -> None:
    (tmp_path / "locked.py").write_text(LOCKED)
    pool = program("run", "locked:cluster", "--workers", "2")

    assert pool.wait() == 1
    assert pool.err == (
        "cluster-kit: event_queue.url (CLUSTER_KIT_EVENT_QUEUE__URL): "
        "cannot connect to apart://hub: wrong password\n"
    )
    assert 1 <= pool.out.count("tried") <= 2


MISTAKEN = """
from cluster_kit import Cluster, Plugin

class Mistaken(Plugin):
    name = "mistaken"

    async def load(self):
        print("tried", flush=True)
        self.cluster.event_queue.subscribe("a b", print)

cluster = Cluster("mistaken", plugins=[Mistaken])
cluster.registry.register(__import__("shop").cluster.registry.find("apart://"))
"""


def test_a_mistake_in_a_hook_is_not_tried_again(program: Start, tmp_path: Path) -> None:
    (tmp_path / "mistaken.py").write_text(MISTAKEN)
    pool = program("run", "mistaken:cluster", "--workers", "2")

    assert pool.wait() == 1
    assert pool.err.count("cluster-kit: plugin 'mistaken' failed in load: InvalidNameError") == 1
    assert "starting another" not in pool.err
    assert 1 <= pool.out.count("tried") <= 2


def test_a_start_that_ends_with_that_exit_code_by_itself_is_given_up_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pool = Pool((sys.executable, "-S", "-c", "raise SystemExit(2)"), [{}, {}], first_pause=0.01)

    assert not asyncio.run(pool.run())
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("with exit code 2; giving up")
    assert not pool.misused


BROKEN = r"""
import os, signal, socket, sys
lifeline = socket.socket(fileno=int(sys.argv[-1]))
lifeline.sendall({said!r})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("said", [b'{"ready": tr', b"no report\n", b"x" * 100_000 + b"\n"])
def test_a_worker_that_reports_what_cannot_be_read_ends_no_pool(
    capsys: pytest.CaptureFixture[str], said: bytes
) -> None:
    command = (sys.executable, "-S", "-c", BROKEN.format(said=said))
    pool = Pool(command, [{}, {}], first_pause=0.01)

    assert not asyncio.run(pool.run())
    assert "giving up" in capsys.readouterr().err


WORKER = """
import os, pathlib, socket, sys, time
if not pathlib.Path("works").exists():
    sys.exit(1)
lifeline = socket.socket(fileno=int(sys.argv[-1]))
lifeline.sendall(b'{"ready": true, "stop_seconds": 1}\\n')
pathlib.Path(f"worker-{os.getpid()}").touch()
time.sleep(60)
"""


def test_a_pool_that_works_is_not_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    works, said = tmp_path / "works", ""

    def ready() -> list[int]:
        ids = [int(path.name.removeprefix("worker-")) for path in tmp_path.glob("worker-*")]
        return [process_id for process_id in ids if alive(process_id)]

    def failed_starts() -> int:
        nonlocal said
        said += capsys.readouterr().err
        return said.count("ended with exit code 1; starting another")

    async def supervise() -> bool:
        pool = Pool((sys.executable, "-S", "-c", WORKER), [{}, {}], first_pause=0.01)
        running = asyncio.create_task(pool.run())
        await soon(ready, lambda ids: len(ids) == 2)
        victim, survivor = ready()
        works.unlink()
        os.kill(victim, signal.SIGKILL)
        await soon(failed_starts, lambda count: count > MOST_FAILED_STARTS)
        assert ready() == [survivor]
        works.touch()
        await soon(ready, lambda ids: len(ids) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        await running
        return bool(ready())

    works.touch()
    assert not asyncio.run(supervise())
    assert "giving up" not in said + capsys.readouterr().err


def test_wrong_settings_are_said_once(program: Start) -> None:
    pool = program("run", "shop:cluster", "--workers", "2", CLUSTER_KIT_APPS="x")

    assert pool.wait() == 2
    line = "cluster-kit: CLUSTER_KIT_APPS is not a setting; did you mean CLUSTER_KIT_APP?\n"
    assert pool.err == line


def test_a_change_of_code_restarts_what_runs(program: Start, application: Path) -> None:
    pool = program("run", "shop:cluster", "--reload", CHANNEL="nap")
    pool.until("napping")

    application.write_text(application.read_text().replace("woke up", "refreshed"))
    pool.until("refreshed")
    assert pool.out.index("woke up") < pool.out.index("refreshed")

    correct = application.read_text()
    application.write_text("print(\n")
    pool.until("waiting for a change")
    application.write_text(correct)
    pool.until("refreshed", times=2)
    pool.send(signal.SIGTERM)

    assert pool.wait() == 0
    assert "changed: shop.py; restarting" in pool.err


def test_reload_without_its_package_says_what_to_install(program: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'watchfiles' else find(name, *rest)\n"
    )

    running = program("run", "shop:cluster", "--reload", PYTHONPATH=str(tmp_path))

    assert running.wait() == 2
    line = "cluster-kit: --reload needs watchfiles: pip install 'cluster-kit[reload]'\n"
    assert running.err == line
