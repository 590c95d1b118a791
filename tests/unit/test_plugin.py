from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest

from cluster_kit import Cluster, Plugin, Settings
from cluster_kit.errors import (
    AlreadyStartedError,
    ConfigurationError,
    InvalidNameError,
    LifecycleError,
    PluginFailedError,
    PluginRequirementError,
)
from cluster_kit.plugin import run_hook
from cluster_kit.testing.factory import ClusterFactory
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

START = ("before_load", "load", "after_start")


class Diary(Plugin):
    """Writes down its hooks, and fails in one of them when told to.

    `written` is shared by all plugins of a test.
    """

    written: ClassVar[list[str]] = []
    fails_in: str = ""
    error: BaseException = LookupError("no such shelf")

    async def before_load(self) -> None:
        self.write("before_load")

    async def load(self) -> None:
        self.write("load")

    async def after_start(self) -> None:
        self.write("after_start")

    async def before_stop(self) -> None:
        self.write("before_stop")

    def write(self, hook: str) -> None:
        self.written.append(f"{self.name}.{hook}")
        if hook == self.fails_in:
            raise self.error


@pytest.fixture(autouse=True)
def written() -> list[str]:
    Diary.written.clear()
    return Diary.written


def plugin(name: str, *requires: str, **attributes: Any) -> Diary:
    made = Diary()
    made.name, made.requires = name, requires
    for attribute, value in attributes.items():
        setattr(made, attribute, value)
    return made


def cluster(*plugins: Plugin | type[Plugin]) -> Cluster:
    return Cluster("shop", plugins=plugins, settings=Settings())


def lines(hook: str, *names: str) -> list[str]:
    return [f"{name}.{hook}" for name in names]


# --- order ---


@pytest.mark.asyncio
async def test_each_hook_goes_through_all_plugins_before_the_next_one(written: list[str]) -> None:
    async with cluster(plugin("a"), plugin("b"), plugin("c")):
        assert written == [line for hook in START for line in lines(hook, "a", "b", "c")]
        written.clear()

    assert written == lines("before_stop", "c", "b", "a")


@pytest.mark.asyncio
async def test_required_plugins_go_first_and_stop_last(written: list[str]) -> None:
    app = cluster(plugin("web", "db", "mail"), plugin("mail", "db"), plugin("solo"), plugin("db"))

    async with app:
        assert list(app.plugins) == ["web", "mail", "solo", "db"], "in the order they were given"
        assert written[:4] == lines("before_load", "db", "mail", "web", "solo")
        assert written[4:8] == lines("load", "db", "mail", "web", "solo")
        written.clear()

    assert written == lines("before_stop", "solo", "web", "mail", "db")


@pytest.mark.parametrize(
    ("plugins", "text"),
    [
        (
            [plugin("a", "b"), plugin("b", "c"), plugin("c", "a")],
            "plugins require each other: a -> b -> c -> a",
        ),
        (
            [plugin("x", "a"), plugin("a", "b"), plugin("b", "a")],
            "plugins require each other: a -> b -> a",
        ),
        ([plugin("a", "a")], "plugins require each other: a -> a"),
        (
            [plugin("web", "mials"), plugin("mails")],
            "plugin 'web' requires 'mials', which is not there; did you mean 'mails'?",
        ),
        ([plugin("web", "db")], "plugin 'web' requires 'db', which is not there"),
    ],
)
@pytest.mark.asyncio
async def test_requirements_that_cannot_be_met_are_told_before_anything_runs(
    written: list[str], plugins: list[Diary], text: str
) -> None:
    app = Cluster("shop", settings=Settings())
    for one in plugins:
        app.add_plugin(plugin(one.name, *one.requires))

    with pytest.raises(PluginRequirementError, match=f"^{re.escape(text)}$"):
        await app.start()
    assert written == []
    assert app.health()["status"] == "down"
    assert await app.stop() == []


