from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cluster_kit import Cluster, Plugin, Settings
from cluster_kit.errors import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    ConfigurationError,
    ConnectError,
    InvalidNameError,
    UnknownOptionError,
)
from cluster_kit.ports import AdapterSpec, ClusterHealth
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder
from tests.unit.adapters import Faults

DOWN = {"status": "down", "ready": False, "adapters": {}}


class Mails(Plugin):
    name = "mails"
    topics: tuple[str, ...] = ("mails:send", "mails:index")


def cluster(*plugins: Plugin | type[Plugin], **settings: Any) -> Cluster:
    return Cluster("shop", plugins=plugins, settings=Settings(**settings))


# --- making one ---


def test_the_name_is_the_argument_or_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER_KIT_APP", "from-outside")

    assert Cluster().name == "from-outside"
    assert Cluster("shop").name == "shop"
    assert Cluster(settings=Settings(app="given")).name == "given"
    assert Cluster("shop", settings=Settings(app="given")).name == "shop"


def test_without_a_name_it_says_where_one_comes_from() -> None:
    text = "the app has no name: Cluster(name) or CLUSTER_KIT_APP"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        Cluster()


@pytest.mark.parametrize("name", ["", "two words", "a" * 41, "a*", "shop.eu", 7])
def test_a_bad_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"^bad app name "):
        Cluster(name)


class Alone(Plugin):
    name = "alone"


