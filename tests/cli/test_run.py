from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import Program, eventually, run_command

Start = Callable[..., Program]

pytestmark = pytest.mark.usefixtures("application")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(program: Start, number: signal.Signals) -> None:
    running = program("run", "shop:cluster", CHANNEL="nap")
    running.until("napping")

    running.send(number)

    assert running.wait() == 0
    assert running.out.splitlines()[1:] == ["napping", "woke up"]


def test_two_signals_of_one_stop_are_one(program: Start) -> None:
    running = program("run", "shop:cluster", CHANNEL="nap", NAP="1")
    running.until("napping")

    running.send(signal.SIGINT)
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert running.out.splitlines()[1:] == ["napping", "woke up"]


def test_a_drain_that_runs_out_of_time(program: Start) -> None:
    running = program("run", "shop:cluster", "--json", CHANNEL="nap", NAP="600", DRAIN="0.1")
    running.until("napping")

    running.send(signal.SIGTERM)

    assert running.wait() == 1
    assert running.err.splitlines()[-1] == ("cluster-kit: out of time; cut short: task-1")
    assert running.out.endswith('{\n  "unfinished": [\n    "task-1"\n  ]\n}\n')


def test_a_handler_that_ignores_its_end_does_not_keep_the_process(program: Start) -> None:
    running = program("run", "shop:cluster", CHANNEL="stubborn", DRAIN="0.1")
    running.until("napping")

    running.send(signal.SIGTERM)

    assert running.wait() == 1
    assert "cut short: task-1" in running.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(program: Start, number: signal.Signals) -> None:
    running = program("run", "shop:cluster", CHANNEL="stubborn", DRAIN="600")
    running.until("napping")
    running.send(number)

    def ended() -> bool:
        running.send(number)
        return running.process.poll() is not None

    eventually(ended)
    assert running.wait() == -number
    told = f"stopping on {number.name}; a second signal ends this process at once"
    assert running.err.count(told) == 1
    said = "cluster-kit: second signal: ended at once, without a drain\n"
    # A SIGTERM the system itself ends, as soon as the loop has seen to that.
    assert running.err.endswith(said) or number == signal.SIGTERM


def test_a_factory_and_what_the_command_line_says(program: Start) -> None:
    running = program("run", "shop:make", "--url", "memory://elsewhere")
    running.until("serving")
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert "made started as instance" in running.err


def test_in_memory_it_says_that_tasks_stay_here(program: Start) -> None:
    running = program("run", "shop:cluster")
    running.until("serving")
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert running.err.splitlines()[0] == (
        "cluster-kit: on memory:// tasks stay in this process; "
        "to share them set CLUSTER_KIT_AMQP_URL or give --url"
    )


LEAVING = """
import asyncio, atexit
from cluster_kit import Cluster, Plugin

class Leave(Plugin):
    name = "leave"

    async def after_start(self):
        self.task = asyncio.create_task(self.work())
        print("serving", flush=True)

    async def work(self):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            print("cleaned up", flush=True)

atexit.register(print, "the end", flush=True)
cluster = Cluster("leaving", plugins=[Leave])
"""


def test_what_the_application_leaves_behind_cleans_up(program: Start, tmp_path: Path) -> None:
    (tmp_path / "leaving.py").write_text(LEAVING)
    running = program("run", "leaving:cluster")
    running.until("serving")
    running.send(signal.SIGTERM)

    assert running.wait() == 0
    assert running.out.splitlines() == ["serving", "cleaned up", "the end"]


FAILING = """
from cluster_kit import Cluster, Plugin

class Fails(Plugin):
    name = "fails"

    async def load(self):
        {}["dsn"]

cluster = Cluster("failing", plugins=[Fails])
"""


