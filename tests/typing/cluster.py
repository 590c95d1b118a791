"""What type checkers infer for users of a cluster. Checked, never run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, assert_type

from cluster_kit import (
    Cache,
    CacheManager,
    Cluster,
    DeadLetter,
    DeadReason,
    Delivery,
    Event,
    EventQueue,
    Plugin,
    PubSubManager,
    Reject,
    Retry,
    RetryPolicy,
    Settings,
    Snooze,
    Subscription,
    SyncMessageManager,
)
from cluster_kit.event_queue import ChannelStats, DeadLetters
from cluster_kit.plugin import Host
from cluster_kit.ports import AdapterSpec, ClusterHealth, QueueDepth
from cluster_kit.pubsub import BroadcastStats
from cluster_kit.registry import AdapterRegistry
from cluster_kit.settings import ServerUrl


class Mails(Plugin):
    name = "mails"
    requires: tuple[str, ...] = ("db",)

    async def load(self) -> None:
        assert_type(self.cluster, Host)
        assert_type(self.cluster.caches, CacheManager)
        self.cluster.event_queue.subscribe("mails.send", self.send, serves="mails:send")

    async def handle_sync_message(self, message: dict[str, str]) -> None:
        assert_type(await self.send_sync_message({"seen": message}), str)

    async def on_sync_gap(self) -> None:
        assert_type(self.cluster.sync_messages, SyncMessageManager)

    async def send(self, payload: dict[str, Any], delivery: Delivery) -> None:
        assert_type(delivery.id, str)
        assert_type(delivery.attempt, int)
        assert_type(delivery.retried, int)
        assert_type(delivery.redelivered, bool)
        assert_type(delivery.published_at, datetime | None)
        assert_type(delivery.deadline, datetime)
        assert_type(delivery.headers, Mapping[str, object])
        assert_type(delivery.signal.aborted, bool)
        assert_type(await delivery.signal.wait(), str)
        if payload:
            raise Retry(delay=timedelta(seconds=1), reason="later")
        raise Snooze(1.5) if delivery.retried else Reject("never")


async def life() -> None:
    cluster = Cluster("shop", plugins=[Mails, Mails()], settings=Settings(worker_mode="!"))
    cluster.add_plugin(Mails)
    async with cluster as entered:
        assert_type(entered, Cluster)
    assert_type(await cluster.start(), None)
    assert_type(await cluster.stop(timeout=timedelta(seconds=5)), list[str])
    assert_type(await cluster.run_until_signal(), list[str])
    assert_type(cluster.health(), ClusterHealth)
    assert_type(cluster.plugins, Mapping[str, Plugin])
    assert_type(cluster.serving("mails:send"), bool)
    assert_type(cluster.name, str)
    assert_type(cluster.instance_id, str)
    assert_type(cluster.settings, Settings)
    assert_type(cluster.settings.url_for("event_queue"), ServerUrl)
    assert_type(cluster.event_queue, EventQueue)
    assert_type(cluster.registry, AdapterRegistry)
    assert_type(cluster.registry.find("memory://"), AdapterSpec)


async def queue(queue: EventQueue) -> None:
    def sync(payload: object) -> None: ...

    queue.subscribe(
        "mails",
        sync,
        concurrency=0,
        idle=lambda: True,
        timeout=timedelta(minutes=1),
        retry=RetryPolicy(initial_delay=0, retry_on=(OSError, KeyError), give_up_on=ValueError),
        max_retries=3,
        shared=True,
    )
    queue.unsubscribe("mails", shared=True)
    delay = timedelta(seconds=1)
    assert_type(await queue.publish("mails", {"id": 1}, delay=delay, headers={"a": 1}), str)
    assert_type(await queue.publish_many("mails", iter(range(3)), ttl=60), list[str])
    assert_type(queue.stats(), dict[str, ChannelStats])
    assert_type(await queue.depth("mails"), QueueDepth | None)
    assert_type(await queue.channels(), list[str])
    assert_type(await queue.purge("mails"), int)


async def broadcasts(pubsub: PubSubManager, sync: SyncMessageManager) -> None:
    def reload(channels: list[str]) -> None:
        assert_type(channels, list[str])

    async def handle(message: dict[str, int], event: Event) -> None:
        assert_type(event.seq, int)
        assert_type(event.published_at, datetime | None)

    wait = timedelta(seconds=1)
    made = await pubsub.subscribe("orders.#", handle, debounce=wait, max_wait=5, on_gap=reload)
    assert_type(made, Subscription)
    async with made as entered:
        assert_type(entered, Subscription)
    assert_type(await pubsub.publish("orders", None, skip_self=False), str)
    assert_type(await sync.publish("orders", None, only_self=True), str)
    assert_type(await sync.subscribe("orders", handle), Subscription)
    assert_type(pubsub.stats(), dict[str, BroadcastStats])
    Settings(pubsub={"transports": {"orders.#": "stream"}}, sync_messages={"debounce": wait})


async def dead(letters: DeadLetters) -> None:
    assert_type(await letters.count(), int)
    assert_type(await letters.replay(["1"], rate=10), int)
    assert_type(await letters.discard(), int)
    for letter in await letters.browse(limit=5):
        assert_type(letter, DeadLetter)
        assert_type(letter.reason, DeadReason)
        assert_type(letter.payload, object)
        assert_type(letter.body, bytes)
        assert_type(letter.died_at, datetime | None)


async def cached_functions_know_their_arguments(cache: Cache) -> None:
    @cache.cached(key="rate:{currency}:{day}")
    async def rate_of(currency: str, *, day: int = 0) -> float:
        return float(f"{currency}{day}")

    assert_type(await rate_of("usd", day=1), float)
    assert_type(rate_of.key("usd"), str)
    assert_type(await rate_of.invalidate(currency="usd", day=1), bool)

    class Bank:
        name = "ecb"

        @cache.cached(key="rate:{self.name}:{currency}")
        async def rate_of(self, currency: str) -> float:
            return float(currency)

    assert_type(await Bank().rate_of("usd"), float)
    assert_type(await Bank.rate_of(Bank(), "usd"), float)
    assert_type(Bank.rate_of.key(Bank(), "usd"), str)
    assert_type(await Bank.rate_of.invalidate(Bank(), currency="usd"), bool)
    assert_type(Bank().rate_of.key("usd"), str)
    assert_type(await Bank().rate_of.invalidate(currency="usd"), bool)
    assert_type(Bank().rate_of.__name__, str)

    class Shop:
        @cache.cached(key="price:{item}")
        @classmethod
        async def price_of(cls, item: str) -> float:
            return float(item)

        @cache.cached(key="tax:{item}")
        @staticmethod
        async def tax_of(item: str) -> float:
            return float(item)

    assert_type(await Shop.price_of("tea"), float)
    assert_type(await Shop().price_of.invalidate("tea"), bool)
    assert_type(Shop.price_of.key("tea"), str)
    assert_type(await Shop.tax_of("tea"), float)
    assert_type(Shop.tax_of.key("tea"), str)
