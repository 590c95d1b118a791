"""Scenarios: who gets what, and in which order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cluster_kit.testing.contracts.pubsub.base import CHANNEL, EACH_TRANSPORT, Scenarios
from cluster_kit.testing.hearer import Hearer

if TYPE_CHECKING:
    from cluster_kit.broadcast import Transport
    from cluster_kit.cluster import Cluster
    from cluster_kit.testing.contracts.pubsub.bench import Bench

VALUES: tuple[object, ...] = (
    *(None, True, False, 0, -1.5, "", "text", "ümlaut"),
    *([], [1, None, "x"], {}, {"a": {"b": [None]}}),
)


async def hearers(clusters: list[Cluster], channel: str = CHANNEL) -> list[Hearer]:
    """Subscribe one hearer in each cluster."""
    made = [Hearer() for _ in clusters]
    for cluster, hearer in zip(clusters, made, strict=True):
        await cluster.pubsub.subscribe(channel, hearer.handle, on_gap=hearer.on_gap)
    return made


@pytest.mark.asyncio
class DeliveryScenarios(Scenarios):
    """Every instance gets every message, in each publisher's order."""

    @EACH_TRANSPORT
    async def test_every_instance_but_the_publisher_gets_a_message(
        self, bench: Bench, transport: Transport
    ) -> None:
        clusters = await bench.clusters(3, transport=transport)
        first, second, third = await hearers(clusters)

        await clusters[0].pubsub.publish(CHANNEL, {"id": 17})
        await clusters[0].pubsub.publish(CHANNEL, "end", skip_self=False)

        assert await second.hears(2) == [{"id": 17}, "end"]
        assert await third.hears(2) == [{"id": 17}, "end"]
        assert await first.hears(1) == ["end"]

    @EACH_TRANSPORT
    async def test_messages_of_a_publisher_arrive_in_order_on_every_instance(
        self, bench: Bench, transport: Transport
    ) -> None:
        clusters = await bench.clusters(3, transport=transport)
        made = await hearers(clusters)

        for number in range(200):
            await clusters[0].pubsub.publish(CHANNEL, number, skip_self=False)

        for hearer in made:
            assert await hearer.hears(200) == list(range(200))
            assert bench.reports("broadcast.gap") == []

    async def test_only_self_reaches_no_other_instance(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        own, other = await hearers(clusters)

        await clusters[0].pubsub.publish(CHANNEL, "mine", only_self=True)
        await clusters[0].pubsub.publish(CHANNEL, "all", skip_self=False)

        assert await own.hears(2) == ["mine", "all"]
        assert await other.hears(1) == ["all"]
        assert bench.reports("broadcast.gap") == []

    async def test_publishers_do_not_mix_up_each_others_order(self, bench: Bench) -> None:
        clusters = await bench.clusters(3)
        [hearer] = await hearers(clusters[2:])

        async with asyncio.TaskGroup() as group:
            for name, cluster in zip("ab", clusters, strict=False):
                group.create_task(self._publish(cluster, name, 50))

        heard = await hearer.hears(100)
        assert [message for message in heard if str(message)[0] == "a"] == [
            f"a{number}" for number in range(50)
        ]
        assert [message for message in heard if str(message)[0] == "b"] == [
            f"b{number}" for number in range(50)
        ]
        assert bench.reports("broadcast.gap") == []

    @EACH_TRANSPORT
    async def test_publishes_that_overlap_keep_the_order_of_their_calls(
        self, bench: Bench, transport: Transport
    ) -> None:
        clusters = await bench.clusters(2, transport=transport)
        [hearer] = await hearers(clusters[1:])

        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(clusters[0].pubsub.publish(CHANNEL, number))

        assert await hearer.hears(100) == list(range(100))
        assert [heard.event.seq for heard in hearer.heard] == list(range(1, 101))

    async def test_any_json_value_is_a_message(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        [hearer] = await hearers(clusters[1:])

        for value in VALUES:
            await clusters[0].pubsub.publish(CHANNEL, value)

        assert await hearer.hears(len(VALUES)) == list(VALUES)

    async def test_a_handler_learns_where_a_message_comes_from(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        [hearer] = await hearers(clusters[1:])

        published = await clusters[0].pubsub.publish(CHANNEL, 1)

        await hearer.hears()
        event = hearer.heard[0].event
        assert (event.id, event.channel) == (published, CHANNEL)
        assert (event.origin, event.seq) == (clusters[0].instance_id, 1)
        assert event.published_at is not None
        assert abs(event.published_at - datetime.now(UTC)) < timedelta(minutes=1)  # noqa: TID251 - to compare with

    async def test_each_channel_has_numbers_of_its_own(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        [hearer] = await hearers(clusters[1:], "#")

        for channel in ("a", "b", "a", "c.d", "b", "a"):
            await clusters[0].pubsub.publish(channel, None)

        await hearer.hears(6)
        numbers: dict[str, list[int]] = {}
        for heard in hearer.heard:
            numbers.setdefault(heard.event.channel, []).append(heard.event.seq)
        assert numbers == {"a": [1, 2, 3], "b": [1, 2], "c.d": [1]}
        assert bench.reports("broadcast.gap") == []

    async def test_what_nobody_hears_is_no_error_and_leaves_no_hole(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        await clusters[0].pubsub.publish(CHANNEL, "unheard")
        [hearer] = await hearers(clusters[1:])

        await clusters[0].pubsub.publish(CHANNEL, "heard")
        await clusters[0].pubsub.publish(CHANNEL, "again")

        assert await hearer.hears(2) == ["heard", "again"]
        assert bench.reports("broadcast.gap") == []

    async def test_an_app_does_not_hear_another(self, bench: Bench) -> None:
        ours = await bench.clusters(2)
        theirs = await bench.cluster(app=f"{bench.app}-other")
        mine, foreign = await hearers([ours[1], theirs])

        await ours[0].pubsub.publish(CHANNEL, "ours")
        await mine.hears()
        await theirs.pubsub.publish(CHANNEL, "theirs", skip_self=False)

        assert await foreign.hears() == ["theirs"]
        assert mine.messages == ["ours"]

    async def test_a_long_message_travels(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        [hearer] = await hearers(clusters[1:])
        text = "x" * 1024 * 1024

        await clusters[0].pubsub.publish(CHANNEL, text)

        assert await hearer.hears() == [text]

    async def test_what_was_done_is_counted_and_told(self, bench: Bench) -> None:
        clusters = await bench.clusters(2)
        [hearer] = await hearers(clusters[1:])
        published = await clusters[0].pubsub.publish(CHANNEL, 1)
        await hearer.hears()
        await asyncio.sleep(0)

        assert clusters[0].pubsub.stats()[CHANNEL].published == 1
        assert clusters[1].pubsub.stats()[CHANNEL].delivered == 1
        assert [fields["id"] for fields in bench.reports("broadcast.published")] == [published]
        [delivered] = bench.reports("broadcast.delivered")
        assert (delivered["id"], delivered["kind"]) == (published, "pubsub")

    @staticmethod
    async def _publish(cluster: Cluster, name: str, n: int) -> None:
        for number in range(n):
            await cluster.pubsub.publish(CHANNEL, f"{name}{number}")
