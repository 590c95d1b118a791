from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster_kit.ports import AdapterContext, AdapterSpec, EventQueueAdapter
from tests.cli.support import APPLICATION, Broker, Program


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Broker:
    """A hub in a file, under a scheme of its own: it outlives a command, as a broker does."""

    def make(url: str, context: AdapterContext) -> EventQueueAdapter:
        from cluster_kit_memory.event_queue import MemoryEventQueue  # noqa: PLC0415

        return MemoryEventQueue("memory" + url.removeprefix("filed"), context)

    spec = AdapterSpec(name="filed", schemes=("filed",), event_queue=make)
    entry = SimpleNamespace(name="filed", value="", load=lambda: spec)
    monkeypatch.setattr("cluster_kit.registry.entry_points", lambda group: [entry])
    return Broker(f"filed://hub?path={tmp_path / 'hub.db'}")


@pytest.fixture
def application(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(APPLICATION)
    return path


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*arguments: str, **env: str) -> Program:
        folder = tmp_path / f"program-{len(started)}"
        folder.mkdir()
        started.append(Program(folder, *arguments, env=env))
        return started[-1]

    yield start
    for one in started:
        one.end()
