"""The commands: their names, arguments and help. What they do is in modules beside this one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from cluster_kit.cli import options
from cluster_kit.cli.dead_letters_app import dead_letters_app

# Plain help and errors: the same in a terminal, a pipe and a log, and quick to come.
app = typer.Typer(
    help="Look after the tasks of an application that runs as several instances.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(dead_letters_app, name="dead-letters")


@app.callback()
def program(
    *,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option(
            "--version", callback=options.show_version, is_eager=True, help="Show it and exit."
        ),
    ] = False,
) -> None:
    """Look after the tasks of an application that runs as several instances."""


@app.command()
def demo(
    *,
    instances: Annotated[
        int, typer.Option(min=2, max=20, metavar="N", help="How many instances.")
    ] = 3,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=options.url,
            help="A RabbitMQ; the instances are then processes. Without: all in memory.",
        ),
    ] = None,
    app: options.DemoApp = "cluster-kit-demo",
    as_json: options.AsJson = False,
) -> None:
    """Watch a small cluster keep every promise of the queue, and what is measured of it."""
    from cluster_kit.cli.demo import show  # noqa: PLC0415

    show(instances=instances, url=url, app=app, as_json=as_json)


@app.command()
def run(  # noqa: PLR0913 - each parameter is an option
    target: Annotated[
        str, typer.Argument(metavar="MODULE:CLUSTER", help="A Cluster or a function making one.")
    ],
    *,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Processes, kept running."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a .py file changes here.")
    ] = False,
    url: options.Url = None,
    app: options.App = None,
    as_json: options.AsJson = False,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run an application until SIGTERM or SIGINT, then drain it.

    Exits 0 after a complete drain, 1 when time ran out. A second signal ends it at once.
    """
    from cluster_kit.cli.run import Request, run_target  # noqa: PLC0415

    run_target(
        Request(
            target=target,
            workers=workers,
            reload=reload,
            url=url,
            app=app,
            as_json=as_json,
            parent=parent,
        )
    )


@app.command()
def publish(  # noqa: PLR0913 - each parameter is an option
    channel: options.Channel,
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD_JSON", help="JSON; '-' reads standard input.")
    ],
    *,
    delay: options.Seconds("Wait so long before the first run.") = None,  # type: ignore[valid-type]
    url: options.Url = None,
    app: options.App = None,
    as_json: options.AsJson = False,
) -> None:
    """Publish a task and print its id once the broker has stored it."""
