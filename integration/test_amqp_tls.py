"""What a URL says of TLS, of who logs in and of limits, against a broker that has it all."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from cluster_kit.errors import ConnectError
from cluster_kit.testing.servers import NodeUnavailableError, RabbitServer, start_rabbitmq
from cluster_kit.testing.servers.local import local_node
from cluster_kit.testing.waiting import eventually
from integration.amqp_bench import Taker, bench

pytestmark = [
    pytest.mark.broker,
    pytest.mark.own_broker,
    pytest.mark.asyncio,
    pytest.mark.timeout(180),  # a node may have to be started first
]

FILES = Path(__file__).parents[1] / "tests" / "unit" / "certificates"
CA, SERVER, CLIENT = (str(FILES / name) for name in ("ca.pem", "server.pem", "client.pem"))

LISTEN = """
    application:set_env(rabbit, ssl_options,
        [{cacertfile, "%(ca)s"}, {certfile, "%(server)s"}, {keyfile, "%(server)s"},
         {verify, verify_peer}, {fail_if_no_peer_cert, false}]),
    application:set_env(rabbit, auth_mechanisms, ['PLAIN', 'AMQPLAIN', 'EXTERNAL']),
    application:set_env(rabbit, ssl_cert_login_from, common_name),
    Plugins = rabbit_plugins:enabled_plugins_file(),
    ok = file:write_file(Plugins, "[rabbitmq_auth_mechanism_ssl].\\n"),
    {ok, _, _} = rabbit_plugins:ensure(Plugins),
    Options = rabbit_networking:ensure_ssl(),
    rabbit_networking:start_ssl_listener({"127.0.0.1", %(port)d}, Options, 2).
"""


@pytest.fixture(scope="module")
def node(own_rabbitmq_server: RabbitServer) -> Iterator[RabbitServer]:
    """One whose ports and files are this machine's."""
    if Path(own_rabbitmq_server.origin).is_file():
        yield own_rabbitmq_server
        return
    try:
        own = start_rabbitmq([local_node])
    except NodeUnavailableError as exc:
        pytest.skip(str(exc))
    yield own
    own.close()


@pytest.fixture(scope="module")
def url(node: RabbitServer) -> str:
    """One virtual host for all: the names of applications keep these tests apart."""
    return node.new_url()


@pytest.fixture(scope="module")
def tls_port(node: RabbitServer, url: str) -> int:
    """Where the node speaks TLS, and lets in whoever has a certificate of the user `client`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    node.ctl("eval", LISTEN % {"ca": CA, "server": SERVER, "port": port})
    node.ctl("add_user", "client", "not this way")
    node.ctl("set_permissions", "-p", url.rpartition("/")[2], "client", ".*", ".*", ".*")
    return port


def secured(url: str, port: int, query: str, user: str = "guest:guest@") -> str:
    return f"amqps://{user}127.0.0.1:{port}/{url.rpartition('/')[2]}?{query}"


def connections(node: RabbitServer, vhost: str) -> list[dict[str, Any]]:
    columns = "vhost user ssl auth_mechanism frame_max channel_max timeout client_properties"
    told = node.ctl("--quiet", "list_connections", "--formatter", "json", *columns.split())
    return [row for row in json.loads(told) if row["vhost"] == vhost]


@pytest.mark.parametrize(
    ("query", "user", "mechanism"),
    [
        (f"cafile={CA}", "guest", "PLAIN"),
        (f"cafile={CA}&certfile={CLIENT}", "guest", "PLAIN"),
        (f"cafile={CA}&certfile={CLIENT}&auth=external", "client", "EXTERNAL"),
    ],
)
async def test_tasks_travel_over_tls(
    node: RabbitServer, url: str, tls_port: int, query: str, user: str, mechanism: str
) -> None:
    userinfo = "" if user == "client" else "guest:guest@"
    taker = Taker(acks=True)
    async with bench(secured(url, tls_port, query, userinfo)) as made:
        await made.adapter.consume(made.queue(), prefetch=9, on_delivery=taker)
        await made.publish(made.task(body=bytes(300_000)), made.task())
        await eventually(lambda: len(taker.received) == 2)
        shown = connections(node, url.rpartition("/")[2])

    assert {row["ssl"] for row in shown} == {True}
    assert {(row["user"], row["auth_mechanism"]) for row in shown} == {(user, mechanism)}


NOT_ACCEPTED = "the server's certificate is not accepted: "


@pytest.mark.parametrize(
    ("secure", "query", "reason"),
    [
        (True, "", NOT_ACCEPTED),
        (True, f"cafile={CLIENT}", NOT_ACCEPTED),
        (False, f"cafile={CA}", "the server speaks no TLS on this port, which amqps:// asks for"),
    ],
)
async def test_tls_that_fails_is_one_line_without_a_password(
    url: str, tls_port: int, secure: bool, query: str, reason: str
) -> None:
    port = tls_port if secure else urlsplit(url).port
    assert port is not None
    text = await refusal(secured(url, port, query, "guest:s3cret@"))

    assert reason in text


async def test_a_port_that_speaks_tls_says_so(tls_port: int) -> None:
    text = await refusal(f"amqp://guest:s3cret@127.0.0.1:{tls_port}/")

    assert text.endswith("the server speaks TLS on this port: it needs amqps://")


async def refusal(url: str) -> str:
    async with bench(url, connect=False, connect_timeout=10.0) as made:
        with pytest.raises(ConnectError) as caught:
            await made.adapter.connect()
        text = str(caught.value)
    assert "s3cret" not in text
    assert len(text.splitlines()) == 1
    return text


async def test_what_the_url_says_is_what_the_broker_sees(node: RabbitServer) -> None:
    user, password, vhost = "ops@home", "p@ss/wörd:%#?", "a/b c%2f"
    node.ctl("add_user", user, password)
    node.ctl("add_vhost", vhost)
    node.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    where = f"{urlsplit(node.url).hostname}:{urlsplit(node.url).port}"
    url = (
        f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{where}/{quote(vhost, safe='')}"
    )
    limits = "heartbeat=7&frame_max=65536&channel_max=99&name=till%201"
    async with bench(f"{url}?{limits}") as made:
        await made.publish(made.task(body=bytes(200_000)))
        shown = await eventually(lambda: connections(node, vhost))
        assert password not in repr(made.events)
        assert password not in made.adapter.health().detail
    node.ctl("delete_vhost", vhost)

    assert {row["user"] for row in shown} == {user}
    names = {name for row in shown for key, _, name in row["client_properties"] if "_name" in key}
    assert {"till 1 publish", "till 1 consume"} <= names
    ours = [row for row in shown if row["timeout"] == 7]
    assert {(row["frame_max"], row["channel_max"]) for row in ours} >= {(65536, 99)}
