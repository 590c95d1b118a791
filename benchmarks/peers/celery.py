"""Celery on py-amqp."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from celery.worker import state
from kombu import Exchange, Queue

from benchmarks.peer import AgainError, BlockingPeer, BlockingPublish, Handle, Payload

_TASK = "work"
_PUBLISHING_THREADS = 32
_WAKE = 0.1
"""Seconds after which an idle worker looks whether it has been told to stop."""


def _app(url: str, queue: str, prefetch: int = 1) -> Any:
    app = Celery(broker=url, set_as_current=False)
    app.conf.update(
        broker_pool_limit=_PUBLISHING_THREADS,
        broker_transport_options={"confirm_publish": True},
        task_acks_late=True,
        task_default_queue=queue,
        task_ignore_result=True,
        task_queues=[
            Queue(
                queue,
                Exchange(queue, durable=True),
                routing_key=queue,
                durable=True,
                queue_arguments={"x-queue-type": "quorum"},
            )
        ],
        worker_concurrency=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_prefetch_multiplier=prefetch,
        worker_redirect_stdouts=False,
    )
    return app


@contextmanager
def _publisher(url: str, queue: str) -> Iterator[BlockingPublish]:
    app = _app(url, queue)

    def publish(payload: Payload) -> None:
        app.send_task(_TASK, args=(payload,))

    yield publish
    app.close()


@contextmanager
def _consumer(url: str, queue: str, handle: Handle, prefetch: int) -> Iterator[None]:
    app = _app(url, queue, prefetch)

    def work(self: Any, payload: Payload) -> None:
        try:
            handle(payload)
        except AgainError as exc:
            raise self.retry(exc=exc, countdown=0) from exc

    app.task(name=_TASK, bind=True, max_retries=3)(work)
    # The pool that costs Celery least here: a handler that does nothing is not worth a process.
    worker = app.Worker(
        pool="solo", without_gossip=True, without_mingle=True, without_heartbeat=True
    )
    worker.timer.call_repeatedly(_WAKE, lambda: None)
    thread = threading.Thread(target=worker.start)
    thread.start()
    yield
    state.should_stop = 0  # the exit code; as a signal would, if this were the main thread
    thread.join()


PEER = BlockingPeer(
    title="Celery",
    packages=("celery", "kombu", "amqp"),
    publisher=_publisher,
    consumer=_consumer,
    threads=_PUBLISHING_THREADS,
    note="pool solo, acks_late; a retry is a confirmed copy (Task.retry with countdown 0)",
)
