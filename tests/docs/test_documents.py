from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.docs.documents import ROOT, Block, all_blocks, documents, parse, prose, run

BLOCKS = all_blocks()
LINKING = [*documents(), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
LINK = re.compile(
    r"\[[^\]]*\]\((?P<target>[^)\s]+)[^)]*\)|^\[[^\]]+\]: *(?P<reference>\S+)", re.MULTILINE
)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.runs and not block.kind], ids=str
)
def test_does_what_the_document_says(block: Block, tmp_path: Path) -> None:
    run(block, tmp_path)


def test_every_block_says_what_it_is() -> None:
    assert [problem for block in BLOCKS for problem in block.problems()] == []


def test_the_readme_shows_a_program() -> None:
    assert [
        block
        for block in BLOCKS
        if block.document == "README.md" and block.language == "python" and block.runs
    ]


@pytest.mark.parametrize("document", LINKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [
        match["target"] or match["reference"]
        for match in LINK.finditer(prose(document.read_text()))
    ]
    inner = [link for link in links if not re.match(r"(https?|mailto):", link)]

    assert [link for link in inner if not leads_somewhere(document, link)] == []


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = {
        (index.parent / match["target"]).resolve() for match in LINK.finditer(index.read_text())
    }
    pages = {*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")} - {index}

    assert pages - linked == set()


def leads_somewhere(document: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (document.parent / name) if name else document
    return target.exists() and (not anchor or target.suffix != ".md" or anchor in anchors(target))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ +(.*?) *#*$", prose(document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


SAMPLE = """
<!-- file: shop.py -->
```python
price = 3
```

```python
import shop; print("price", shop.price)
```

```text
price ...
```

<!-- needs: rabbitmq -->
```console
$ cluster-kit queues
none
```

<!-- not run: installs -->
```sh
pip install cluster-kit
```
"""


def test_a_block_knows_its_mark_its_files_and_its_output(tmp_path: Path) -> None:
    file, program, text, needing, install = parse(SAMPLE, "sample.md")

    assert (file.kind, file.value, file.runs) == ("file", "shop.py", False)
    assert (program.output, program.files) == ("price ...\n", {"shop.py": "price = 3\n"})
    assert (text.runs, needing.runs, needing.value) == (False, True, "rabbitmq")
    assert (install.kind, install.value, install.runs) == ("not run", "installs", False)
    run(program, tmp_path)


def test_another_output_than_the_documents_is_a_failure(tmp_path: Path) -> None:
    (program,) = [
        block
        for block in parse('```python\nprint("b")\n```\n```text\na\n```\n', "sample.md")
        if block.runs
    ]

    with pytest.raises(AssertionError, match="wanted"):
        run(program, tmp_path)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        ("a: ...\n}\n", False),  # within its line
        ("a: ...\n...\n}\n", True),
        ("a: ...\nb: ...\n}\n", True),
        ("...\n", True),
    ],
)
def test_dots_stand_for_text_of_a_line_or_alone_for_lines(
    expected: str, found: bool, tmp_path: Path
) -> None:
    program = '```python\nprint("a: 1\\nb: 2\\n}")\n```\n'
    block, _ = parse(f"{program}```text\n{expected}```\n", "sample.md")

    with nullcontext() if found else pytest.raises(AssertionError, match="wanted"):
        run(block, tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("```\nwhat\n```\n", "names no language"),
        ("```sh\nls\n```\n", "is shell"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "empty mark"),
        ("<!-- needs: kafka -->\n```python\n```\n", "other than rabbitmq"),
        ("```console\n$ ls\n```\n", "neither a cluster-kit command"),
    ],
)
def test_a_carelessly_written_block_is_named(text: str, problem: str) -> None:
    (block,) = parse(text, "sample.md")

    assert [told for told in block.problems() if told.startswith("sample.md:") and problem in told]
