"""For tests, integration tests and doctests alike."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from cluster_kit.settings.places import is_setting

ROOT = Path(__file__).resolve().parent


def pytest_collection_finish() -> None:
    """Thousands of tests stay for the whole run: no collection of garbage looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_settings_of_whoever_runs_the_tests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither their variables count nor a .env file of theirs; those of the harness do."""
    for name in tuple(os.environ):
        if is_setting(name):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of programs that tests start by module
