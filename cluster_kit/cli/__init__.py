"""The command line. Everything costly is imported by the command that needs it."""

from __future__ import annotations

PROGRAM = "cluster-kit"


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong use."""
    from cluster_kit.cli.app import app

    app(prog_name=PROGRAM)
