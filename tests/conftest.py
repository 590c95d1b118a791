from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_of_whoever_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tuple(os.environ):
        if name.startswith("CLUSTER_KIT_") and not name.startswith("CLUSTER_KIT_TEST_"):
            monkeypatch.delenv(name)
