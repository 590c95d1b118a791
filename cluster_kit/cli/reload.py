"""Restarts workers when code changes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from cluster_kit.cli.processes import Pool
from cluster_kit.cli.reporting import say
from cluster_kit.errors import ConfigurationError


async def restart_on_change(pool: Pool) -> None:
    """Restart `pool` whenever a ``.py`` file below the working directory changes."""
    from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType] - it names trio's types

    folder = Path.cwd()
    async for changes in awatch(folder, watch_filter=PythonFilter(), debounce=400):
        names = sorted({Path(path).name for _, path in changes})
        say(f"changed: {', '.join(names)}; restarting")
        pool.restart()


def require_watchfiles() -> None:
    """Check that the optional package is there.

    Raises:
        ConfigurationError: it is not; the text has what to type.
    """
    if find_spec("watchfiles") is None:
        text = "--reload needs watchfiles: pip install 'cluster-kit[reload]'"
        raise ConfigurationError(text)
