"""The command ``run``: one instance in this process, or several in processes of their own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import typer

from cluster_kit.cli.lifeline import Lifeline
from cluster_kit.cli.loading import load_cluster
from cluster_kit.cli.output import print_json
from cluster_kit.cli.processes import Pool, child_environments
from cluster_kit.cli.reload import require_watchfiles, restart_on_change
from cluster_kit.cli.reporting import (
    FAILED,
    URL_SETTING,
    WRONG_USE,
    is_final,
    is_wrong_use,
    naming_url,
    say,
)
from cluster_kit.errors import ClusterKitError, ConfigurationError, PluginFailedError
from cluster_kit.settings import Settings
from cluster_kit.settings.places import variable

if TYPE_CHECKING:
    from cluster_kit.cluster import Cluster

APP_VARIABLE = "CLUSTER_KIT_APP"
SHARE = "to share them set CLUSTER_KIT_AMQP_URL or give --url"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launch:
    """What is to be run. `url` and `app` stand for their variables."""

    target: str
    url: str | None
    app: str | None
    as_json: bool


def launch(what: Launch, *, workers: int | None, reload: bool, lifeline: int | None) -> NoReturn:
    """Run until told to stop, and exit.

    Raises:
        ClusterKitError: it cannot be loaded or started.
    """
    if what.url is not None:
        os.environ[variable(URL_SETTING)] = what.url
    if what.app is not None:
        os.environ[APP_VARIABLE] = what.app
    if reload:
        require_watchfiles()
    if lifeline is None and (workers is not None or reload):
        raise typer.Exit(asyncio.run(_supervise(what, workers or 1, reload=reload)))
    if lifeline is None:
        _run_here(what, None, 1)
    _run_for_pool(what, Lifeline(lifeline), workers or 1)


# --- in this process -------------------------------------------------------------------------


def _run_for_pool(what: Launch, lifeline: Lifeline, workers: int) -> NoReturn:
    """Run as one of several, of which one alone is to say what all of them refuse."""
    lifeline.watch()
    try:
        _run_here(what, lifeline, workers)
    except ClusterKitError as exc:
        if not is_final(exc):
            raise
        lifeline.refused(str(exc))
        raise typer.Exit(WRONG_USE if is_wrong_use(exc) else FAILED) from exc


def _run_here(what: Launch, lifeline: Lifeline | None, workers: int) -> NoReturn:
    cluster = load_cluster(what.target)
    _check_effect(what, cluster)
    _check_reach(cluster, workers)
    # Has no effect where the application configured logging itself.
    layout = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=layout)
    if lifeline is not None:
        _connect(lifeline, cluster)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            with naming_url(what.url):
                code = runner.run(_serve(what, cluster))
        except KeyboardInterrupt:
            # The second SIGINT: leaving the runner would wait for handlers to be cancelled.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
            raise
    raise typer.Exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return that of uvloop where it is installed, or else none: asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _check_effect(what: Launch, cluster: Cluster) -> None:
    """Refuse options that the application overrides."""
    url = cluster.settings.url_for("event_queue")
    if what.url is not None and url.reveal() != what.url:
        raise ConfigurationError(f"--url has no effect: {what.target} chooses {url}")
    if what.app is not None and cluster.name != what.app:
        raise ConfigurationError(f"--app has no effect: {what.target} is named {cluster.name!r}")


def _check_reach(cluster: Cluster, workers: int) -> None:
    """Say that memory is not shared; refuse workers that could not share out anything.

    Here and not in the supervising process, because the application may choose the URL itself.
    """
    if cluster.settings.url_for("event_queue").scheme != "memory":
        return
    if workers > 1:
        text = f"{workers} workers on memory:// would each keep their tasks; {SHARE}"
        raise ConfigurationError(text)
    say(f"on memory:// tasks stay in this process; {SHARE}")


def _connect(lifeline: Lifeline, cluster: Cluster) -> None:
    settings = cluster.settings
    lifeline.loaded(
        settings.connect_timeout + settings.drain_timeout + settings.event_queue.cancel_grace
    )

    def observe(event: str, _fields: Mapping[str, object]) -> None:
        if event == "cluster.started":
            lifeline.ready()

    cluster.telemetry.subscribe(observe)


async def _serve(what: Launch, cluster: Cluster) -> int:
    try:
        unfinished = await cluster.run_until_signal()
    except PluginFailedError as exc:
        if not isinstance(exc.__cause__, ClusterKitError):  # those say by themselves what is wrong
            log.error("plugin %r failed in %s", exc.plugin, exc.hook, exc_info=exc.__cause__)  # noqa: TRY400
        raise
    if what.as_json:
        print_json({"unfinished": unfinished})
    if unfinished:
        say(f"out of time; cut short: {', '.join(unfinished)}")
    code = FAILED if unfinished else 0
    if left := await _cancelled(cluster.settings.event_queue.cancel_grace):
        # They ignore their cancellation: asyncio would wait for them without end.
        say(f"still running, and left behind: {', '.join(left)}")
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


async def _cancelled(grace: float) -> list[str]:
    """Cancel what the application has left, and return what runs on after `grace` seconds."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        _, left = await asyncio.wait(left, timeout=grace)
    return sorted(task.get_name() for task in left)


# --- in processes of their own ---------------------------------------------------------------


async def _supervise(what: Launch, workers: int, *, reload: bool) -> int:
    command = [sys.executable, "-m", "cluster_kit", "run", what.target, "--workers", str(workers)]
    # What the application overrides is known to the workers alone, once they have loaded it.
    for option, value in (("--url", what.url), ("--app", what.app)):
        command += [] if value is None else [option, value]
    pool = Pool(command, child_environments(workers, Settings().instance_id), patient=reload)
    drained = await (_run_reloading(pool) if reload else pool.run())
    return WRONG_USE if pool.misused else 0 if drained else FAILED


async def _run_reloading(pool: Pool) -> bool:
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(restart_on_change(pool))
        drained = await pool.run()
        watching.cancel()
    return drained
