"""Scenarios: messages that other programs put into a queue."""

from __future__ import annotations

import asyncio

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.message import Reject
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.contracts.event_queue.environment import ForeignMessage
from cluster_kit.testing.recorder import Recorder, always, answers, until

NOT_JSON = b"\xff\xfe\x00 not JSON \x80"


async def _receiver(bench: Bench, recorder: Recorder, *, concurrency: int = 1) -> Cluster:
    """Return an instance whose queue exists and feeds `recorder`."""
    cluster = await bench.cluster()
    await cluster.event_queue.publish(CHANNEL, "first")
    assert await cluster.event_queue.purge(CHANNEL) == 1
    cluster.event_queue.subscribe(
        CHANNEL, recorder.handle, retry=AT_ONCE, max_retries=1, concurrency=concurrency
    )
    return cluster


async def _put(bench: Bench, message: ForeignMessage) -> None:
    await bench.environment.put(f"{bench.app}.{CHANNEL}", message)


@pytest.mark.asyncio
class ForeignScenarios(Scenarios):
    """Bodies and headers the library did not write."""

    @pytest.mark.needs("foreign_messages")
    @pytest.mark.parametrize(
        "content_type", [None, "application/json", "application/json; charset=utf-8"]
    )
    async def test_plain_json_is_a_task(self, bench: Bench, content_type: str | None) -> None:
        recorder = Recorder()
        cluster = await _receiver(bench, recorder)

        body = '{"n": 1, "text": "Grüße"}'.encode()
        await _put(bench, ForeignMessage(body=body, content_type=content_type))

        [run] = await recorder.finished()
        assert run.payload == {"n": 1, "text": "Grüße"}
        assert run.delivery.id
        assert (run.delivery.attempt, run.delivery.max_retries) == (1, 1)
        await bench.settled(CHANNEL, cluster)

    @pytest.mark.needs("foreign_messages")
    async def test_a_made_up_id_stays_the_same_in_every_attempt(self, bench: Bench) -> None:
        recorder = Recorder(answers(ValueError("first")))
        await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b"1"))

        runs = await recorder.finished(2)
        assert [run.delivery.attempt for run in runs] == [1, 2]
        assert len({run.delivery.id for run in runs}) == 1

    @pytest.mark.needs("foreign_messages")
    async def test_messages_without_an_id_are_not_taken_for_one_another(self, bench: Bench) -> None:
        recorder = Recorder()
        await _receiver(bench, recorder)

        for _ in range(3):
            await _put(bench, ForeignMessage(body=b'"same"'))

        runs = await recorder.finished(3)
        assert len({run.delivery.id for run in runs}) == 3

    @pytest.mark.needs("foreign_messages")
    async def test_an_id_is_known_to_stay_where_somebody_gave_it(self, bench: Bench) -> None:
        recorder = Recorder()
        cluster = await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b"1", message_id="theirs"))
        await cluster.event_queue.publish(CHANNEL, 2)

        runs = await recorder.finished(2)
        assert "theirs" in recorder.ids
        assert all(run.delivery.id_is_stable for run in runs)

    @pytest.mark.needs("foreign_messages", "foreign_metadata")
    async def test_a_made_up_id_stays_from_the_dead_letters_on(self, bench: Bench) -> None:
        recorder = Recorder(answers(Reject("no id")))
        cluster = await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b"1"))
        [letter] = await bench.dead(cluster, CHANNEL)
        await cluster.event_queue.dead_letters(CHANNEL).replay()

        runs = await recorder.finished(2)
        assert runs[1].delivery.id == letter.id
        assert [run.delivery.id_is_stable for run in runs] == [False, True]

    @pytest.mark.needs("foreign_messages")
    async def test_an_undecodable_body_is_dead_without_a_run(self, bench: Bench) -> None:
        recorder = Recorder()
        cluster = await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=NOT_JSON))
        await _put(bench, ForeignMessage(body=b'{"n": NaN}', content_type="application/json"))
        await _put(bench, ForeignMessage(body=b""))
        await _put(bench, ForeignMessage(body=b'"good"'))

        letters = await bench.dead(cluster, CHANNEL, 3)
        await recorder.finished()
        assert recorder.payloads == ["good"]
        assert {letter.reason for letter in letters} == {"undecodable"}
        assert {letter.attempts for letter in letters} == {0}
        assert [letter.body for letter in letters] == [NOT_JSON, b'{"n": NaN}', b""]
        assert [letter.payload for letter in letters] == [None, None, None]
        assert all(letter.error_text for letter in letters)

    @pytest.mark.needs("foreign_messages")
    async def test_another_content_type_is_undecodable(self, bench: Bench) -> None:
        recorder = Recorder()
        cluster = await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b'"text"', content_type="text/plain"))

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.reason, letter.body) == ("undecodable", b'"text"')
        assert "text/plain" in letter.error_text
        assert recorder.runs == []

    @pytest.mark.needs("foreign_messages")
    async def test_an_undecodable_body_survives_a_replay(self, bench: Bench) -> None:
        recorder = Recorder()
        cluster = await _receiver(bench, recorder)
        await _put(bench, ForeignMessage(body=NOT_JSON))
        [before] = await bench.dead(cluster, CHANNEL)

        assert await cluster.event_queue.dead_letters(CHANNEL).replay() == 1

        await bench.reported("task.dead", id=before.id, attempt=1)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.id, letter.body, letter.reason) == (before.id, NOT_JSON, "undecodable")
        assert recorder.runs == []

    @pytest.mark.needs("foreign_messages")
    async def test_foreign_headers_travel_as_they_are(self, bench: Bench) -> None:
        recorder = Recorder(always(ValueError("no")))
        cluster = await _receiver(bench, recorder)
        headers: dict[str, object] = {"tenant": "a", "tags": ["x", 2], "table": {"yes": True}}

        await _put(bench, ForeignMessage(body=b"1", headers=headers))

        runs = await recorder.finished(2)
        [letter] = await bench.dead(cluster, CHANNEL)
        assert [dict(run.delivery.headers) for run in runs] == [headers, headers]
        assert dict(letter.headers) == headers

    @pytest.mark.needs("foreign_metadata")
    async def test_a_foreign_message_id_is_the_tasks_id(self, bench: Bench) -> None:
        recorder = Recorder()
        await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b"1", message_id="order-17"))

        await recorder.finished()
        assert recorder.ids == ["order-17"]

    @pytest.mark.needs("foreign_metadata")
    async def test_one_message_id_for_many_tasks_makes_them_no_copies(self, bench: Bench) -> None:
        gate = asyncio.Event()
        recorder = Recorder(until(gate))
        cluster = await _receiver(bench, recorder, concurrency=3)
        ids = [f"order-{n}" for n in range(4)]
        for id_ in ids:
            message = ForeignMessage(body=b"1", headers={"ck-id": id_}, message_id="the-batch")
            await _put(bench, message)

        await recorder.started(3)  # beside each other, and one after them
        gate.set()
        await recorder.finished(4)
        await bench.settled(CHANNEL, cluster)
        assert recorder.ids == ids

    @pytest.mark.needs("foreign_metadata")
    async def test_well_formed_metadata_is_honoured(self, bench: Bench) -> None:
        recorder = Recorder()
        await _receiver(bench, recorder)

        headers = {
            "ck-id": "order-17",
            "ck-attempt": 3,
            "ck-max-retries": 5,
            "ck-timeout-ms": 5_000,
            "tenant": "a",
        }
        await _put(bench, ForeignMessage(body=b"1", headers=headers, message_id="other"))

        [run] = await recorder.finished()
        delivery = run.delivery
        assert (delivery.id, delivery.attempt, delivery.max_retries) == ("order-17", 3, 5)
        assert dict(delivery.headers) == {"tenant": "a"}

    @pytest.mark.needs("foreign_metadata")
    @pytest.mark.parametrize(
        "lies",
        [
            {"ck-attempt": "many", "ck-max-retries": "x", "ck-timeout-ms": "soon", "ck-id": 5},
            {"ck-attempt": 0, "ck-max-retries": -1, "ck-timeout-ms": 0, "ck-id": ""},
            {"ck-attempt": -7, "ck-max-retries": 2**62, "ck-timeout-ms": -1, "ck-id": "a b"},
            {
                "ck-attempt": 2**62,
                "ck-max-retries": "1.5",
                "ck-timeout-ms": 2**62,
                "ck-id": "x" * 999,
            },
            {"ck-attempt": None, "ck-max-retries": True, "ck-timeout-ms": [], "ck-id": {"a": 1}},
            {"ck-crashes": 1000},  # not theirs to tell
            {"ck-expires-at": 1, "ck-origin": 5},
        ],
    )
    async def test_malformed_metadata_is_ignored(
        self, bench: Bench, lies: dict[str, object]
    ) -> None:
        recorder = Recorder()
        await _receiver(bench, recorder)

        await _put(bench, ForeignMessage(body=b"1", headers=lies))

        [run] = await recorder.finished()
        delivery = run.delivery
        assert (delivery.attempt, delivery.max_retries) == (1, 1)
        assert delivery.id not in {"", "a b", "x" * 999}
        assert (delivery.deadline.timestamp()) > 0
        assert dict(delivery.headers) == {}

    @pytest.mark.needs("foreign_metadata")
    async def test_forged_metadata_of_a_dead_letter_does_no_harm(self, bench: Bench) -> None:
        recorder = Recorder()
        await _receiver(bench, recorder)

        headers = {"ck-reason": "nonsense", "ck-error-type": 5, "ck-origin": [1], "ck-seq": "x"}
        broker = {"x-death": "none", "x-delivery-count": "many"}
        await _put(bench, ForeignMessage(body=b"1", headers={**headers, **broker}))

        [run] = await recorder.finished()
        assert run.delivery.attempt == 1
        assert not [name for name in run.delivery.headers if name.startswith(("ck-", "x-"))]
