from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings

# The same examples everywhere, and no verdict on how fast the machine is.
settings.register_profile("unit", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("unit")

ON_UVLOOP_TOO = frozenset(
    {
        "test_plane_close",
        "test_plane_flow",
        "test_plane_hostile",
        "test_plane_recovery",
        "test_plane_tls",
    }
)
"""The modules in which there are sockets."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
        "asyncio": asyncio.new_event_loop
    }
    if item.path.stem in ON_UVLOOP_TOO:
        factories["uvloop"] = uvloop.new_event_loop
    return factories
