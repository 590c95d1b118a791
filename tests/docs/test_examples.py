from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, Block, all_blocks, run

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MARK = "\n# Output:\n"
LONGEST_LINES = 60


def as_block(path: Path) -> Block:
    """An example as a block of a document: its code, and the output it announces."""
    code, _, comment = path.read_text().partition(MARK)
    output = "".join(f"{line.removeprefix('# ')}\n" for line in comment.splitlines())
    name = str(path.relative_to(ROOT))
    return Block(document=name, line=1, language="python", code=code, output=output)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_prints_what_it_says(path: Path, tmp_path: Path) -> None:
    block = as_block(path)

    assert block.output, "it has no '# Output:' at its end"
    run(block, tmp_path)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    code = path.read_text()
    head = ast.get_docstring(ast.parse(code), clean=False) or ""

    assert len(code.splitlines()) - len(head.splitlines()) < LONGEST_LINES
    assert "\n\nNeeds " in head, "its first lines do not say what it shows and what it needs"


def test_the_first_program_of_the_readme_is_the_first_example() -> None:
    shown = next(block for block in all_blocks() if block.language == "python")
    example = as_block(EXAMPLES[0])

    assert shown.document == "README.md"
    assert statements(shown.code) in statements(example.code)
    assert shown.output == example.output


def statements(code: str) -> str:
    lines = (line.rstrip() for line in code.splitlines())
    return "\n".join(line for line in lines if line)
