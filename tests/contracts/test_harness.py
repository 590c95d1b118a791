from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster_kit.errors import ConfigurationError
from cluster_kit.message import Reject
from cluster_kit.settings import EventQueueSettings
from cluster_kit.testing import assert_dead_lettered, assert_processed, assert_published
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.history import History
from cluster_kit.testing.recorder import Recorder, always, answers, until
from cluster_kit.testing.servers import NodeUnavailableError, start_rabbitmq
from cluster_kit.testing.servers.given import GivenNode
from cluster_kit.testing.servers.node import Node, NodeCommandError
from cluster_kit.testing.waiting import eventually


@pytest.mark.asyncio
async def test_eventually_returns_the_first_accepted_answer() -> None:
    answers = iter([1, 2, 3, 4])

    async def ask() -> int:
        return next(answers)

    assert await eventually(ask, lambda n: n > 2, interval=0) == 3


@pytest.mark.asyncio
async def test_eventually_fails_with_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match="seen last: 'not yet'"):
        await eventually(lambda: "not yet", lambda _: False, timeout=0.05)


@pytest.mark.asyncio
async def test_a_recorder_says_what_it_saw_when_it_waits_in_vain(
    cluster_factory: ClusterFactory,
) -> None:
    [cluster] = await cluster_factory()
    gate = asyncio.Event()
    recorder = Recorder(until(gate))
    cluster.event_queue.subscribe("work", recorder.handle)
    await cluster.event_queue.publish("work", "hello", message_id="order-17")
    await recorder.started()

    with pytest.raises(AssertionError, match=r"2 runs to end; saw order-17 #1 'hello' \(running\)"):
        await recorder.finished(2, timeout=0.05)
    gate.set()


