from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

from cluster_kit.testing.servers.given import URL_VARIABLE

R = TypeVar("R", pytest.TestReport, pytest.CollectReport)

IN_CI = bool(os.environ.get("CI"))
NOT_OURS = pytest.StashKey[int]()
OURS = not os.environ.get(URL_VARIABLE)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "own_broker: stops and starts the broker; not run on one that is not ours"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whether the broker may be stopped is known before the first test: nothing is skipped."""
    if OURS:
        return
    out = [item for item in items if item.get_closest_marker("own_broker")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]
        config.stash[NOT_OURS] = len(out)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if left_out := config.stash.get(NOT_OURS, 0):
        terminalreporter.write_line(
            f"{left_out} tests that stop and start the broker not run: "
            f"the one of {URL_VARIABLE} is not ours"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return _no_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _no_skip(report)


def _no_skip(report: R) -> R:
    """In CI a test that could not be run has failed: green must mean that all of it ran."""
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI is set: {report.longrepr}"
    return report