# --- failures at start ---


@pytest.mark.parametrize(
    ("hook", "stopped"),
    [("before_load", []), ("load", ["a"]), ("after_start", ["c", "b", "a"])],
)
@pytest.mark.asyncio
async def test_a_hook_that_raises_undoes_in_reverse_what_was_loaded(
    written: list[str], hook: str, stopped: list[str]
) -> None:
    failing = plugin("b", fails_in=hook)
    app = cluster(plugin("a"), failing, plugin("c"))

    text = f"^plugin 'b' failed in {hook}: LookupError: no such shelf$"
    with pytest.raises(PluginFailedError, match=text) as caught:
        await app.start()

    assert (caught.value.plugin, caught.value.hook) == ("b", hook)
    assert caught.value.__cause__ is failing.error
    assert written[written.index(f"b.{hook}") + 1 :] == lines("before_stop", *stopped)
    assert app.health() == {"status": "down", "ready": False, "adapters": {}}


@pytest.mark.asyncio
async def test_after_a_failed_start_the_same_cluster_can_be_started(written: list[str]) -> None:
    failing = plugin("b", fails_in="after_start")
    app = cluster(plugin("a"), failing)
    with pytest.raises(PluginFailedError):
        await app.start()
    failing.fails_in = ""
    written.clear()

    async with app:
        assert app.health()["status"] == "ok"

    assert written[-2:] == lines("before_stop", "b", "a")
    assert len(written) == 8


@pytest.mark.asyncio
async def test_a_hook_that_meets_a_cancelled_task_has_failed_like_any_other() -> None:
    class Waits(Plugin):
        name = "waits"

        async def load(self) -> None:
            work = asyncio.ensure_future(asyncio.sleep(60))
            work.cancel()
            await work

    with pytest.raises(PluginFailedError, match=r"^plugin 'waits' failed in load: Cancelled"):
        await cluster(Waits).start()


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_is_undone(written: list[str]) -> None:
    hangs = asyncio.Event()

    class Hangs(Diary):
        name = "hangs"

        async def load(self) -> None:
            hangs.set()
            await asyncio.Event().wait()

    app = cluster(plugin("a"), Hangs, plugin("c"))
    starting = asyncio.create_task(app.start())
    async with asyncio.timeout(5):
        await hangs.wait()
    starting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert written[-2:] == ["a.load", "a.before_stop"]
    assert app.health()["status"] == "down"


@pytest.mark.asyncio
async def test_a_start_that_is_cancelled_again_while_it_is_undone_is_undone_to_its_end(
    written: list[str],
) -> None:
    hangs, stops, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Hangs(Diary):
        name = "hangs"

        async def after_start(self) -> None:
            hangs.set()
            await asyncio.Event().wait()

        async def before_stop(self) -> None:
            stops.set()
            await release.wait()
            self.write("before_stop")

    app = cluster(plugin("a"), Hangs)
    starting = asyncio.create_task(app.start())
    async with asyncio.timeout(5):
        await hangs.wait()
        starting.cancel()
        await stops.wait()
    starting.cancel()
    await asyncio.sleep(0)
    release.set()

    with pytest.raises(asyncio.CancelledError):
        await starting
    assert written[-2:] == lines("before_stop", "hangs", "a")
    assert app.health()["status"] == "down"


@pytest.mark.parametrize("call", ["start", "stop"])
@pytest.mark.parametrize("hook", [*START, "before_stop"])
@pytest.mark.asyncio
async def test_a_hook_cannot_wait_for_the_change_it_is_part_of(call: str, hook: str) -> None:
    refused: list[str] = []

    class Impatient(Plugin):
        name = "impatient"

    async def impatient() -> None:
        with pytest.raises(LifecycleError) as caught:
            await getattr(app, call)()
        refused.append(str(caught.value))

    made = Impatient()
    setattr(made, hook, impatient)
    app = cluster(made)
    async with asyncio.timeout(10), app:
        pass

    assert refused == [f"{call}() in a plugin's hook would wait for itself"]


