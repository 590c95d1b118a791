from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOL: dict[str, Any] = PROJECT["tool"]
ADAPTERS = sorted(path.name for path in (ROOT / "adapters").iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_is_declared_wherever_packages_are_listed(adapter: str) -> None:
    name = adapter.removeprefix("cluster_kit_")
    linter = TOOL["importlinter"]
    contracts = {contract["name"]: contract for contract in linter["contracts"]}
    lists = {
        "tool.hatch.build.targets.wheel.packages": TOOL["hatch"]["build"]["targets"]["wheel"][
            "packages"
        ],
        "tool.coverage.run.source_pkgs": TOOL["coverage"]["run"]["source_pkgs"],
        "tool.ruff.lint.isort.known-first-party": TOOL["ruff"]["lint"]["isort"][
            "known-first-party"
        ],
        "tool.importlinter.root_packages": linter["root_packages"],
        "the core knows no adapter": contracts["the core knows no adapter and no driver"][
            "forbidden_modules"
        ],
        "adapters do not know each other": contracts["adapters do not know each other"]["modules"],
        "adapters see ports": contracts["adapters see ports and below, never services"][
            "source_modules"
        ],
    }

    assert [
        place
        for place, listed in lists.items()
        if adapter not in {entry.split("/")[-1] for entry in listed}
    ] == []
    assert (
        PROJECT["project"]["entry-points"]["cluster_kit.adapters"].get(name) == f"{adapter}:ADAPTER"
    )


def test_an_adapter_may_see_no_layer_above_the_ports() -> None:
    contracts = {contract["name"]: contract for contract in TOOL["importlinter"]["contracts"]}
    layers = contracts["the core is layered, and every module has its layer"]["layers"]
    above = [name for layer in layers[: layers.index("ports")] for name in layer.split(" | ")]

    forbidden = contracts["adapters see ports and below, never services"]["forbidden_modules"]
    assert sorted(forbidden) == sorted(f"cluster_kit.{name}" for name in above)


@pytest.mark.parametrize("package", ["cluster_kit", *(f"adapters/{name}" for name in ADAPTERS)])
def test_a_package_can_be_imported_and_is_typed(package: str) -> None:
    assert (ROOT / package / "__init__.py").exists()
    assert (ROOT / package / "py.typed").exists()


def test_the_newest_release_of_the_changelog_is_this_version() -> None:
    releases = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert releases[0] == PROJECT["project"]["version"]
    assert importlib.metadata.version("cluster-kit") == releases[0], (
        "the installed one is older: make test"
    )


def test_every_make_target_says_what_it_is_for() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    targets = re.findall(r"^([a-z]+):(.*)$", makefile, re.MULTILINE)

    assert [name for name, rest in targets if " ## " not in rest] == []
    told = [name for name in " ".join(phony).split() if name != "$(CHECKS)"]  # parts of check
    assert sorted(told) == sorted(name for name, _ in targets)


SCRIPTS = [
    name for name in (".ci/run", "scripts/servers") if (ROOT / name).parent.exists()
]  # a source distribution has no .ci


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!/")


def test_what_a_source_distribution_takes_along_is_there() -> None:
    included = TOOL["hatch"]["build"]["targets"]["sdist"]["include"]

    assert [name for name in included if not (ROOT / name.lstrip("/")).exists()] == []
    assert "/.ci" not in included  # how submissions are taken in here is no part of the product


def test_a_module_that_is_imported_is_a_dependency_by_its_own_name() -> None:
    declared = {
        re.split(r"[<>=\[]", requirement)[0].replace("-", "_")
        for requirement in PROJECT["project"]["dependencies"]
    }
    imported = {
        name.split(".")[0]
        for package in ("cluster_kit", *(f"adapters/{adapter}" for adapter in ADAPTERS))
        for path in (ROOT / package).rglob("*.py")
        if "testing" not in path.parts
        for name in imports(ast.parse(path.read_text()))
    }
    ours = {"cluster_kit", *ADAPTERS}
    # of the extras, a part of pydantic, what python-dotenv is called, what only checkers see
    of_others = {"watchfiles", "uvloop", "redis", "sqlalchemy", "pydantic_core", "dotenv"}
    of_others.add("_typeshed")

    assert imported - ours - of_others - set(sys.stdlib_module_names) - declared == set()


def imports(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return found
