"""Dramatiq on pika."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dramatiq import Actor, Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.peer import BlockingPeer, BlockingPublish, Handle, Payload

_WORKER_THREADS = 8  # its default
_PUBLISHING_THREADS = 32


class _QuorumBroker(RabbitmqBroker):
    """Makes quorum queues; the broker of the library makes classic ones only."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._build_queue_arguments(queue_name)
        return {**arguments, "x-queue-type": "quorum"}


def _broker(url: str) -> Any:
    return _QuorumBroker(url=url, confirm_delivery=True)


def _actor(handle: Handle, broker: Any, queue: str) -> Any:
    at_once = {"max_retries": 3, "min_backoff": 0, "max_backoff": 0}
    return Actor(
        handle, broker=broker, actor_name="work", queue_name=queue, priority=0, options=at_once
    )


@contextmanager
def _publisher(url: str, queue: str) -> Iterator[BlockingPublish]:
    def work(_: Payload) -> None:
        raise NotImplementedError("only published here")

    broker = _broker(url)
    yield _actor(work, broker, queue).send
    broker.close()


@contextmanager
def _consumer(url: str, queue: str, handle: Handle, prefetch: int) -> Iterator[None]:
    broker = _broker(url)
    _actor(handle, broker, queue)
    worker = Worker(broker, worker_threads=_WORKER_THREADS)
    worker.queue_prefetch = prefetch
    worker.start()
    yield
    worker.stop()
    broker.close()


PEER = BlockingPeer(
    title="Dramatiq",
    packages=("dramatiq", "pika"),
    publisher=_publisher,
    consumer=_consumer,
    threads=_PUBLISHING_THREADS,
    queues=("{}", "{}.DQ", "{}.XQ"),
    note="8 worker threads; a retry goes through its delay queue, though its backoff is 0",
)
