"""Scenarios: plugins that keep what they hold in memory equal on all instances."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cluster_kit.errors import InvalidNameError
from cluster_kit.plugin import Plugin
from cluster_kit.testing.contracts.pubsub.base import CHANNEL, Scenarios
from cluster_kit.testing.hearer import Hearer
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.contracts.pubsub.bench import Bench


class _Sources(Plugin):
    """Overrides the handler, and so hears."""

    name = "sources"

    def __init__(self) -> None:
        self.heard: list[object] = []

    async def handle_sync_message(self, message: Any) -> None:  # noqa: ANN401 - as in the base
        self.heard.append(message)


class _Reloading(_Sources):
    def __init__(self) -> None:
        super().__init__()
        self.reloads = 0

    async def on_sync_gap(self) -> None:
        self.reloads += 1


class _Deaf(Plugin):
    name = "deaf"


def _plugin(cluster: Cluster) -> _Reloading:
    plugin = cluster.plugins["sources"]
    assert isinstance(plugin, _Reloading)
    return plugin


@pytest.mark.asyncio
class SyncMessageScenarios(Scenarios):
    """A channel for each plugin, on a transport that survives a reconnect."""

    async def test_a_plugin_hears_itself_on_the_other_instances(self, bench: Bench) -> None:
        clusters = [await bench.cluster(plugins=[_Reloading]) for _ in range(3)]
        first, *others = [_plugin(cluster) for cluster in clusters]

        for message in ({"type": "removed", "name": "orders"}, None):
            await first.send_sync_message(message)

        for plugin in others:
            await eventually(partial(len, plugin.heard), lambda n: n == 2)
            assert plugin.heard == [{"type": "removed", "name": "orders"}, None]
        assert first.heard == []

    async def test_a_plugin_without_a_handler_is_not_subscribed(self, bench: Bench) -> None:
        clusters = [await bench.cluster(plugins=[_Deaf, _Reloading]) for _ in range(2)]

        await clusters[0].plugins["deaf"].send_sync_message("lost on you")
        await clusters[0].plugins["sources"].send_sync_message("heard")

        heard = _plugin(clusters[1]).heard
        await eventually(lambda: heard)
        assert "deaf" not in clusters[1].sync_messages.stats()
        assert clusters[0].sync_messages.stats()["deaf"].published == 1

    async def test_a_passing_command_hears_nothing(self, bench: Bench) -> None:
        serving = await bench.cluster(plugins=[_Reloading])
        passing = await bench.cluster(plugins=[_Reloading], worker_mode="-")

        await _plugin(passing).send_sync_message("from the command")
        await eventually(lambda: _plugin(serving).heard)
        await _plugin(serving).send_sync_message("to nobody")

        assert passing.sync_messages.stats() == {
            "sources": passing.sync_messages.stats()["sources"]
        }
        assert passing.sync_messages.stats()["sources"].delivered == 0

    async def test_sync_channels_and_others_do_not_mix(self, bench: Bench) -> None:
        clusters = [await bench.cluster() for _ in range(2)]
        plain, sync = Hearer(), Hearer()
        await clusters[1].pubsub.subscribe("#", plain.handle)
        await clusters[1].sync_messages.subscribe(CHANNEL, sync.handle)

        await clusters[0].sync_messages.publish(CHANNEL, "sync")
        await clusters[0].pubsub.publish(CHANNEL, "plain")

        assert await plain.hears() == ["plain"]
        assert await sync.hears() == ["sync"]
        assert sync.heard[0].event.channel == CHANNEL

    @pytest.mark.needs("link_faults", "sticky")
    async def test_a_plugin_hears_after_an_outage_what_was_sent_meanwhile(
        self, bench: Bench
    ) -> None:
        sender, cut = [await bench.cluster(plugins=[_Reloading]) for _ in range(2)]
        await _plugin(sender).send_sync_message(0)
        await eventually(lambda: _plugin(cut).heard)

        async with bench.outage(cut):
            for number in range(1, 20):
                await _plugin(sender).send_sync_message(number)

        await eventually(lambda: len(_plugin(cut).heard) == 20)
        assert _plugin(cut).heard == list(range(20))
        assert _plugin(cut).reloads == 0

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_plugin_that_may_have_missed_something_is_told(self, bench: Bench) -> None:
        cut = await bench.cluster(plugins=[_Reloading], sync_messages={"transport": "ephemeral"})

        async with bench.outage(cut):
            pass

        await eventually(lambda: _plugin(cut).reloads == 1)

    @pytest.mark.needs("link_faults", "ephemeral")
    async def test_a_plugin_that_cannot_be_told_is_named_in_the_log(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        cut = await bench.cluster(plugins=[_Sources], sync_messages={"transport": "ephemeral"})

        async with bench.outage(cut):
            pass

        def warned() -> list[str]:
            return [
                record.getMessage()
                for record in caplog.records
                if record.levelno == logging.WARNING and "on_sync_gap" in record.getMessage()
            ]

        await eventually(warned)
        assert "'sources'" in warned()[0]

    async def test_every_message_counts_by_default(self, bench: Bench) -> None:
        clusters, hearer = [await bench.cluster() for _ in range(2)], Hearer()
        await clusters[1].sync_messages.subscribe(CHANNEL, hearer.handle)

        for _ in range(3):
            await clusters[0].sync_messages.publish(CHANNEL, "same")

        assert await hearer.hears(3) == ["same"] * 3

    async def test_the_debounce_of_the_settings_holds_unless_one_is_named(
        self, bench: Bench
    ) -> None:
        sender = await bench.cluster()
        debouncing = await bench.cluster(sync_messages={"debounce": 1})
        by_default, each = Hearer(), Hearer()
        await debouncing.sync_messages.subscribe(CHANNEL, by_default.handle)
        await debouncing.sync_messages.subscribe(CHANNEL, each.handle, debounce=0)

        for _ in range(3):
            await sender.sync_messages.publish(CHANNEL, "same")

        assert await each.hears(3) == ["same"] * 3
        assert {*map(str, await by_default.hears(1))} == {"same"}

    async def test_unsubscribing_and_closing_end_it(self, bench: Bench) -> None:
        clusters = [await bench.cluster() for _ in range(2)]
        leaving, closing, staying = Hearer(), Hearer(), Hearer()
        for hearer in (leaving, staying):
            await clusters[1].sync_messages.subscribe(CHANNEL, hearer.handle)
        subscription = await clusters[1].sync_messages.subscribe(CHANNEL, closing.handle)

        await clusters[1].sync_messages.unsubscribe(CHANNEL, leaving.handle)
        await subscription.close()
        await clusters[0].sync_messages.publish(CHANNEL, 1)

        assert await staying.hears() == [1]
        assert leaving.messages == closing.messages == []

    async def test_patterns_are_for_publish_and_subscribe_only(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        with pytest.raises(InvalidNameError):
            await cluster.sync_messages.subscribe("orders.*", hearer.handle)

    async def test_a_message_may_be_meant_for_the_sender_too(self, bench: Bench) -> None:
        cluster, hearer = await bench.cluster(), Hearer()
        await cluster.sync_messages.subscribe(CHANNEL, hearer.handle)

        await cluster.sync_messages.publish(CHANNEL, "others")
        await cluster.sync_messages.publish(CHANNEL, "me", only_self=True)
        await cluster.sync_messages.publish(CHANNEL, "all", skip_self=False)

        assert await hearer.hears(2) == ["me", "all"]
