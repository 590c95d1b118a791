"""Mistakes that mypy must find: an ignore that hides nothing is an error. Checked, never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit import Cache, Cluster, Plugin, RetryPolicy, Settings

if TYPE_CHECKING:
    from cluster_kit import Delivery, EventQueue, PubSubManager


async def options_are_keywords(queue: EventQueue) -> None:
    await queue.publish("mails", 1, 60)  # type: ignore[call-arg]
    queue.subscribe("mails", print, 4)  # type: ignore[call-arg]
    RetryPolicy(0.5)  # type: ignore[call-arg]
    Cluster("shop", [])  # type: ignore[call-arg]


async def broadcasts_are_checked(pubsub: PubSubManager) -> None:
    await pubsub.publish("orders", 1, False)  # type: ignore[call-arg]
    await pubsub.subscribe("orders", print, on_gap=1)  # type: ignore[arg-type]
    Settings(pubsub={"transport": "durable"})  # type: ignore[arg-type]


async def types_are_checked(queue: EventQueue) -> None:
    await queue.publish(7, 1)  # type: ignore[arg-type]
    await queue.publish("mails", 1, delay="5")  # type: ignore[arg-type]
    await queue.publish("mails", 1, headers=[("a", 1)])  # type: ignore[arg-type]
    await queue.publish("mails", 1, colour="red")  # type: ignore[call-arg]
    queue.subscribe("mails", None)  # type: ignore[arg-type]
    Settings(worker_mod="!")  # type: ignore[call-arg]
    Settings(drain_timeout="5")  # type: ignore[arg-type]
    Settings().url_for("event-queue")  # type: ignore[arg-type]
    Cluster("shop", plugins=["mails"])  # type: ignore[list-item]


def values_cannot_be_changed(cluster: Cluster, delivery: Delivery, plugin: Plugin) -> None:
    delivery.attempt = 2  # type: ignore[misc]
    cluster.plugins["mails"] = plugin  # type: ignore[index]
    plugin.cluster = cluster  # type: ignore[misc]


async def cached_functions_are_checked(cache: Cache) -> None:
    @cache.cached(key="rate:{currency}")
    async def rate_of(currency: str) -> float:
        return float(currency)

    await rate_of(1)  # type: ignore[arg-type]
    rate_of.key()  # type: ignore[call-arg]
    await rate_of.invalidate("usd", 1)  # type: ignore[call-arg]

    class Bank:
        @cache.cached(key="fee:{currency}")
        async def fee_of(self, currency: str) -> float:
            return float(currency)

    Bank().fee_of.key(Bank(), "usd")  # type: ignore[call-arg, arg-type]
