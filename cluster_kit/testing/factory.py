"""Clusters for a test, and their end."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Unpack

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError
from cluster_kit.settings import ServerUrl
from cluster_kit.settings.groups import (
    CacheSettings,
    CacheSettingsValues,
    EventQueueSettings,
    EventQueueValues,
    LockSettings,
    LockValues,
    PubSubSettings,
    PubSubValues,
)
from cluster_kit.settings.model import ArgumentSettings
from cluster_kit.testing.history import History
from cluster_kit.testing.proxy import TASK_PREFIX
from cluster_kit.testing.waiting import PATIENCE, eventually
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from cluster_kit.plugin import Plugin
    from cluster_kit.settings.model import SettingsValues

_KEYWORDS = ("name", "plugins", "url", "start")
_SETTINGS = frozenset(field.name for field in fields(ArgumentSettings))
_STOP_SECONDS = 5.0
_KNOWN_SECONDS = 1.0  # in which a subscription made just now has its queue
_END_SECONDS = 2.0  # in which what stopping has set off ends
_LEAK_SECONDS = 5.0

log = logging.getLogger(__name__)


def _check_keywords(settings: Collection[str]) -> None:
    """Refuse what is no setting but nearly a keyword of the factory."""
    for name in settings:
        if name not in _SETTINGS and (hint := suggestion(name, _KEYWORDS)):
            raise ConfigurationError(f"cluster_factory takes no {name!r}{hint}")


class ClusterFactory:
    """Makes clusters that share an application, and stops them all.

    Attributes:
        name: of the application.
        url: of the event queue.
        clusters: those made so far.
        history: what they reported of their tasks, for `assert_published` and its like.

    Args:
        url: of the event queue, where a call names none; by default a memory hub of its own.
            Everything else is on that hub in any case, unless a call says otherwise.
        tell: is given a text as soon as tasks are seen to outlive their clusters; by default the
            log is.
    """

    def __init__(self, url: str = "", *, tell: Callable[[str], None] = log.warning) -> None:
        unique = uuid.uuid4().hex[:12]
        self.name: str = f"test-{unique}"
        self._hub = f"memory://{unique}"
        self.url: str = url or self._hub
        self.clusters: list[Cluster] = []
        self.history: History = History()
        self._tell = tell
        self._before = asyncio.all_tasks()

    async def __call__(
        self,
        n: int = 1,
        *,
        name: str | None = None,
        plugins: Sequence[type[Plugin] | Plugin] = (),
        url: str | None = None,
        start: bool = True,
        **settings: Unpack[SettingsValues],
    ) -> list[Cluster]:
        """Return `n` instances of one application, started one after the other.

        Args:
            n: how many.
            name: of the application; by default one of its own for this factory.
            plugins: for each instance; give classes when there are several instances.
            url: of the event queue, unless `event_queue` has one of its own.
            start: False leaves starting to the test.
            settings: keywords of `Settings`. Variables and a ``.env`` file are not read.

        Raises:
            ValueError: `n` is below 1.
            ConfigurationError: a keyword is neither one of these nor a setting.
        """
        _check_keywords(settings)
        if n < 1:
            raise ValueError(f"n must be 1 or more, not {n}")
        self._place(settings, url or self.url)
        made: list[Cluster] = []
        for _ in range(n):
            # What a developer has in the environment, or in a .env file, changes no test.
            chosen = ArgumentSettings(**settings)
            cluster = Cluster(name or self.name, plugins=plugins, settings=chosen)
            cluster.telemetry.subscribe(self.history.note)
            self.clusters.append(cluster)
            made.append(cluster)
            if start:
                await cluster.start()
        return made

    def _place(self, settings: SettingsValues, url: str) -> None:
        """Give each capability a URL, unless it has one."""
        queue = settings.get("event_queue", EventQueueValues())
        if not isinstance(queue, EventQueueSettings):
            settings["event_queue"] = {"url": url, **queue}
        elif queue.url is None:
            settings["event_queue"] = queue.but(url=ServerUrl(url))
        pubsub = settings.get("pubsub", PubSubValues())
        if not isinstance(pubsub, PubSubSettings):
            settings["pubsub"] = {"url": self._hub, **pubsub}
        locks = settings.get("locks", LockValues())
        if not isinstance(locks, LockSettings):
            settings["locks"] = {"url": self._hub, **locks}
        cache = settings.get("cache", CacheSettingsValues())
        if not isinstance(cache, CacheSettings):
            settings["cache"] = {"url": self._hub, **cache}

    async def settled(
        self, *channels: str, shared: bool = False, timeout: float = PATIENCE
    ) -> None:
        """Wait until nothing waits or runs on these channels; by default on all that were used.

        Delayed tasks and retries count as waiting. Only what these instances published, or what
        lies in the queue, is known; a task that was purged is waited for in vain.

        Args:
            channels: names without the app's prefix.
            shared: the channels have no prefix.
            timeout: seconds after which to give up.

        Raises:
            AssertionError: something still waits or runs; the text says what. Or a channel that is
                named has no queue, and nobody has published to it.
        """
        for channel in channels:
            await self._expect_known(channel, shared=shared)

        async def unsettled() -> list[str]:
            names = channels or tuple(self.history.channels())
            found = [await self._unsettled(channel, shared=shared) for channel in names]
            return [text for text in found if text]

        await eventually(unsettled, lambda found: not found, timeout=timeout)

    async def _expect_known(self, channel: str, *, shared: bool) -> None:
        async def known() -> bool:
            running = [cluster for cluster in self.clusters if cluster.event_queue.attached]
            depths = [await c.event_queue.depth(channel, shared=shared) for c in running]
            return channel in self.history.channels() or any(d is not None for d in depths)

        try:
            await eventually(known, timeout=_KNOWN_SECONDS)
        except AssertionError:
            hint = suggestion(channel, self.history.channels())
            raise AssertionError(
                f"channel {channel!r} has no queue, and nobody has published to it{hint}"
            ) from None

    async def _unsettled(self, channel: str, *, shared: bool) -> str:
        running = [cluster for cluster in self.clusters if cluster.event_queue.attached]
        busy = sum(
            stats.running
            for cluster in running
            if (stats := cluster.event_queue.stats().get(channel)) is not None
        )
        waiting, opened = 0, self.history.open(channel)
        for cluster in {cluster.name: cluster for cluster in running}.values():
            depth = await cluster.event_queue.depth(channel, shared=shared)
            waiting += 0 if depth is None else depth.ready
            if depth is not None and depth.dead and opened:  # the broker may have buried some
                letters = cluster.event_queue.dead_letters(channel, shared=shared)
                opened -= {letter.id for letter in await letters.browse(depth.dead)}
        if not (busy or waiting or opened):
            return ""
        names = ", ".join(sorted(opened))
        return f"{channel}: {waiting} wait, {busy} run, not ended: {names or 'none'}"

    async def close(self) -> None:
        """Stop everything in reverse order.

        Raises:
            ExceptionGroup: what went wrong at stopping.
            AssertionError: tasks that were not there before outlived them, by 2 s or more.
        """
        failures: list[Exception] = []
        while self.clusters:
            try:
                await self.clusters.pop().stop(timeout=_STOP_SECONDS)
            except Exception as exc:  # noqa: BLE001 - the others are to be stopped too
                failures.append(exc)
        if failures:
            raise ExceptionGroup("clusters that did not stop well", failures)
        await self._expect_no_leak()

    async def _expect_no_leak(self) -> None:
        ours = {*self._before, asyncio.current_task()}
        left = {
            task
            for task in asyncio.all_tasks() - ours
            if not task.get_name().startswith(TASK_PREFIX)
        }
        if left:
            _, left = await asyncio.wait(left, timeout=_END_SECONDS)
        if not left:
            return
        names = "; ".join(sorted(map(repr, left)))
        text = f"tasks that go on after every cluster has stopped: {names}"
        self._tell(text)  # now: one that ignores its cancellation may keep the event loop for ever
        await asyncio.wait(left, timeout=_LEAK_SECONDS)
        raise AssertionError(text)
