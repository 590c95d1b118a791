"""What error collectors see of a start that failed: texts, and the variables of every frame."""

from __future__ import annotations

import re
import traceback
from typing import Any

import pytest

from cluster_kit import Cluster, Settings
from cluster_kit.errors import AdapterUnavailableError, ClusterKitError, ConnectError
from cluster_kit.ports import AdapterSpec

SECRET = "hidden-word"
NOBODY = f"amqp://shop:{SECRET}@127.0.0.1:1/"
REDIS = f"redis://shop:{SECRET}@127.0.0.1:1/0"
MEMORY = "memory://secrets"


def settings(capability: str, url: str) -> Settings:
    """Give the URL to one capability alone; those that are named by their own take it as such."""
    if capability.endswith("_url"):
        values: dict[str, Any] = {capability: url}
    else:
        values = {capability: {"url": url}}
    return Settings(**{"event_queue": {"url": MEMORY}, "pubsub": {"url": MEMORY}} | values)


def collected(error: BaseException) -> str:
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


async def failed_start(cluster: Cluster) -> ClusterKitError:
    try:
        await cluster.start()
    except ClusterKitError as error:
        return error
    raise AssertionError("it started")


class Away:
    """An adapter of anything, which cannot be connected."""

    def __init__(self, url: str, _context: object) -> None:
        self._url = url

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_: None

    async def connect(self) -> None:
        raise ConnectError(self._url, "wrong password", retryable=False)

    async def close(self) -> None:
        pass


@pytest.mark.asyncio
@pytest.mark.parametrize("capability", ["event_queue", "pubsub", "locks"])
async def test_a_server_that_refuses_names_its_setting_and_shows_no_secret(capability: str) -> None:
    url = f"away://shop:{SECRET}@mq/"
    cluster = Cluster("shop", settings=settings(capability, url))
    away: Any = {capability: Away}
    cluster.registry.register(AdapterSpec(name="away", schemes=("away",), **away))

    error = await failed_start(cluster)

    source = f"{capability}.url (CLUSTER_KIT_{capability.upper()}__URL)"
    assert str(error) == f"{source}: cannot connect to away://shop:***@mq/: wrong password"
    assert isinstance(error, ConnectError)
    assert (error.url, error.reason, error.retryable) == (
        "away://shop:***@mq/",
        "wrong password",
        False,
    )
    assert SECRET not in collected(error)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("capability", "url"),
    [
        ("event_queue", NOBODY),
        ("event_queue", f"{NOBODY}?nope=1"),
        ("event_queue", f"{NOBODY}?heartbeat=x"),
        ("event_queue", f"amqps://shop:{SECRET}@127.0.0.1:1/?cafile=/none"),
        ("event_queue", REDIS),
        ("event_queue", NOBODY.replace("amqp", "amqq")),
        ("pubsub", NOBODY),
        ("pubsub", f"{NOBODY}?nope=1"),
        ("locks", NOBODY),
        ("locks", REDIS),
        ("locks", f"{REDIS}?nope=1"),
        ("locks", NOBODY.replace("amqp", "amqq")),
        ("cache", REDIS),
        ("cache", f"{REDIS}?nope=1"),
        ("cache", NOBODY),
        ("redis_url", f"{REDIS}?nope=1"),
    ],
)
async def test_no_frame_of_a_failed_start_shows_a_secret(capability: str, url: str) -> None:
    error = await failed_start(Cluster("shop", settings=settings(capability, url)))

    assert re.match(rf"{capability}\S* \(CLUSTER_KIT_{capability.upper()}", str(error))
    assert SECRET not in collected(error)


@pytest.mark.asyncio
async def test_a_driver_that_lacks_shows_no_secret() -> None:
    def lacking(url: str, _context: object) -> Any:
        raise ModuleNotFoundError("No module named 'kafka'", name="kafka")

    cluster = Cluster("shop", settings=settings("event_queue", f"kafka://shop:{SECRET}@mq/"))
    cluster.registry.register(AdapterSpec(name="kafka", schemes=("kafka",), event_queue=lacking))

    error = await failed_start(cluster)

    assert isinstance(error, AdapterUnavailableError)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    assert SECRET not in collected(error)


@pytest.mark.asyncio
async def test_what_is_connected_by_its_first_use_names_its_setting_too() -> None:
    cluster = Cluster("shop", settings=Settings(amqp_url=NOBODY, event_queue={"url": MEMORY}))
    async with cluster:
        with pytest.raises(ConnectError) as caught:
            await cluster.pubsub.subscribe("news", print)

    error = caught.value
    assert str(error).startswith("amqp_url (CLUSTER_KIT_AMQP_URL): cannot connect to amqp://shop:*")
