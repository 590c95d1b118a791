"""Scenarios: tasks that take their workers with them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cluster_kit.message import Delivery
from cluster_kit.testing.contracts.event_queue.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.event_queue.bench import Bench
from cluster_kit.testing.recorder import Recorder, until
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.event_queue.dead_letters import DeadLetters


@pytest.mark.asyncio
class CrashScenarios(Scenarios):
    """A task that kills its workers ends as a dead letter, and harms nobody for long."""

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_a_task_that_kills_its_workers_is_dead_as_crashed(self, bench: Bench) -> None:
        keeper = await bench.cluster(crash_limit=2)
        published = await keeper.event_queue.publish(CHANNEL, 1, max_retries=0)
        attempts: list[tuple[int, bool]] = []
        for _ in range(3):  # crash_limit redeliveries are allowed
            victim = await bench.cluster(crash_limit=2)
            recorder = Recorder(until(asyncio.Event()))
            victim.event_queue.subscribe(CHANNEL, recorder.handle)
            [run] = await recorder.started()
            attempts.append((run.delivery.attempt, run.delivery.redelivered))
            await bench.environment.cut_off(victim)
            assert await victim.stop(timeout=0) == [published]

        never = Recorder()
        keeper.event_queue.subscribe(CHANNEL, never.handle)

        [letter] = await bench.dead(keeper, CHANNEL)
        assert attempts == [(1, False), (1, True), (1, True)]
        assert (letter.id, letter.reason, letter.attempts) == (published, "crashed", 0)
        assert (letter.payload, never.runs) == (1, [])

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_what_runs_beside_a_task_that_kills_its_workers_is_done_in_the_end(
        self, bench: Bench
    ) -> None:
        keeper, deadly, done = await bench.cluster(crash_limit=4), asyncio.Event(), set[object]()
        flags: dict[object, list[bool]] = {}

        async def work(payload: object, delivery: Delivery) -> None:
            flags.setdefault(payload, []).append(delivery.redelivered)
            if payload == "kills":
                deadly.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0.05)
            done.add(payload)

        [killer] = await keeper.event_queue.publish_many(CHANNEL, ["kills"])
        await keeper.event_queue.publish_many(CHANNEL, range(3))
        letters = keeper.event_queue.dead_letters(CHANNEL)
        for _ in range(6):  # the first run, crash_limit redeliveries, and one that buries it
            deadly.clear()
            victim = await bench.cluster(crash_limit=4)
            victim.event_queue.subscribe(CHANNEL, work, concurrency=4)
            await eventually(lambda: self._ended(deadly, letters))
            if not deadly.is_set():
                break
            await bench.environment.cut_off(victim)
            await victim.stop(timeout=0)
        keeper.event_queue.subscribe(CHANNEL, work, concurrency=4)

        await eventually(lambda: done == {0, 1, 2})  # some after a while in the broker
        await bench.settled(CHANNEL, keeper)
        assert [(letter.id, letter.reason) for letter in await letters.browse()] == [
            (killer, "crashed")
        ]
        assert all(seen == [False, *[True] * (len(seen) - 1)] for seen in flags.values())

    @pytest.mark.timeout(180)  # seconds; it takes about 15
    @pytest.mark.needs("link_faults", "several_instances")
    async def test_several_tasks_that_kill_their_workers_bury_no_other(self, bench: Bench) -> None:
        keeper, deadly, done = await bench.cluster(crash_limit=6), asyncio.Event(), set[object]()

        async def work(payload: str) -> None:
            if payload.startswith("kills"):
                deadly.set()
                await asyncio.Event().wait()
            await asyncio.sleep(0.5)  # never the first to end beside one that kills
            done.add(payload)

        tasks = ["good 1", "kills 1", "good 2", "kills 2", "good 3"]
        ids = dict(zip(tasks, await keeper.event_queue.publish_many(CHANNEL, tasks), strict=True))
        letters = keeper.event_queue.dead_letters(CHANNEL)
        killers = {ids["kills 1"], ids["kills 2"]}
        victim, deaths = keeper, 0
        while await letters.count() < len(killers):
            if deaths in {4, 8}:  # while those before are suspects; a third might bury one of them
                killers.add(await keeper.event_queue.publish(CHANNEL, f"kills {deaths}"))
            deadly.clear()
            victim = await bench.cluster(crash_limit=6)
            victim.event_queue.subscribe(CHANNEL, work, concurrency=8)
            await eventually(partial(self._ended, deadly, letters, len(killers)))
            if deadly.is_set():
                await bench.environment.cut_off(victim)
                await victim.stop(timeout=0)
                deaths += 1

        await eventually(lambda: done == {"good 1", "good 2", "good 3"})
        await bench.settled(CHANNEL, keeper, victim)
        dead = await letters.browse()
        assert {letter.reason for letter in dead} == {"crashed"}
        assert {letter.id for letter in dead} == killers
        assert deaths <= len(killers) * 7  # each as often as alone, at most

    @pytest.mark.needs("link_faults", "several_instances")
    async def test_losses_that_a_run_outlived_are_no_crashes(self, bench: Bench) -> None:
        keeper, victim = await bench.clusters(2, crash_limit=2)
        lasting = Recorder(until(asyncio.Event()))
        victim.event_queue.subscribe(CHANNEL, lasting.handle)
        published = await victim.event_queue.publish(CHANNEL, 1)
        await lasting.started()
        beats, cuts = Recorder(), 0
        victim.event_queue.subscribe("beats", beats.handle)
        while len(bench.reports("task.renewed", id=published)) < 3:
            await bench.cut(victim)
            await bench.healthy(victim)
            await bench.consuming(keeper, CHANNEL)
            await bench.settled(CHANNEL, keeper)  # it is in the hands of the victim again
            await victim.event_queue.publish("beats", None)
            await beats.finished(cuts := cuts + 1)
        assert lasting.ids == [published]

        await bench.environment.cut_off(victim)
        await victim.stop(timeout=0)
        again = Recorder()
        keeper.event_queue.subscribe(CHANNEL, again.handle)

        [run] = await again.finished()
        assert (run.delivery.id, run.delivery.attempt) == (published, 1)
        await bench.settled(CHANNEL, keeper)
        assert again.ids == [published]
        assert await keeper.event_queue.dead_letters(CHANNEL).count() == 0

    @staticmethod
    async def _ended(deadly: asyncio.Event, letters: DeadLetters, killers: int = 1) -> bool:
        return deadly.is_set() or await letters.count() >= killers
