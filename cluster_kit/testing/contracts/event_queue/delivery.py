"""Scenarios: a task gets from a publisher to a handler, whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel

from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

PAYLOADS: list[object] = [
    None,
    0,
    -1,
    2**53,
    1.5,
    "",
    "Grüße, 世界 \U0001f98a \x00",
    False,
    True,
    [],
    {},
    {"": [None, {"deep": [[1, [2.25, "x"]]]}], "ключ": ""},
    "x" * 200_000,
]


class _Mail(BaseModel):
    to: str
    at: datetime


@pytest.mark.asyncio
class DeliveryScenarios(Scenarios):
    """Publish, subscribe, and what arrives."""

    async def test_publish_returns_the_id_the_handler_sees(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        first = await cluster.event_queue.publish(CHANNEL, {"n": 1})
        second = await cluster.event_queue.publish(CHANNEL, {"n": 2})

        await recorder.finished(2)
        assert dict(zip(recorder.ids, recorder.payloads, strict=True)) == {
            first: {"n": 1},
            second: {"n": 2},
        }
        assert first != second

    async def test_an_id_given_by_the_publisher_is_kept(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        returned = await cluster.event_queue.publish(CHANNEL, 1, message_id="order#17/mail*é")

        await recorder.finished()
        assert returned == "order#17/mail*é"
        assert recorder.ids == ["order#17/mail*é"]

    async def test_every_json_value_arrives_as_it_was(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        ids = [await cluster.event_queue.publish(CHANNEL, payload) for payload in PAYLOADS]

        await recorder.finished(len(PAYLOADS))
        arrived = dict(zip(recorder.ids, recorder.payloads, strict=True))
        assert [arrived[id_] for id_ in ids] == PAYLOADS
        assert [type(arrived[id_]) for id_ in ids] == [type(payload) for payload in PAYLOADS]

    async def test_a_pydantic_model_travels_as_its_json(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        mail = _Mail(to="ann", at=datetime(2024, 2, 29, tzinfo=UTC))
        await cluster.event_queue.publish(CHANNEL, {"mail": mail})

        await recorder.finished()
        assert recorder.payloads == [{"mail": {"to": "ann", "at": "2024-02-29T00:00:00Z"}}]

    async def test_a_task_waits_for_its_first_subscriber(self, bench: Bench) -> None:
        publisher = await bench.cluster()
        ids = [await publisher.event_queue.publish(CHANNEL, n) for n in range(3)]
        await bench.ready(publisher, CHANNEL, 3)

        recorder = Recorder()
        publisher.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished(3)
        assert sorted(recorder.ids) == sorted(ids)

    @pytest.mark.needs("several_instances")
    async def test_a_task_outlives_its_publisher(self, bench: Bench) -> None:
        keeper, publisher = await bench.clusters(2)
        published = await publisher.event_queue.publish(CHANNEL, 1)
        await publisher.stop()

        recorder = Recorder()
        keeper.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        assert recorder.ids == [published]

    async def test_subscribing_is_legal_before_start(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(start=False), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await cluster.start()
        published = await cluster.event_queue.publish(CHANNEL, 1)

        await recorder.finished()
        assert recorder.ids == [published]

    async def test_a_handler_may_take_the_payload_alone(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        seen: list[object] = []

        async def handle(payload: object) -> None:
            seen.append(payload)

        cluster.event_queue.subscribe(CHANNEL, handle)
        await cluster.event_queue.publish(CHANNEL, {"n": 1})

        await eventually(lambda: seen)
        assert seen == [{"n": 1}]

    async def test_a_handler_sees_everything_about_its_delivery(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        before = datetime.now(UTC)  # noqa: TID251 - compared with what the cluster's clock said
        published = await cluster.event_queue.publish(CHANNEL, 1, timeout=30, max_retries=7)

        [run] = await recorder.finished()
        delivery = run.delivery
        assert (delivery.id, delivery.channel) == (published, CHANNEL)
        assert (delivery.attempt, delivery.retried, delivery.max_retries) == (1, 0, 7)
        assert not delivery.redelivered
        assert not delivery.signal.aborted
        assert delivery.published_at is not None
        assert abs(delivery.published_at - before) < timedelta(seconds=10)
        assert timedelta(seconds=20) < delivery.deadline - before < timedelta(seconds=45)

    async def test_headers_travel(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        headers: dict[str, object] = {
            "text": "Grüße \U0001f98a",
            "empty": "",
            "number": -(2**63),
            "large": 2**63 - 1,
            "small": 7,
            "yes": True,
            "no": False,
            "none": None,
            "n" * 128: "a long name",
        }

        await cluster.event_queue.publish(CHANNEL, 1, headers=headers)

        [run] = await recorder.finished()
        assert dict(run.delivery.headers) == headers
        assert type(run.delivery.headers["yes"]) is bool
        assert type(run.delivery.headers["small"]) is int

    async def test_headers_do_not_follow_a_publisher_who_changes_them(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        headers: dict[str, object] = {"n": 1}
        await cluster.event_queue.publish(CHANNEL, 1, headers=headers)
        headers["n"] = 2

        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        [run] = await recorder.finished()
        assert run.delivery.headers["n"] == 1

    async def test_publish_many_returns_ids_in_the_order_of_the_payloads(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, concurrency=0)

        payloads = list(range(60))
        ids = await cluster.event_queue.publish_many(
            CHANNEL, payloads, headers={"batch": "one"}, max_retries=5
        )

        runs = await recorder.finished(60)
        arrived = {run.delivery.id: run.payload for run in runs}
        assert [arrived[id_] for id_ in ids] == payloads
        assert {run.delivery.headers["batch"] for run in runs} == {"one"}
        assert {run.delivery.max_retries for run in runs} == {5}

    async def test_publishing_nothing_many_times_is_no_error(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        assert await cluster.event_queue.publish_many(CHANNEL, []) == []

    async def test_a_handler_may_publish(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()

        async def handle(payload: object) -> None:
            await cluster.event_queue.publish("mails.sent", payload)

        cluster.event_queue.subscribe(CHANNEL, handle)
        cluster.event_queue.subscribe("mails.sent", recorder.handle)
        await cluster.event_queue.publish(CHANNEL, "hello")

        await recorder.finished()
        assert recorder.payloads == ["hello"]

    async def test_channel_names_may_be_long_and_foreign(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        channels = ["x" * 200, "почта.отправить", "mails", "mails.send.now", "a/b:c"]
        for channel in channels:
            cluster.event_queue.subscribe(channel, recorder.handle)

        for channel in channels:
            await cluster.event_queue.publish(channel, channel)

        runs = await recorder.finished(len(channels))
        assert {run.delivery.channel: run.payload for run in runs} == dict(
            zip(channels, channels, strict=True)
        )

    async def test_a_second_copy_of_an_id_is_not_run_by_the_same_instance(
        self, bench: Bench
    ) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish(CHANNEL, 1, message_id="order-17")
        await recorder.finished()

        await cluster.event_queue.publish(CHANNEL, 1, message_id="order-17")
        await cluster.event_queue.publish(CHANNEL, 2, message_id="order-18")

        await recorder.finished(2)
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == ["order-17", "order-18"]

    async def test_purge_drops_what_waits_and_says_how_many(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        assert await cluster.event_queue.purge(CHANNEL) == 0
        await cluster.event_queue.publish_many(CHANNEL, range(5))
        await bench.ready(cluster, CHANNEL, 5)

        assert await cluster.event_queue.purge(CHANNEL) == 5

        await cluster.event_queue.publish(CHANNEL, "after")
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await recorder.finished()
        await bench.settled(CHANNEL, cluster)
        assert recorder.payloads == ["after"]

    async def test_stats_count_what_this_instance_did(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await cluster.event_queue.publish_many(CHANNEL, range(4))
        await recorder.finished(4)
        await bench.settled(CHANNEL, cluster)

        stats = cluster.event_queue.stats()[CHANNEL]
        assert (stats.published, stats.started, stats.done, stats.running) == (4, 4, 4, 0)
        assert (stats.retried, stats.dead, stats.stuck) == (0, 0, 0)
