"""The commands below ``dead-letters``."""

from __future__ import annotations

from typing import Annotated

import typer

from cluster_kit.cli.options import (
    App,
    AsJson,
    Channel,
    MessageId,
    MessageIds,
    Shared,
    Url,
)
from cluster_kit.cli.reporting import reporting

dead_letters_app = typer.Typer(
    help="Look at dead letters, run them again, or drop them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dead_letters_app.command("list")
def list_(
    channel: Channel,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show the oldest N.")] = 100,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """List the dead letters of a channel, oldest first."""
    from cluster_kit.cli.dead_letters import Box, list_letters

    with reporting():
        list_letters(Box.of(channel, url, app, shared=shared), limit=limit, as_json=as_json)


@dead_letters_app.command()
def show(
    channel: Channel,
    message_id: MessageId,
    *,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about one dead letter."""
    from cluster_kit.cli.dead_letters import Box, show_letter

    with reporting():
        show_letter(Box.of(channel, url, app, shared=shared), message_id, as_json=as_json)


@dead_letters_app.command()
def replay(
    channel: Channel,
    ids: MessageIds = None,
    *,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="At most N a second.", min=0.001)
    ] = None,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Publish dead letters as tasks again, with all their attempts."""
    from cluster_kit.cli.dead_letters import Box, replay_letters

    with reporting():
        replay_letters(
            Box.of(channel, url, app, shared=shared), ids or None, rate=rate, as_json=as_json
        )


@dead_letters_app.command()
def discard(
    channel: Channel,
    ids: MessageIds = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Drop dead letters for good."""
    from cluster_kit.cli.dead_letters import Box, discard_letters

    with reporting():
        discard_letters(
            Box.of(channel, url, app, shared=shared), ids or None, yes=yes, as_json=as_json
        )


@dead_letters_app.command()
def export(
    channel: Channel,
    *,
    shared: Shared = False,
    url: Url = None,
    app: App = None,
    as_json: AsJson = False,
) -> None:
    """Print every dead letter as a line of JSON, nothing left out."""
    from cluster_kit.cli.dead_letters import Box, export_letters

    del as_json  # it is always JSON; the option is there because every command has it
    with reporting():
        export_letters(Box.of(channel, url, app, shared=shared))
