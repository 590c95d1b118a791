"""Publish and subscribe: every instance gets every message, or is told that it may lack some."""

from __future__ import annotations

from cluster_kit.pubsub.service import PubSubManager
from cluster_kit.pubsub.stats import BroadcastStats
from cluster_kit.pubsub.subscription import Subscription

__all__ = ["BroadcastStats", "PubSubManager", "Subscription"]
