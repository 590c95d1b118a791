from __future__ import annotations

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import InvalidNameError
from cluster_kit_amqp.topology import check_app


@pytest.mark.asyncio
async def test_an_application_with_a_name_of_the_broker_s_own_is_refused() -> None:
    # Nothing listens there: it is refused before anything is dialled.
    cluster = Cluster("amq", settings=Settings(amqp_url="amqp://127.0.0.1:1/"))
    with pytest.raises(InvalidNameError, match=r"'amq\.' are reserved by RabbitMQ"):
        await cluster.start()


@pytest.mark.asyncio
async def test_in_memory_it_is_a_name_like_any() -> None:
    async with Cluster("amq") as cluster:
        assert cluster.health()["status"] == "ok"


@pytest.mark.parametrize("name", ["amqp", "amq-shop", "xamq"])
def test_others_may_begin_alike(name: str) -> None:
    check_app(name)
