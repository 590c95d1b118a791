from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import run
from tests.docs.test_examples import EXAMPLES, as_block

NAMES_ITS_OWN_SERVER = "memory://"


@pytest.mark.parametrize(
    "path",
    [path for path in EXAMPLES if NAMES_ITS_OWN_SERVER not in path.read_text()],
    ids=lambda path: path.name,
)
def test_prints_the_same_on_rabbitmq(path: Path, tmp_path: Path, rabbitmq: str) -> None:
    run(as_block(path), tmp_path, CLUSTER_KIT_AMQP_URL=rabbitmq)