SETTINGS = "settings is a Settings, as in Settings(amqp_url=...)"
LIST = "plugins is a list of Plugin classes or instances"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"settings": {"amqp_url": "amqp://shop:secret@mq/"}}, f"{SETTINGS}, not dict"),
        ({"plugins": Alone}, f"{LIST}, not the class Alone: plugins=[Alone]"),
        ({"plugins": Alone()}, f"{LIST}, not Alone: plugins=[Alone]"),
        ({"plugins": "alone"}, f"{LIST}, not str"),
        ({"plugins": None}, f"{LIST}, not NoneType"),
        ({"plugins": ["alone"]}, "plugins are Plugin classes or instances, not str"),
    ],
)
def test_what_is_no_list_of_plugins_and_no_settings_is_refused(
    arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        Cluster("shop", **arguments)


def test_instances_tell_themselves_apart_or_as_they_are_told() -> None:
    first, second = Cluster("shop"), Cluster("shop")

    assert re.fullmatch("[0-9a-f]{12}", first.instance_id)
    assert first.instance_id != second.instance_id
    assert cluster(instance_id="pod-1").instance_id == "pod-1"


@pytest.mark.asyncio
async def test_making_one_starts_nothing() -> None:
    before = asyncio.all_tasks()
    made = cluster(Mails)

    assert asyncio.all_tasks() == before
    assert made.health() == DOWN


# --- serving ---


@pytest.mark.parametrize(
    ("mode", "web", "topic"),
    [
        ("", True, True),
        ("!", True, False),
        ("*", False, True),
        ("mails:send", False, True),
        ("mails:index", False, False),
        (" ! , mails:send ", True, True),
        ("-", False, False),
    ],
)
def test_serving_follows_the_worker_mode(mode: str, web: bool, topic: bool) -> None:
    made = cluster(Mails, worker_mode=mode)

    assert (made.serving(), made.serving("mails:send")) == (web, topic)


@pytest.mark.parametrize("topic", ["a b", "a,b", "!", "*", "-"])
def test_a_malformed_topic_is_refused_wherever_it_is_said(topic: str) -> None:
    class Listing(Mails):
        topics: tuple[str, ...] = (topic,)

    made = cluster()
    with pytest.raises(InvalidNameError, match=r"^bad topic "):
        made.serving(topic)
    with pytest.raises(InvalidNameError, match=r"^bad topic in serves "):
        made.event_queue.subscribe("mails", Recorder().handle, serves=topic)
    with pytest.raises(InvalidNameError, match=r"^bad topic "):
        made.add_plugin(Listing)


@pytest.mark.asyncio
async def test_topics_nobody_serves_are_refused_at_start() -> None:
    made = cluster(Mails, worker_mode="mials:send,zzz")

    text = (
        "the argument worker_mode names topic 'mials:send', which no plugin serves; "
        "did you mean 'mails:send'?\n"
        "the argument worker_mode names topic 'zzz', which no plugin serves; "
        "known: mails:index, mails:send"
    )
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        await made.start()
    assert made.health() == DOWN


@pytest.mark.asyncio
async def test_what_set_a_topic_nobody_serves_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_WORKER_MODE=zzz\n")
    with pytest.raises(ConfigurationError, match=r"^CLUSTER_KIT_WORKER_MODE \(in .env\) names top"):
        await Cluster("shop").start()

    monkeypatch.setenv("CLUSTER_KIT_WORKER_MODE", "zzz")
    with pytest.raises(ConfigurationError, match=r"^CLUSTER_KIT_WORKER_MODE names topic 'zzz'"):
        await Cluster("shop").start()


@pytest.mark.asyncio
async def test_a_subscription_makes_its_topic_known_and_runs_only_where_it_is_served(
    cluster_factory: ClusterFactory,
) -> None:
    recorders = Recorder(), Recorder()
    both = await cluster_factory(2, start=False, worker_mode="reports")
    both += await cluster_factory(start=False, worker_mode="!")
    for made, recorder in zip(both[1:], recorders, strict=True):
        made.event_queue.subscribe("reports", recorder.handle, serves="reports")
    both[0].event_queue.subscribe("other", recorders[1].handle, serves="reports")
    for made in both:
        await made.start()

    await both[2].event_queue.publish_many("reports", range(20))

    await recorders[0].finished(20)
    assert recorders[1].runs == []


# --- starting ---


@pytest.mark.asyncio
async def test_starting_again_has_no_effect_also_at_the_same_time() -> None:
    loads: list[str] = []

    class Slow(Plugin):
        name = "slow"

        async def load(self) -> None:
            loads.append("load")
            await asyncio.sleep(0)

    made = cluster(Slow)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(made.start())
    await made.start()

    assert loads == ["load"]
    assert made.health()["ready"] is True
    await made.stop()


@pytest.mark.asyncio
async def test_async_with_starts_and_stops_also_when_its_body_fails() -> None:
    made = cluster()

    async def body() -> None:
        async with made as entered:
            assert entered is made
            assert made.health()["status"] == "ok"
            raise LookupError("body")

    with pytest.raises(LookupError, match="body"):
        await body()
    assert made.health() == DOWN


@pytest.mark.parametrize(
    ("url", "kind", "text"),
    [
        ("ampq://mq/", AdapterNotFoundError, "no adapter for ampq://; did you mean 'amqp'?"),
        ("memory://here?pth=x", UnknownOptionError, "unknown option 'pth' in a memory:// URL"),
    ],
)
@pytest.mark.asyncio
async def test_a_wrong_url_is_refused_at_start(url: str, kind: type[Exception], text: str) -> None:
    made = cluster(Mails, event_queue={"url": url})

    source = "event_queue.url (CLUSTER_KIT_EVENT_QUEUE__URL): "
    with pytest.raises(kind, match=f"^{re.escape(source + text)}"):
        await made.start()
    assert made.health() == DOWN


@pytest.mark.asyncio
async def test_a_failed_connection_shows_no_password_and_leaves_nothing_behind() -> None:
    made = cluster(Mails, event_queue={"url": "faulty://shop:s3cr/et@mq"})
    faults = Faults(made)
    faults.refuses = True
    before = asyncio.all_tasks()

    with pytest.raises(ConnectError) as caught:
        await made.start()

    source = "event_queue.url (CLUSTER_KIT_EVENT_QUEUE__URL): "
    shown = "cannot connect to faulty://shop:***@mq: nobody answers at faulty://shop:***@mq"
    assert str(caught.value) == source + shown
    assert (caught.value.url, caught.value.retryable) == ("faulty://shop:***@mq", True)
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))
    assert faults.log == ["connect", "close"]
    assert made.health() == DOWN
    assert asyncio.all_tasks() == before


