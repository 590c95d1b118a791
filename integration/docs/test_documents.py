from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cluster_kit.testing.servers.rabbitmq import RabbitServer
from tests.docs.documents import Block, all_blocks, run


@pytest.mark.timeout(180)  # a block may start half a dozen programs
@pytest.mark.parametrize(
    "block", [block for block in all_blocks() if block.runs and block.kind == "needs"], ids=str
)
def test_does_what_the_document_says(
    block: Block, tmp_path: Path, rabbitmq: str, rabbitmq_server: RabbitServer
) -> None:
    run(
        block,
        tmp_path,
        CLUSTER_KIT_AMQP_URL=rabbitmq,
        # For the fixtures of a block that runs pytest: they would start a server of their own.
        CLUSTER_KIT_TEST_AMQP_URL=rabbitmq_server.url,
        CLUSTER_KIT_TEST_AMQP_CTL=shlex.join(rabbitmq_server.ctl_command),
    )