# --- failures at stop ---


@pytest.mark.parametrize("error", [LookupError("no such shelf"), asyncio.CancelledError()])
@pytest.mark.asyncio
async def test_a_failing_before_stop_is_logged_and_keeps_nobody_from_stopping(
    written: list[str], caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    app = cluster(plugin("a"), plugin("b", fails_in="before_stop", error=error), plugin("c"))
    await app.start()
    written.clear()

    assert await app.stop() == []

    assert written == lines("before_stop", "c", "b", "a")
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "before_stop of plugin 'b' failed"
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert app.health()["status"] == "down"


# --- what may be listed ---


def test_classes_and_instances_may_be_listed() -> None:
    class Mails(Plugin):
        name = "mails"

    given = plugin("reports")
    app = cluster(Mails, given)

    assert isinstance(app.plugins["mails"], Mails)
    assert app.plugins["reports"] is given
    assert given.cluster is app


class NoName(Plugin):
    """A plugin somebody forgot to name."""


@pytest.mark.parametrize(
    ("listed", "kind", "text"),
    [
        (NoName, ConfigurationError, "plugin NoName has no name"),
        (NoName(), ConfigurationError, "plugin NoName has no name"),
        ("mails", ConfigurationError, "plugins are Plugin classes or instances, not str"),
        (dict, ConfigurationError, "plugins are Plugin classes or instances, not dict"),
        (
            plugin("a b"),
            InvalidNameError,
            "bad plugin name 'a b': spaces and control characters are not allowed",
        ),
        (
            plugin("a", requires="db"),
            ConfigurationError,
            "plugin 'a': requires is a tuple of names",
        ),
        (plugin("a", topics="b"), ConfigurationError, "plugin 'a': topics is a tuple of names"),
    ],
)
def test_anything_else_is_refused(listed: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}"):
        cluster(listed)


@pytest.mark.parametrize("hook", ["before_load", "load", "after_start", "before_stop"])
def test_a_hook_that_is_no_async_def_is_refused_before_it_runs(hook: str) -> None:
    ran: list[str] = []

    def plain(_self: Plugin) -> None:
        ran.append(hook)

    plain.__name__ = hook
    listed = type("Plain", (Plugin,), {"name": "plain", hook: plain})

    with pytest.raises(ConfigurationError, match=f"^plugin 'plain': {hook} must be async def$"):
        Cluster("shop", plugins=[listed])
    assert ran == []


@pytest.mark.asyncio
async def test_a_plain_hook_that_says_it_returns_an_awaitable_is_called() -> None:
    ran: list[str] = []

    class Lazy(Plugin):
        name = "lazy"

        def load(self) -> Coroutine[Any, Any, None]:
            return self.fill()

        async def fill(self) -> None:
            ran.append("filled")

    async with Cluster("shop", plugins=[Lazy]):
        assert ran == ["filled"]


@pytest.mark.asyncio
async def test_a_hook_that_ends_the_process_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Leaving(Plugin):
        name = "leaving"

        async def load(self) -> None:
            raise SystemExit(3)

    plugin = Leaving()
    with pytest.raises(SystemExit):
        await run_hook(plugin, "load")
    assert caplog.messages == ["plugin 'leaving' ends the process in load: SystemExit(3)"]


def test_two_plugins_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^there are two plugins named 'a'$"):
        cluster(plugin("a"), plugin("a"))


def test_a_plugin_belongs_to_one_cluster() -> None:
    lonely = plugin("a")
    with pytest.raises(LifecycleError, match=r"^plugin 'a' does not belong to a cluster yet$"):
        _ = lonely.cluster
    cluster(lonely)

    with pytest.raises(
        ConfigurationError, match=r"^plugin 'a' belongs to another cluster already$"
    ):
        cluster(lonely)


@pytest.mark.asyncio
async def test_plugins_are_added_before_start_or_after_stop() -> None:
    app = cluster()
    app.add_plugin(plugin("a"))
    async with app:
        with pytest.raises(
            AlreadyStartedError, match=r"^add_plugin\(\) is legal only before start\(\)$"
        ):
            app.add_plugin(plugin("b"))
    app.add_plugin(plugin("c"))

    assert list(app.plugins) == ["a", "c"]
    with pytest.raises(TypeError):
        app.plugins["d"] = plugin("d")  # type: ignore[index]


# --- what a plugin can do ---


@pytest.mark.asyncio
async def test_a_plugin_subscribes_at_load_and_publishes_until_it_has_stopped(
    cluster_factory: ClusterFactory,
) -> None:
    recorder = Recorder()

    class Mails(Plugin):
        name = "mails"

        async def before_load(self) -> None:
            await self.cluster.event_queue.publish("mails.send", "before_load")

        async def load(self) -> None:
            self.cluster.event_queue.subscribe("mails.send", recorder.handle)

        async def after_start(self) -> None:
            await self.cluster.event_queue.publish("mails.send", "after_start")

        async def before_stop(self) -> None:
            await self.cluster.event_queue.publish("mails.send", "before_stop")

    [watching] = await cluster_factory()
    [app] = await cluster_factory(plugins=[Mails])
    await recorder.finished(2)
    await app.stop()

    assert recorder.payloads == ["before_load", "after_start"]
    depth = await watching.event_queue.depth("mails.send")
    assert depth is not None
    assert (depth.ready, depth.consumers) == (1, 0)


# --- what is misspelt ---

NOT_CALLED = "has a method {}(), which is not called by the cluster"


class Almost(Plugin):
    name = "almost"

    async def laod(self) -> None: ...
    async def after_strat(self) -> None: ...
    async def on_sync_gaps(self) -> None: ...


class Far(Plugin):
    name = "far"

    async def load(self) -> None: ...
    async def loda(self) -> None: ...  # the hook itself is there
    async def reload(self) -> None: ...
    async def unload(self) -> None: ...
    async def loan(self) -> None: ...
    async def after_stop(self) -> None: ...
    async def handle_message(self, message: object) -> None: ...
    async def _after_strat(self) -> None: ...


def test_a_misspelt_hook_is_told_when_the_plugin_is_added(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster(Almost, Far)

    assert [record.getMessage() for record in caplog.records] == [
        f"plugin 'almost' {NOT_CALLED.format(name)}; did you mean {hook}()?"
        for name, hook in (
            ("after_strat", "after_start"),
            ("laod", "load"),
            ("on_sync_gaps", "on_sync_gap"),
        )
    ]


@pytest.mark.parametrize(
    ("method", "ours"),
    [
        *((name, "load() or after_start()") for name in ("on_startup", "startup", "setup")),
        *((name, "before_stop()") for name in ("on_shutdown", "shutdown", "teardown")),
    ],
)
def test_a_hook_named_as_in_another_framework_is_told(
    caplog: pytest.LogCaptureFixture, method: str, ours: str
) -> None:
    async def hook(_self: object) -> None: ...

    foreign = type("Foreign", (Plugin,), {"name": "foreign", method: hook})
    beside = type("Beside", (foreign,), {"name": "beside", "load": hook, "before_stop": hook})
    cluster(foreign, beside)

    assert [record.getMessage() for record in caplog.records] == [
        f"plugin '{name}' {NOT_CALLED.format(method)}; did you mean {ours}?"
        for name in ("foreign", "beside")
    ]


class Closing:
    """Of a library that knows nothing of plugins."""

    async def shutdown(self) -> None: ...


class Machines(Closing, Plugin):
    name = "machines"

    async def load(self) -> None:
        self.cluster.event_queue.subscribe("machines.teardown", self.teardown)
        self.ask = lambda: self.loda

    async def before_load(self) -> None:
        self.setup()

    def setup(self) -> None: ...
    async def teardown(self, payload: object) -> None: ...
    async def loda(self) -> None: ...


def test_methods_a_plugin_uses_or_inherits_from_elsewhere_are_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster(Machines)

    assert caplog.records == []


async def nothing(_payload: object) -> None: ...


@pytest.mark.asyncio
async def test_topics_that_nothing_serves_are_told_at_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Mails(Plugin):
        name = "mails"
        topics: tuple[str, ...] = ("mails:sned", "mails:send", "mails:index", "reports")

        async def load(self) -> None:
            self.cluster.event_queue.subscribe("mails", nothing, serves="mails:send")
            assert self.cluster.serving("mails:index")

    async with cluster(Mails):
        warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

    text = "plugin 'mails' names topic {!r}, which no subscription serves"
    assert warnings == [
        text.format("mails:sned") + "; did you mean 'mails:send'?",
        text.format("reports"),
    ]


# --- sync gaps ---


class Shelf(Plugin):
    """Hears one message at a time, and nothing but the first while `read` is not set."""

    name = "shelf"

    def __init__(self) -> None:
        self.read = asyncio.Event()
        self.hears = asyncio.Event()
        self.reloaded = 0

    async def handle_sync_message(self, _message: Any) -> None:
        self.hears.set()
        await self.read.wait()


async def miss_messages(staying: Cluster, missing: Cluster) -> None:
    """Send more than the plugin of `missing` has room for."""
    shelf = missing.plugins["shelf"]
    assert isinstance(shelf, Shelf)
    for number in range(5):
        await staying.plugins["shelf"].send_sync_message(number)
        await shelf.hears.wait()
    await eventually(lambda: missing.sync_messages.stats()["shelf"].dropped)
    shelf.read.set()


class Plain(Shelf):
    def on_sync_gap(self) -> None:  # type: ignore[override]  # what people write
        self.reloaded += 1


class PlainFails(Shelf):
    def on_sync_gap(self) -> None:  # type: ignore[override]  # what people write
        raise LookupError("no such shelf")


class Fails(Shelf):
    async def on_sync_gap(self) -> None:
        raise LookupError("no such shelf")


def small() -> Settings:
    return Settings(pubsub={"buffer_size": 1})


@pytest.mark.asyncio
async def test_a_plain_on_sync_gap_is_called_and_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Cluster("shop", plugins=[Plain], settings=small())
    other = Cluster("shop", plugins=[Plain], settings=small())
    async with one, other:
        await miss_messages(one, other)
        plugin = other.plugins["shelf"]
        assert isinstance(plugin, Plain)
        await eventually(lambda: plugin.reloaded)
    assert "failed" not in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Fails, PlainFails])
async def test_an_on_sync_gap_that_raises_is_named_with_its_plugin(
    kind: type[Shelf], caplog: pytest.LogCaptureFixture
) -> None:
    one = Cluster("shop", plugins=[kind], settings=small())
    other = Cluster("shop", plugins=[kind], settings=small())
    async with one, other:
        await miss_messages(one, other)
        text = "plugin 'shelf' failed in on_sync_gap: LookupError: no such shelf"
        await eventually(lambda: text in caplog.text)


async def takes_channels(_self: Plugin, _channels: list[str]) -> None: ...


def takes_two(_self: Plugin, _channels: list[str], _more: object) -> None: ...


@pytest.mark.asyncio
@pytest.mark.parametrize("hook", [takes_channels, takes_two])
async def test_an_on_sync_gap_that_takes_something_is_refused_at_start(hook: object) -> None:
    wrong = type("Wrong", (Shelf,), {"on_sync_gap": hook})
    with pytest.raises(ConfigurationError, match="'shelf': on_sync_gap must take no arguments"):
        await cluster(wrong).start()
