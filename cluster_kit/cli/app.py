"""The commands: their arguments and help. What they do is in the modules beside this one."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster_kit.cli.dead_letters_app import dead_letters_app
from cluster_kit.cli.options import (
    App,
    AsJson,
    Channel,
    Delay,
    DemoUrl,
    Headers,
    MaxRetries,
    NewId,
    Shared,
    Timeout,
    Ttl,
    Url,
    Version,
)
from cluster_kit.cli.reporting import reporting

HELP = "Look after the tasks of an application that runs as several instances."

# Plain help and errors: the same in a terminal, a pipe and a log, and quick to come.
app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(dead_letters_app, name="dead-letters")


@app.callback(help=HELP)
def program(*, version: Version = False) -> None:
    """Take the options of the program itself."""
    del version  # shown by its callback


@app.command()
def demo(
    *,
    instances: Annotated[
        int, typer.Option(min=2, max=20, metavar="N", help="How many instances.")
    ] = 3,
    url: DemoUrl = None,
    as_json: AsJson = False,
) -> None:
    """Watch a small cluster keep every promise."""
    from cluster_kit.cli.demo import show

    with reporting():
        show(instances=instances, url=url, as_json=as_json)


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(metavar="MODULE:CLUSTER", help="A Cluster, or a function that makes one."),
    ],
    *,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="So many processes, kept running."),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Restart when a .py file changes below here.")
    ] = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run an application until SIGTERM, then drain it.

    SIGINT is the same. Exits 0 after a complete drain and 1 when the time ran out. A second
    signal ends it at once.
    """
    from cluster_kit.cli.run import Launch, launch

    with reporting():
        launch(
            Launch(target, url=url, app=app, as_json=as_json),
            workers=workers,
            reload=reload,
            lifeline=lifeline,
        )


@app.command()
def publish(
    channel: Channel,
    payload: Annotated[
        str, typer.Argument(metavar="PAYLOAD_JSON", help="JSON; - reads standard input.")
    ],
    *,
    delay: Delay = None,
    ttl: Ttl = None,
    timeout: Timeout = None,
    max_retries: MaxRetries = None,
    message_id: NewId = None,
    header: Headers = None,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Publish a task and print its id once it is stored."""
    from cluster_kit.cli.session import Access
    from cluster_kit.cli.tasks import Task, publish_task, read_headers, read_payload

    task = Task(
        channel=channel,
        payload=read_payload(payload),
        delay=delay,
        ttl=ttl,
        timeout=timeout,
        max_retries=max_retries,
        message_id=message_id,
        headers=read_headers(header or []),
        shared=shared,
    )
    with reporting():
        publish_task(Access(url, app, shared=shared), task, as_json=as_json)


@app.command()
def queues(*, url: Url = None, app: App = None, as_json: AsJson = False) -> None:
    """List an application's queues and how full they are.

    Channels that applications share belong to none and are not listed.
    """
    from cluster_kit.cli.session import Access
    from cluster_kit.cli.tasks import list_queues

    with reporting():
        list_queues(Access(url, app), as_json=as_json)


@app.command()
def adapters(*, as_json: AsJson = False) -> None:
    """List the installed adapters and the URLs they serve."""
    from cluster_kit.cli.adapters import list_adapters

    with reporting():
        list_adapters(as_json=as_json)
