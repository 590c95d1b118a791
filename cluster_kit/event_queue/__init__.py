"""The event queue: a task runs once on one instance, with retries, delays and dead letters."""

from __future__ import annotations

from cluster_kit.event_queue.dead_letters import DeadLetters
from cluster_kit.event_queue.service import EventQueue
from cluster_kit.event_queue.stats import ChannelStats

__all__ = ["ChannelStats", "DeadLetters", "EventQueue"]
