"""Scenarios: commits that something comes between."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from cluster_kit.errors import CommitUnconfirmed
from cluster_kit.testing.contracts.transactions.base import EACH_KIND, Scenarios

if TYPE_CHECKING:
    from collections.abc import Generator

    from cluster_kit.after_commit import PublishFailure
    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind, Work

EACH_SESSION = pytest.mark.parametrize("kind", ["session", "binds_session", "async_session"])
_ATTEMPTS = 30


class _AppError(Exception):
    pass


@contextmanager
def _broken_listener() -> Generator[None]:
    """An application listens to all commits of sessions, and fails at it."""

    def fail(_: Session) -> None:
        raise _AppError

    event.listen(Session, "after_commit", fail)
    try:
        yield
    finally:
        event.remove(Session, "after_commit", fail)


@pytest.mark.asyncio
class DoubtScenarios(Scenarios):
    """What is committed is sent; what may be is told."""

    @EACH_SESSION
    async def test_an_error_of_another_listener_keeps_nothing_back(
        self, bench: Bench, kind: Kind
    ) -> None:
        work = await bench.environment.work(kind)
        await bench.write(work, 1)
        savepoint = await work.savepoint()
        await bench.write(work, 2)
        with _broken_listener(), pytest.raises(_AppError):
            await savepoint.commit()
        getattr(savepoint.subject, "sync_transaction", savepoint.subject).close()
        await bench.write(work, 3)
        with _broken_listener(), pytest.raises(_AppError):
            await work.commit()
        await work.close()

        assert await bench.heard() == bench.committed() == [1, 2, 3]

    @pytest.mark.parametrize("carried_out", [True, False])
    @EACH_KIND
    async def test_a_commit_without_an_answer_is_told(
        self, bench: Bench, kind: Kind, *, carried_out: bool
    ) -> None:
        failures: list[PublishFailure] = []
        bench.cluster.on_publish_failure(failures.append)
        mend = _commits_without_an_answer(bench, kind, carried_out=carried_out)
        work = await bench.environment.work(kind)
        await work.write(1)
        ids = [await bench.publish(work, text) for text in ("first", "second")]
        with pytest.raises(ConnectionResetError):
            await work.commit()
        mend()
        await work.close()

        assert bench.committed() == ([1] if carried_out else [])
        assert await bench.heard() == []
        assert [failure.id for failure in failures] == ids
        assert all(isinstance(failure.error, CommitUnconfirmed) for failure in failures)
        await failures[0].repeat()
        work = await bench.environment.work(kind)
        await bench.write(work, 2)
        await work.commit()
        await work.close()
        assert await bench.heard() == ["first", 2]

    @pytest.mark.parametrize("kind", ["async_session", "async_binds_session", "async_connection"])
    async def test_a_cancelled_commit_is_heard_of_or_told(self, bench: Bench, kind: Kind) -> None:
        failures: list[PublishFailure] = []
        bench.cluster.on_publish_failure(failures.append)
        for number in range(_ATTEMPTS):
            work = await bench.environment.work(kind)
            await bench.write(work, number)
            await _cancelled_commit(work, number % 6)
            await work.close()

        heard = await bench.heard()
        told = [failure.payload for failure in failures]
        assert set(bench.committed()) <= {*heard, *told}
        assert set(heard) <= set(bench.committed())
        assert not {*heard} & {*told}


async def _cancelled_commit(work: Work, turns: int) -> None:
    """Begin to commit, and be cancelled after some turns of the event loop."""
    committing = asyncio.create_task(work.commit())  # noqa: TID251 - the caller is cancelled
    for _ in range(turns):
        await asyncio.sleep(0)
    committing.cancel()
    await asyncio.wait([committing])


def _commits_without_an_answer(bench: Bench, kind: Kind, *, carried_out: bool) -> Any:  # noqa: ANN401 - a callable
    environment = bench.environment
    engine = environment.async_engine if kind.startswith("async") else environment.engine
    dialect, lost = engine.dialect, True
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:  # noqa: ANN401 - of any driver
        if carried_out or not lost:
            commit(connection)
        else:  # as the server does when it loses a client
            dialect.do_rollback(connection)
        if lost:
            raise ConnectionResetError

    def mend() -> None:
        nonlocal lost
        lost = False

    vars(dialect)["do_commit"] = do_commit
    return mend
