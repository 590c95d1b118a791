"""The command ``demo``: a small cluster keeps its promises while one watches and measures."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass

import typer

from cluster_kit.cli.demo.journal import BrokenPromise, Journal
from cluster_kit.cli.demo.local import LocalInstance
from cluster_kit.cli.demo.processes import ProcessInstance
from cluster_kit.cli.demo.promise import Promise
from cluster_kit.cli.demo.promises import PROMISES
from cluster_kit.cli.demo.settings import MEMORY
from cluster_kit.cli.demo.stage import Instance, Stage
from cluster_kit.cli.output import Column, print_json, print_table
from cluster_kit.cli.reporting import FAILED, fail
from cluster_kit.clock import SystemClock
from cluster_kit.errors import ClusterKitError
from cluster_kit.names import new_id
from cluster_kit.urls import redact_url, url_scheme


@dataclass(frozen=True, slots=True)
class Row:
    """What became of a promise."""

    promise: str
    happened: str
    proved: bool
    seconds: float


def show(*, instances: int, url: str | None, as_json: bool) -> None:
    """Run the demo, print its table, and exit 1 when a promise is broken.

    Raises:
        ClusterKitError: the instances cannot be started.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # failing is what the demo is about
    rows = asyncio.run(_play(instances, url or f"{MEMORY}://demo-{new_id()}"))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        typer.echo("", err=True)
        columns = (
            Column("promise", fold=True),
            Column("what happened", fold=True),
            Column("proved"),
        )
        print_table(columns, [(r.promise, r.happened, "yes" if r.proved else "NO") for r in rows])
    broken = sum(not row.proved for row in rows)
    if broken:
        fail(f"{broken} of {len(rows)} promises broken", FAILED)


async def _play(instances: int, url: str) -> list[Row]:
    local = url_scheme(url) == MEMORY
    where = "objects of one process" if local else f"processes on {redact_url(url)}"
    typer.echo(f"{instances} instances, {where}", err=True)

    def make(name: str, journal: Journal) -> Instance:
        kind = LocalInstance if local else ProcessInstance
        return kind(url, name, journal)

    stage = Stage(url, make)
    try:
        await stage.open(instances)
        return [row async for row in _prove(stage)]
    except BrokenPromise as exc:
        raise ClusterKitError(str(exc)) from exc
    finally:
        await stage.close()


async def _prove(stage: Stage) -> AsyncIterator[Row]:
    clock = SystemClock()
    for promise in PROMISES:
        typer.echo(f"  {promise.text} ... ", nl=False, err=True)
        begun = clock.monotonic()
        happened, proved = await _try(promise, stage)
        seconds = clock.monotonic() - begun
        typer.echo(f"{'proved' if proved else 'BROKEN'} in {seconds:.1f} s", err=True)
        yield Row(promise.text, happened, proved, round(seconds, 3))


async def _try(promise: Promise, stage: Stage) -> tuple[str, bool]:
    try:
        await stage.fill_up()
        return await promise.prove(stage), True
    except BrokenPromise as exc:
        return str(exc), False
    except ClusterKitError as exc:
        return f"{type(exc).__name__}: {exc}", False