def test_a_hook_that_fails_is_logged_with_its_place(program: Start, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    running = program("run", "failing:cluster")

    assert running.wait() == 1
    assert running.err.splitlines()[-1] == (
        "cluster-kit: plugin 'fails' failed in load: KeyError: 'dsn'"
    )
    assert 'failing.py", line 8, in load' in running.err


LOOPING = """
import asyncio
from cluster_kit import Cluster, Plugin

class Look(Plugin):
    name = "look"

    async def after_start(self):
        print("runs on", type(asyncio.get_running_loop()).__module__, flush=True)

cluster = Cluster("looping", plugins=[Look])
"""


@pytest.mark.parametrize(("installed", "loop"), [(True, "uvloop"), (False, "asyncio")])
def test_uvloop_is_used_where_it_is_installed(
    program: Start, tmp_path: Path, installed: bool, loop: str
) -> None:
    (tmp_path / "looping.py").write_text(LOOPING)
    if not installed:
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    running = program("run", "looping:cluster")
    running.until(f"runs on {loop}")
    running.send(signal.SIGTERM)

    assert running.wait() == 0


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that cannot be run, importable for one test only."""
    (tmp_path / "divides.py").write_text("1 / 0\n")
    (tmp_path / "unclosed.py").write_text("print(\n")
    (tmp_path / "needs.py").write_text("import nowhere\n")
    (tmp_path / "own.py").write_text(
        "from cluster_kit import Cluster, Settings\n"
        "cluster = Cluster('own', settings=Settings(event_queue={'url': 'memory://mine'}))\n"
        "def factory(name): ...\n"
    )
    (tmp_path / "mistaken.py").write_text(
        "from cluster_kit import Settings\nSettings(event_queue={'timeot': 1})\n"
    )
    monkeypatch.setattr("sys.path", [*sys.path])
    for name in ("shop", "divides", "unclosed", "needs", "own", "mistaken"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("nothing:cluster", "there is no module 'nothing' here"),
        ("shop/main.py:cluster", "shop/main.py is a path; name the module: shop.main:cluster\n"),
        ("./shop.py:cluster", "./shop.py is a path; name the module: shop:cluster\n"),
        ("shop.main:cluster", "there is no module 'shop.main' here"),
        ("shop:clustr", "module 'shop' has no 'clustr'; did you mean 'cluster'?"),
        ("shop:cluster.nam", "module 'shop' has no 'cluster.nam'\n"),
        ("own:Setting", "module 'own' has no 'Setting'\n"),
        ("own:clutser", "module 'own' has no 'clutser'; did you mean 'cluster'?"),
        ("own:factroy", "module 'own' has no 'factroy'; did you mean 'factory'?"),
        ("own:factory", "own:factory is called without arguments: missing a required argument"),
        ("shop:number", "shop:number is no Cluster, but int"),
        ("shop:late", "shop:late is async; what makes a Cluster is a plain function"),
        (
            "mistaken:x",
            "wrong settings, importing mistaken failed: event_queue.timeot is not a setting; did",
        ),
    ],
)
def test_what_cannot_be_loaded_is_wrong_use_in_one_line(target: str, line: str) -> None:
    outcome = run_command("run", target)

    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"cluster-kit: {line}")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("shop:broken", "shop:broken failed: LookupError: no shop here (shop.py, line 53)"),
        ("divides:x", "importing divides failed: ZeroDivisionError: division by zero (divides.py"),
        ("unclosed:x", "importing unclosed failed: SyntaxError: '(' was never closed (unclosed"),
        ("needs:x", "importing needs failed: ModuleNotFoundError: No module named 'nowhere' (nee"),
    ],
)
def test_an_application_that_fails_shows_its_own_traceback_and_a_line(
    target: str, line: str
) -> None:
    outcome = run_command("run", target)

    assert (outcome.code, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert lines[-1].startswith(f"cluster-kit: {line}")
    module = target.partition(":")[0]
    # The first place is the application's: nothing of what imports or calls it.
    assert f"/{module}.py" in next(each for each in lines if each.startswith("  File "))
    assert [each for each in lines if "importlib" in each or "/cli/" in each] == []


@pytest.mark.usefixtures("modules")
def test_what_the_application_calls_wrongly_is_shown_where_it_does(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text("from cluster_kit import Cluster\n\nCluster('a b')\n")

    outcome = run_command("run", "calls:x")

    assert outcome.code == 2
    assert 'calls.py", line 3, in <module>' in outcome.err.splitlines()[1]
    assert outcome.err.splitlines()[-1].startswith("cluster-kit: importing calls failed: bad ")


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("shop:cluster", "--app", "other"), "--app has no effect: shop:cluster is named 'shop'"),
        (("own:cluster", "--url", "memory://x"), "--url has no effect: own:cluster chooses memory"),
        (("shop:cluster", "--url", "ampq://x"), "--url: no adapter for ampq://; did you mean"),
    ],
)
def test_what_cannot_start_is_one_line(
    program: Start, arguments: tuple[str, ...], line: str
) -> None:
    running = program("run", *arguments)

    assert (running.wait(), running.out) == (2, "")
    assert running.err.startswith(f"cluster-kit: {line}")
    assert len(running.err.splitlines()) == 1
