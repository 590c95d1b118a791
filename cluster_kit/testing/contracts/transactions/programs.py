"""Interleavings of begin, savepoint, publish, rollback and commit, whatever they are."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.testing.contracts.transactions.bench import Bench
    from cluster_kit.testing.contracts.transactions.environment import Kind, Work

Step = Literal["publish", "savepoint", "release", "undo", "commit", "rollback", "reopen"]

STEPS: tuple[Step, ...] = (
    *("publish", "savepoint", "release", "undo"),
    *("commit", "rollback", "reopen"),
)
"""`release` and `undo` end the innermost savepoint, if there is one; `reopen` closes the session
without a commit, and takes another."""


async def run_program(
    bench: Bench, kind: Kind, steps: Iterable[Step], numbers: count[int]
) -> tuple[list[object], list[int]]:
    """Take the steps; return what was heard, and what is in the database of all `numbers` used.

    Each `publish` also writes the number it publishes, so that the two are equal if all is well.
    """
    first = next(numbers)
    work = await bench.environment.work(kind)
    savepoints: list[Work] = []
    for step in steps:
        if step == "publish":
            await bench.write(work, next(numbers))
        elif step == "savepoint":
            savepoints.append(await work.savepoint())
        elif step in {"release", "undo"}:
            if savepoints:
                savepoint = savepoints.pop()
                await (savepoint.commit() if step == "release" else savepoint.rollback())
        else:
            savepoints.clear()
            work = await _end(bench, kind, work, step)
    await work.close()
    return await bench.heard(), [n for n in bench.committed() if n > first]


async def _end(bench: Bench, kind: Kind, work: Work, step: Step) -> Work:
    if step == "commit":
        await work.commit()
    elif step == "rollback":
        await work.rollback()
    else:
        await work.close()
        return await bench.environment.work(kind)
    return work
