from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "cluster_kit"
CORE = sorted(
    path for path in ROOT.rglob("*.py") if not {"cli", "testing"} & {*path.relative_to(ROOT).parts}
)


def test_every_constant_of_the_core_says_what_it_is() -> None:
    assert [f"{path.name}: {name}" for path in CORE for name in undocumented(path)] == []


def undocumented(path: Path) -> Iterator[str]:
    body = ast.parse(path.read_text()).body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.Assign) and not is_text(following):
            named = (name for target in statement.targets for name in ast.walk(target))
            names = [name.id for name in named if isinstance(name, ast.Name)]
            yield from (name for name in names if re.fullmatch(r"[A-Z][A-Z0-9_]+", name))


def is_text(statement: ast.stmt | None) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