@pytest.mark.asyncio
async def test_a_start_after_a_failed_one_makes_a_new_adapter() -> None:
    made = cluster(event_queue={"url": "faulty://again"})
    faults = Faults(made)
    faults.refuses = True
    with pytest.raises(ConnectError):
        await made.start()
    faults.refuses = False

    async with made:
        assert made.health()["status"] == "ok"
    assert len(faults.made) == 2


@pytest.mark.asyncio
async def test_memory_by_oversight_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(redis_url="redis://shop:s3cret@r/", locks={"url": "memory://island"}):
        pass

    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.startswith("event_queue is on memory:// although the argument redis_url is set")
    assert "s3cret" not in caplog.text


# --- health ---


@pytest.mark.asyncio
async def test_health_through_a_life() -> None:
    seen: list[ClusterHealth] = []

    class Watches(Plugin):
        name = "watches"

        async def load(self) -> None:
            seen.append(made.health())

        async def before_stop(self) -> None:
            seen.append(made.health())

    made = cluster(Watches, event_queue={"url": "faulty://health"})
    faults = Faults(made)
    seen.append(made.health())
    async with made:
        seen.append(made.health())
        faults.made[0].disconnect("unplugged")
        seen.append(made.health())
        faults.made[0].reconnect()
    seen.append(made.health())

    assert [(health["status"], health["ready"]) for health in seen] == [
        ("down", False),  # before
        ("ok", False),  # while plugins load
        ("ok", True),  # running
        ("down", True),  # without its link
        ("ok", False),  # while plugins stop
        ("down", False),  # after
    ]
    queue = seen[2]["adapters"]["event_queue"]
    assert set(queue) == {"status", "detail", "since"}
    assert datetime.fromisoformat(queue["since"]).tzinfo is not None
    assert json.loads(json.dumps(seen)) == seen


# --- several in one process ---


@pytest.mark.asyncio
async def test_two_applications_on_one_hub_do_not_meet(cluster_factory: ClusterFactory) -> None:
    mine, theirs = Recorder(), Recorder()
    [shop] = await cluster_factory(name="shop")
    [bank] = await cluster_factory(name="bank")
    shop.event_queue.subscribe("mails", mine.handle)
    bank.event_queue.subscribe("mails", theirs.handle)

    await shop.event_queue.publish("mails", "for the shop")
    await bank.event_queue.publish("mails", "for the bank")

    await mine.finished()
    await theirs.finished()
    assert (mine.payloads, theirs.payloads) == (["for the shop"], ["for the bank"])


@pytest.mark.asyncio
async def test_stopping_one_instance_leaves_the_others_at_work(
    cluster_factory: ClusterFactory,
) -> None:
    recorder = Recorder()
    first, second = await cluster_factory(2)
    for made in (first, second):
        made.event_queue.subscribe("mails", recorder.handle)
    await first.stop()

    await second.event_queue.publish_many("mails", range(10))

    await recorder.finished(10)
    assert first.health() == DOWN
    assert second.health()["status"] == "ok"


@pytest.mark.asyncio
async def test_an_adapter_that_is_not_there_names_the_setting_each_time() -> None:
    made = cluster(amqp_url="amqp://mq/", event_queue={"url": "memory://here"})
    broken = AdapterUnavailableError("amqp", "the package driver", "pip install driver")

    def make(_url: str, _context: object) -> NoReturn:
        raise broken

    made.registry.register(AdapterSpec(name="amqp", schemes=("amqp",), pubsub=make))
    for _ in range(2):
        with pytest.raises(AdapterUnavailableError) as caught:
            await made.start()
        assert str(caught.value) == f"amqp_url (CLUSTER_KIT_AMQP_URL): {broken}"
        assert caught.value.missing == "the package driver"
