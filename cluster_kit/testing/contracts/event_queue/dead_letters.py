"""Scenarios: looking at dead letters, replaying and discarding them."""

from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ConfigurationError, NotStartedError
from cluster_kit.message import Reject
from cluster_kit.testing.contracts.event_queue.base import AT_ONCE, CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, always, answers
from cluster_kit.testing.waiting import eventually


async def _bury(bench: Bench, cluster: Cluster, n: int) -> list[str]:
    """Leave `n` dead letters on the channel, in order, and no subscriber."""
    recorder = Recorder(always(Reject("buried")))
    cluster.event_queue.subscribe(CHANNEL, recorder.handle)
    ids = [await cluster.event_queue.publish(CHANNEL, n) for n in range(n)]
    await bench.dead(cluster, CHANNEL, n)
    cluster.event_queue.unsubscribe(CHANNEL)
    return ids


@pytest.mark.asyncio
class DeadLetterScenarios(Scenarios):
    """Count, browse, replay, discard."""

    async def test_a_dead_letter_says_everything(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder(always(LookupError("Grüße, 世界")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        before = datetime.now(UTC)  # noqa: TID251 - compared with what the cluster's clock said

        published = await cluster.event_queue.publish(
            CHANNEL, {"n": 1}, headers={"tenant": "a", "n": 5}, max_retries=1
        )

        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.id, letter.channel, letter.reason) == (published, CHANNEL, "failed")
        assert (letter.error_type, letter.attempts) == ("LookupError", 2)
        assert letter.error_text == "Grüße, 世界"
        assert (letter.payload, letter.body) == ({"n": 1}, b'{"n":1}')
        assert dict(letter.headers) == {"tenant": "a", "n": 5}
        assert letter.instance_id == cluster.instance_id
        assert letter.published_at is not None
        assert letter.died_at is not None
        assert abs(letter.published_at - before) < timedelta(seconds=10)
        assert letter.published_at <= letter.died_at
        assert abs(letter.died_at - before) < timedelta(seconds=20)

    async def test_bad_ids_and_rates_are_refused_before_anything_is_done(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        await _bury(bench, cluster, 1)
        letters: Any = cluster.event_queue.dead_letters(CHANNEL)
        for bad in ("abc", 5, [5], [None], [b"x"], True):
            with pytest.raises(ConfigurationError):
                await letters.replay(bad)
            with pytest.raises(ConfigurationError):
                await letters.discard(bad)
        for rate in (0, -1, math.nan, math.inf, 1e-300, "5", True, timedelta(seconds=1)):
            with pytest.raises(ConfigurationError):
                await letters.replay(rate=rate)
        assert await letters.count() == 1

    @pytest.mark.needs("several_instances")
    async def test_what_was_got_before_a_restart_works_after_it(self, bench: Bench) -> None:
        # Beside one that stays: what a hub in memory holds ends with its last instance.
        await bench.cluster()
        cluster = await bench.cluster()
        [buried] = await _bury(bench, cluster, 1)
        letters = cluster.event_queue.dead_letters(CHANNEL)
        await cluster.stop()
        with pytest.raises(NotStartedError):
            await letters.count()

        await cluster.start()
        assert [letter.id for letter in await letters.browse()] == [buried]
        assert await letters.discard() == 1

    async def test_a_channel_without_dead_letters_has_none(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        letters = cluster.event_queue.dead_letters("never.used")
        assert [letter async for letter in letters] == []
        assert await letters.count() == 0
        assert await letters.browse() == []
        assert await letters.replay() == 0
        assert await letters.discard() == 0

    async def test_browse_shows_the_oldest_and_takes_nothing_away(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 5)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        assert [letter.id for letter in await letters.browse(limit=3)] == ids[:3]
        assert await letters.browse(limit=0) == []
        found = await bench.dead(cluster, CHANNEL, 5)
        assert [ids.index(letter.id) for letter in found] == [0, 1, 2, 3, 4]
        assert await letters.count() == 5

    async def test_what_a_reader_holds_does_not_count_meanwhile(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        await _bury(bench, cluster, 3)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        async with aclosing(aiter(letters)) as found:
            await anext(found)
            await eventually(letters.count, lambda count: count == 2)
            await anext(found)
            await eventually(letters.count, lambda count: count == 1)

        await eventually(letters.count, lambda count: count == 3)

    async def test_an_iteration_shows_all_in_order_and_takes_nothing_away(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 4)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        for _ in range(2):
            assert [letter.id async for letter in letters] == ids

        assert await letters.count() == 4

    async def test_an_iteration_that_is_left_gives_back_what_it_has_shown(
        self, bench: Bench
    ) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 4)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        async with aclosing(aiter(letters)) as shown:
            assert [(await anext(shown)).id for _ in range(3)] == ids[:3]
            shown_elsewhere = [letter.id for letter in await letters.browse()]

        assert set(shown_elsewhere) <= set(ids[3:])
        assert [letter.id for letter in await bench.dead(cluster, CHANNEL, 4)] == ids

    async def test_an_error_text_of_any_size_is_cut_and_kept(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(always(Reject("🦊" * 500_000)))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        published = await cluster.event_queue.publish(CHANNEL, "x" * 100_000)

        [letter] = await bench.dead(cluster, CHANNEL)
        assert letter.id == published
        body_bytes, text_bytes = len(letter.body), len(letter.error_text.encode())
        assert body_bytes == 100_002
        assert text_bytes < 100_000
        assert letter.error_text[:100] == "🦊" * 100

    async def test_replay_runs_everything_again_from_the_first_attempt(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        recorder = Recorder(answers(*[ValueError("no")] * 4))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, retry=AT_ONCE)
        ids = await cluster.event_queue.publish_many(
            CHANNEL, ["a", "b"], max_retries=1, headers={"tenant": "a"}
        )
        await bench.dead(cluster, CHANNEL, 2)

        assert await cluster.event_queue.dead_letters(CHANNEL).replay() == 2

        runs = (await recorder.finished(6))[4:]
        assert sorted(run.delivery.id for run in runs) == sorted(ids)
        assert {(run.delivery.attempt, run.delivery.max_retries) for run in runs} == {(1, 1)}
        assert [dict(run.delivery.headers) for run in runs] == [{"tenant": "a"}] * 2
        await bench.settled(CHANNEL, cluster)
        assert await cluster.event_queue.dead_letters(CHANNEL).count() == 0

    async def test_replay_takes_only_the_ids_it_is_given(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 5)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        assert await letters.replay([ids[3], ids[1], "unknown"]) == 2

        recorder = Recorder()
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)
        await recorder.finished(2)
        assert sorted(recorder.ids) == sorted([ids[1], ids[3]])
        left = await bench.dead(cluster, CHANNEL, 3)
        assert [letter.id for letter in left] == [ids[0], ids[2], ids[4]]

    async def test_a_replayed_task_that_fails_again_is_dead_again(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        [id_] = await _bury(bench, cluster, 1)
        recorder = Recorder(always(ValueError("again")))
        cluster.event_queue.subscribe(CHANNEL, recorder.handle, max_retries=0)

        assert await cluster.event_queue.dead_letters(CHANNEL).replay([id_]) == 1

        await recorder.finished()
        [letter] = await bench.dead(cluster, CHANNEL)
        assert (letter.id, letter.reason, letter.error_text) == (id_, "failed", "again")

    @pytest.mark.needs("ttl")
    async def test_a_replayed_task_does_not_expire_at_once(self, bench: Bench) -> None:
        cluster, recorder = await bench.cluster(), Recorder()
        published = await cluster.event_queue.publish(CHANNEL, 1, ttl=0.2)
        await bench.dead(cluster, CHANNEL)

        assert await cluster.event_queue.dead_letters(CHANNEL).replay() == 1
        cluster.event_queue.subscribe(CHANNEL, recorder.handle)

        await recorder.finished()
        assert recorder.ids == [published]

    async def test_replay_keeps_to_its_rate(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        await _bury(bench, cluster, 4)
        letters = cluster.event_queue.dead_letters(CHANNEL)
        loop = asyncio.get_running_loop()

        begun = loop.time()
        assert await letters.replay(rate=5) == 4

        assert loop.time() - begun > 0.5  # 3 pauses of 0.2 s between 4 letters
        for bad in (0, -1):
            with pytest.raises(ConfigurationError):
                await letters.replay(rate=bad)

    async def test_discard_takes_only_the_ids_it_is_given(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 4)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        assert await letters.discard([ids[0], ids[2], "unknown"]) == 2

        left = await bench.dead(cluster, CHANNEL, 2)
        assert [letter.id for letter in left] == [ids[1], ids[3]]
        assert await letters.discard([]) == 0

    async def test_discard_without_ids_empties_it(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        await _bury(bench, cluster, 4)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        assert await letters.discard() == 4

        assert await letters.count() == 0
        assert await letters.browse() == []

    async def test_a_single_id_in_place_of_a_list_is_refused(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        [id_] = await _bury(bench, cluster, 1)
        letters = cluster.event_queue.dead_letters(CHANNEL)

        with pytest.raises(ConfigurationError):
            await letters.replay(id_)
        with pytest.raises(ConfigurationError):
            await letters.discard(id_)

        assert await letters.count() == 1

    async def test_purge_leaves_dead_letters_alone(self, bench: Bench) -> None:
        cluster = await bench.cluster()
        ids = await _bury(bench, cluster, 2)
        await bench.settled(CHANNEL, cluster)
        await cluster.event_queue.publish(CHANNEL, "waiting")
        await bench.ready(cluster, CHANNEL, 1)

        assert await cluster.event_queue.purge(CHANNEL) == 1

        assert [letter.id for letter in await bench.dead(cluster, CHANNEL, 2)] == ids
