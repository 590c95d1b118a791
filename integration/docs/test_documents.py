from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import Block, all_blocks, run


@pytest.mark.parametrize(
    "block", [block for block in all_blocks() if block.runs and block.kind == "needs"], ids=str
)
def test_does_what_the_document_says(block: Block, tmp_path: Path, rabbitmq: str) -> None:
    run(block, tmp_path, CLUSTER_KIT_AMQP_URL=rabbitmq)
