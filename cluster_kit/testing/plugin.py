"""The pytest plugin: found by pytest through its entry point, starts nothing unasked."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from cluster_kit.testing.selection import Selection

# Before anything imports them: pytest rewrites assertions only in modules it loads itself.
pytest.register_assert_rewrite("cluster_kit.testing.contracts")


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker of contracts; add the fixtures where pytest-asyncio is installed."""
    config.addinivalue_line(
        "markers",
        "needs(*features): a contract's scenario; dropped where the adapter declares that it "
        "lacks one of these features",
    )
    config.pluginmanager.register(Selection(), "cluster-kit-selection")
    if find_spec("pytest_asyncio") is not None:
        config.pluginmanager.import_plugin("cluster_kit.testing.fixtures")
