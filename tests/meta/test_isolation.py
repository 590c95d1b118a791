from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


TESTS = ("cluster_kit/settings/model.py", "tests/unit/test_cluster.py")


def test_settings_of_whoever_runs_the_tests_do_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("CLUSTER_KIT_DRAIN_TIMEOUT=soon\n")
    monkeypatch.setenv("CLUSTER_KIT_NO_SUCH_THING", "1")
    monkeypatch.setenv("cluster_kit_app", "two words")

    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "-k", "name or url"]
    done = subprocess.run(
        [*command, "-c", str(ROOT / "pyproject.toml"), *(str(ROOT / tests) for tests in TESTS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
