"""Scenarios: rows that somebody else wrote, or changed."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import text, update

from cluster_kit.clock import SystemClock
from cluster_kit.testing.contracts.outbox.base import CHANNEL, Scenarios
from cluster_kit.testing.contracts.outbox.refusals import OTHER, execute, publish, subscribed
from cluster_kit.testing.contracts.outbox.relaying import status
from cluster_kit.testing.recorder import Recorder
from cluster_kit.testing.waiting import eventually

if TYPE_CHECKING:
    from cluster_kit.testing.contracts.outbox.bench import Bench


def _shown(wrong: object) -> str:
    if not isinstance(wrong, dict):
        return str(wrong)
    columns = cast("dict[str, object]", wrong)
    return ",".join(f"{name}={value}" for name, value in columns.items())


async def _given_up(bench: Bench, **wrong: object) -> str:
    """Spoil the first of two rows of a key; return why it is given up. The second is sent."""
    recorder = Recorder()
    instance = await subscribed(bench, recorder, start=False)
    table = instance.outbox.table
    await publish(bench, instance, (CHANNEL, 1), (CHANNEL, 2))
    spoil = update(table).where(table.c.position == 1).values(**wrong)
    await bench.run(partial(execute, spoil))

    await instance.cluster.start()

    await recorder.finished()
    assert recorder.payloads == [2]
    [failed] = await eventually(instance.outbox.failed)
    assert failed.attempts == 1
    await eventually(lambda: status(instance)[0] == "degraded")
    return failed.error


@pytest.mark.asyncio
class RowScenarios(Scenarios):
    """What makes no sense is kept as failed, and keeps nobody waiting."""

    @pytest.mark.parametrize(
        "wrong",
        [
            {"options": []},
            {"kind": "letter"},
            {"lane": -1},
            {"lane": 16},
            *(
                pytest.param(wrong, marks=pytest.mark.needs("lax"))
                for wrong in (
                    {"options": text("'{broken'")},
                    {"body": text("'no bytes'")},
                    {"attempts": text("'none'"), "kind": "letter"},
                    {"created_at": text("'yesterday'"), "kind": "letter"},
                    {"lane": text("'first'")},
                )
            ),
        ],
        ids=_shown,
    )
    async def test_a_row_that_makes_no_sense_is_given_up(
        self, bench: Bench, wrong: dict[str, object]
    ) -> None:
        error = await _given_up(bench, **wrong)
        assert error.startswith("DecodeError: outbox row 1: ")
        assert ("its lane is" in error) is ("lane" in wrong)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"channel": ""}, "bad channel ''"),
            ({"channel": "two words"}, "bad channel 'two words'"),
            ({"channel": "#", "kind": "sync"}, "bad channel '#'"),
            ({"channel": "x" * 199 + "é", "kind": "pubsub"}, "bad channel 'xxx"),
            ({"channel": f"{CHANNEL}.dead"}, f"bad channel '{CHANNEL}.dead'"),
            ({"channel": "ck.v1.x", "options": {"shared": True}}, "bad channel 'ck.v1.x'"),
            ({"id": ""}, "bad message id ''"),
            *(
                pytest.param(wrong, said, marks=pytest.mark.needs("lax"))
                for wrong, said in (
                    ({"channel": text("x'61'")}, "bad channel b'a': it must be a string"),
                    ({"content_type": text("x'61'")}, "its content_type is no text but bytes"),
                    ({"origin": text("x'61'"), "kind": "sync"}, "its origin is no text but bytes"),
                )
            ),
        ],
        ids=_shown,
    )
    async def test_a_row_with_a_name_that_is_none_is_given_up(
        self, bench: Bench, wrong: dict[str, object], said: str
    ) -> None:
        error = await _given_up(bench, **wrong)
        assert error.startswith(f"DecodeError: outbox row 1: {said}")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("expires_at", "soon"),
            ("expires_at", 1e300),
            ("timeout", "x"),
            ("timeout", 0),
            ("max_retries", "many"),
            ("max_retries", -5),
            ("headers", [1, 2]),
            ("headers", {"a": {"b": [1]}}),
            ("headers", {"a": 2**63}),
            ("headers", {"a" * 256: 1}),
            ("headers", {"a\ud800": 1}),
            ("headers", {"a": "\ud800"}),
            ("shared", "maybe"),
        ],
    )
    async def test_a_row_with_an_option_that_makes_no_sense_is_given_up(
        self, bench: Bench, option: str, value: object
    ) -> None:
        error = await _given_up(bench, options={option: value})
        assert error.startswith(f"DecodeError: outbox row 1: its options: {option}")

    @pytest.mark.needs("lax")
    @pytest.mark.parametrize("failed", ["2", "-1", "'yes'"])
    async def test_a_row_that_is_failed_in_a_way_of_its_own_is_failed(
        self, bench: Bench, failed: str
    ) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, start=False)
        outbox = instance.outbox
        ids = await publish(bench, instance, (CHANNEL, 1), (CHANNEL, 2))
        spoil = update(outbox.table).where(outbox.table.c.position == 1)
        await bench.run(partial(execute, spoil.values(failed=text(failed))))

        await instance.cluster.start()

        await recorder.finished()
        assert recorder.payloads == [2]
        assert [message.id for message in await outbox.failed()] == ids[:1]
        depth = await eventually(lambda: bench.reports("outbox.depth"))
        assert (depth[-1]["pending"], depth[-1]["failed"]) == (0, 1)
        assert (await outbox.stats()).failed == 1
        assert await outbox.replay(ids) == 1
        await recorder.finished(2)

    @pytest.mark.parametrize("ahead", [3600.0, 365 * 24 * 3600.0, math.inf, math.nan])
    async def test_a_key_does_not_wait_for_a_time_that_is_further_than_any_delay(
        self, bench: Bench, ahead: float
    ) -> None:
        recorder = Recorder()
        instance = await subscribed(bench, recorder, start=False)
        table = instance.outbox.table
        ids = await publish(bench, instance, (CHANNEL, 1), (OTHER, 2), (CHANNEL, 3))
        now = SystemClock().wall()  # that of a relay whose clock was set back was later
        for position, seconds in ((1, ahead), (2, 25.0)):
            change = update(table).where(table.c.position == position)
            await bench.run(partial(execute, change.values(retry_at=now + seconds)))

        await instance.cluster.start()

        await recorder.finished(2)
        assert recorder.payloads == [1, 3]
        assert instance.faults.tried == [ids[0], ids[2]]  # the other may wait as long