@pytest.mark.asyncio
@pytest.mark.parametrize("n", [0, -1])
async def test_a_factory_refuses_to_make_none(cluster_factory: ClusterFactory, n: int) -> None:
    with pytest.raises(ValueError, match=f"^n must be 1 or more, not {n}$"):
        await cluster_factory(n)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"plugin": []}, "cluster_factory takes no 'plugin'; did you mean 'plugins'?"),
        ({"event_queu": {}}, "event_queu is not a setting; did you mean event_queue?"),
    ],
)
async def test_a_factory_names_what_was_meant(
    cluster_factory: ClusterFactory, wrong: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await cluster_factory(**wrong)
    assert text in str(caught.value)


@pytest.mark.asyncio
async def test_a_factory_makes_instances_of_one_app(cluster_factory: ClusterFactory) -> None:
    first, second = await cluster_factory(2)
    [other] = await cluster_factory(name="other", start=False)

    assert first.name == second.name == cluster_factory.name
    assert len({cluster.instance_id for cluster in (first, second, other)}) == 3
    assert first.health()["status"] == second.health()["status"] == "ok"
    assert (other.name, other.health()["status"]) == ("other", "down")
    recorder = Recorder()
    second.event_queue.subscribe("work", recorder.handle)
    await first.event_queue.publish("work", 1)
    await recorder.finished()


@pytest.mark.asyncio
async def test_a_factory_passes_settings_on(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory(event_queue={"max_retries": 9}, drain_timeout=7)
    assert cluster.settings.drain_timeout == 7
    assert cluster.settings.event_queue.max_retries == 9
    assert cluster.settings.url_for("event_queue").reveal() == cluster_factory.url


@pytest.mark.parametrize("url", [None, "memory://elsewhere"])
@pytest.mark.asyncio
async def test_a_factory_passes_its_url_into_settings_without_one(
    cluster_factory: ClusterFactory, url: str | None
) -> None:
    wanted = EventQueueSettings(max_retries=9)
    [cluster] = await cluster_factory(event_queue=wanted, url=url)
    assert cluster.settings.event_queue.max_retries == 9
    assert cluster.settings.url_for("event_queue").reveal() == (url or cluster_factory.url)

    own = EventQueueSettings(url="memory://its-own")
    [other] = await cluster_factory(event_queue=own, url=url)
    assert other.settings.url_for("event_queue").reveal() == "memory://its-own"


@pytest.mark.asyncio
async def test_a_factory_reports_tasks_that_outlive_its_clusters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster_kit.testing.factory._END_SECONDS", 0.05)
    monkeypatch.setattr("cluster_kit.testing.factory._LEAK_SECONDS", 0.05)
    factory = ClusterFactory()
    await factory()
    left = asyncio.create_task(asyncio.sleep(60), name="forgotten")

    with pytest.raises(AssertionError, match="forgotten"):
        await factory.close()
    left.cancel()


@pytest.mark.asyncio
async def test_a_task_that_outlives_its_clusters_is_told_of_at_once_and_fails_though_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster_kit.testing.factory._END_SECONDS", 0.05)
    gate, told = asyncio.Event(), list[str]()

    def tell(text: str) -> None:
        told.append(text)
        gate.set()

    factory = ClusterFactory(tell=tell)
    await factory()
    left = asyncio.create_task(gate.wait(), name="late")

    with pytest.raises(AssertionError, match="late"):
        await factory.close()
    assert left.done()
    assert len(told) == 1
    assert "late" in told[0]


def test_what_outlives_its_clusters_is_on_standard_error_though_pytest_captures(
    tmp_path: Path,
) -> None:
    said = run_pytest(
        tmp_path,
        "import asyncio, os, pytest\n"
        "@pytest.mark.asyncio\n"
        "async def test_it(cluster_factory):\n"
        "    await cluster_factory()\n"
        "    async def stubborn():\n"
        "        while True:\n"
        "            try: await asyncio.sleep(60)\n"
        "            except asyncio.CancelledError: os._exit(3)\n"
        "    test_it.kept = asyncio.create_task(stubborn(), name='stubborn')\n",
    )
    assert "test_it: tasks that go on after every cluster has stopped: <Task pending" in said
    assert "stubborn" in said


@pytest.mark.asyncio
async def test_the_environment_has_no_say_in_clusters_of_a_factory(
    cluster_factory: ClusterFactory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_EVENT_QUEUE__TIMEOUT=0.001\n")
    monkeypatch.setenv("CLUSTER_KIT_WORKER_MODE", "-")
    monkeypatch.setenv("CLUSTER_KIT_NO_SUCH_THING", "1")

    [cluster] = await cluster_factory(event_queue={"max_retries": 9})

    assert cluster.settings.worker_mode == ""
    assert cluster.settings.event_queue.timeout == 60
    assert cluster.settings.event_queue.max_retries == 9


@pytest.mark.asyncio
async def test_settled_refuses_a_channel_nobody_knows(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    await cluster.event_queue.publish("orders", 1)
    cluster.event_queue.subscribe("idle", Recorder().handle)

    await cluster_factory.settled("idle")
    text = "'ordres' has no queue, and nobody has published to it; did you mean 'orders'"
    with pytest.raises(AssertionError, match=text):
        await cluster_factory.settled("ordres")


@pytest.mark.asyncio
async def test_settled_waits_for_retries_and_delays(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory(event_queue={"retry": {"initial_delay": 0.05}})
    recorder = Recorder(answers(ConnectionError("away")))
    cluster.event_queue.subscribe("work", recorder.handle)
    first = await cluster.event_queue.publish("work", 1)
    second = await cluster.event_queue.publish("work", 2, delay=0.1)

    await cluster_factory.settled()

    assert assert_published(cluster_factory, "work", 2) == [first, second]
    assert assert_processed(cluster_factory, "work", ids=[second, first])
    assert_dead_lettered(cluster_factory, "work", 0)
    assert len(recorder.runs) == 3


@pytest.mark.asyncio
async def test_settled_sees_what_a_broker_buried_by_itself(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    await cluster.event_queue.publish("work", 1, ttl=0.01)

    await cluster_factory.settled("work")

    assert_dead_lettered(cluster_factory, "work", 0)
    assert await cluster.event_queue.dead_letters("work").count() == 1


@pytest.mark.asyncio
async def test_settled_knows_a_repeated_id_that_is_dropped(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    recorder = Recorder()
    cluster.event_queue.subscribe("work", recorder.handle)
    for _ in range(2):
        await cluster.event_queue.publish("work", 1, message_id="order-17")
        await cluster_factory.settled("work")

    assert recorder.ids == ["order-17"]


@pytest.mark.parametrize(
    ("events", "opened"),
    [
        ("published started", True),
        ("published started done", False),
        ("started done published", False),
        ("started published done", False),
        ("started dead published published", True),
        ("published started dead published started done", False),
        ("published started done started", True),
    ],
)
def test_an_end_may_be_reported_before_the_publish(events: str, *, opened: bool) -> None:
    history = History()
    for event in events.split():
        history.note(f"task.{event}", {"channel": "work", "id": "1"})
    assert history.open("work") == ({"1"} if opened else set())


@pytest.mark.asyncio
async def test_settled_says_what_it_waited_for(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    await cluster.event_queue.publish("work", 1, message_id="order-17")

    with pytest.raises(AssertionError, match=r"work: 1 wait, 0 run, not ended: order-17"):
        await cluster_factory.settled(timeout=0.05)


@pytest.mark.asyncio
async def test_assertions_say_what_they_saw(cluster_factory: ClusterFactory) -> None:
    [cluster] = await cluster_factory()
    cluster.event_queue.subscribe("work", Recorder(always(Reject("no"))).handle)
    await cluster.event_queue.publish("work", 1, message_id="order-17")
    await cluster_factory.settled()

    assert assert_dead_lettered(cluster_factory, "work", 1, reason="rejected") == ["order-17"]
    wrong_ones: list[tuple[Callable[[], list[str]], str]] = [
        (lambda: assert_published(cluster_factory, "mails"), "0 tasks of 'mails' were published"),
        (lambda: assert_published(cluster_factory, "work", 2), "order-17; expected 2"),
        (lambda: assert_processed(cluster_factory, "work"), "were processed: none"),
        (lambda: assert_published(cluster_factory, "work", ids=["a"]), "order-17; expected a"),
        (
            lambda: assert_dead_lettered(cluster_factory, "work", reason="failed"),
            "were dead-lettered as failed: none",
        ),
    ]
    for wrong, text in wrong_ones:
        with pytest.raises(AssertionError, match=text):
            wrong()
    with pytest.raises(ValueError, match=r"^reason is one of failed, .*crashed, not 'reject'$"):
        assert_dead_lettered(cluster_factory, "work", reason="reject")
    with pytest.raises(TypeError, match="ids is a list of message ids, not one str"):
        assert_published(cluster_factory, "work", ids="order-17")


def test_providers_are_tried_in_order_and_say_why_not() -> None:
    def absent(reason: str) -> Node:
        raise NodeUnavailableError(reason)

    node = GivenNode("amqp://guest:guest@mq/")
    server = start_rabbitmq([lambda: absent("no engine"), lambda: node, lambda: absent("never")])
    assert server.url == "amqp://guest:guest@mq/"

    with pytest.raises(NodeUnavailableError, match="no engine; no program"):
        start_rabbitmq([lambda: absent("no engine"), lambda: absent("no program")])


def test_a_given_broker_is_never_stopped() -> None:
    node = GivenNode("amqp://guest:secret@mq/")
    server = start_rabbitmq([lambda: node])
    assert not server.can_control
    assert server.new_url() == "amqp://guest:secret@mq/"
    for forbidden in (server.stop, server.kill, server.restart):
        with pytest.raises(NodeCommandError, match="not ours"):
            forbidden()
    with pytest.raises(NodeCommandError, match="CLUSTER_KIT_TEST_AMQP_CTL"):
        server.ctl("status")
    assert "secret" not in server.origin


def test_ctl_of_a_given_broker_is_what_the_environment_says() -> None:
    server = start_rabbitmq([lambda: GivenNode("amqp://mq/", ["echo", "ctl of"])])
    assert server.ctl("list_vhosts", "-q") == "ctl of list_vhosts -q\n"
    failing = start_rabbitmq([lambda: GivenNode("amqp://mq/", ["false"])])
    with pytest.raises(NodeCommandError, match="false status ended with 1"):
        failing.ctl("status")


def run_pytest(folder: Path, source: str, *options: str, **environment: str) -> str:
    (folder / "test_it.py").write_text(source)
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", *plugins, *options, "-rs", "-c", os.devnull]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder)],
        env=inherited | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "two processes"])
def test_scenarios_beyond_an_adapters_features_are_dropped_aloud(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    said = run_pytest(
        tmp_path,
        "import pytest\n"
        "from cluster_kit.testing.contracts.event_queue import Features\n"
        "class Contract:\n"
        "    features = Features()\n"
        "    @pytest.mark.needs('ttl', 'delays')\n"
        "    def test_waiting(self): raise AssertionError\n"
        "    def test_plain(self): pass\n"
        "class TestPoor(Contract):\n"
        "    features = Features(delays=False)\n",
        *options,
    )
    assert "1 passed" in said
    assert "TestPoor declares delays unsupported: 1 scenario not run" in said


def test_a_scenario_that_needs_an_unknown_feature_is_an_error(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        "import pytest\n"
        "from cluster_kit.testing.contracts.event_queue import Features\n"
        "class TestTypo:\n"
        "    features = Features()\n"
        "    @pytest.mark.needs('dealys')\n"
        "    def test_it(self): pass\n",
    )
    assert "needs 'dealys', which is no feature" in said


def test_the_marker_of_contracts_means_nothing_elsewhere(tmp_path: Path) -> None:
    said = run_pytest(
        tmp_path,
        "import pytest\n"
        "class TestTheirs:\n"
        "    features = {'cpu': True}\n"
        "    @pytest.mark.needs('gpu')\n"
        "    def test_it(self): pass\n"
        "@pytest.mark.needs('gpu')\n"
        "def test_alone(): pass\n",
    )
    assert "2 passed" in said


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_without_a_broker_a_test_is_skipped_and_in_ci_fails(
    tmp_path: Path, ci: str, outcome: str
) -> None:
    said = run_pytest(
        tmp_path,
        "def test_it(rabbitmq): raise AssertionError\n",
        CI=ci,
        CLUSTER_KIT_TEST_AMQP_URL="amqp://guest:secret@127.0.0.1:1/",
    )
    assert outcome in said
    assert "no RabbitMQ answers there" in said
    assert "secret" not in said
