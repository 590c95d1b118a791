from __future__ import annotations

import os

import pytest
from hypothesis import settings

# The same examples everywhere, and no verdict on how fast the machine is.
settings.register_profile("unit", deadline=None, derandomize=True, database=None, max_examples=60)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the caller's environment would say to every `Settings` of a test."""
    for name in os.environ:
        if name.startswith("CLUSTER_KIT_") and not name.startswith("CLUSTER_KIT_TEST_"):
            monkeypatch.delenv(name)
