"""TLS and the client certificate. The authority whose certificates lie beside this is forgotten."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from pamqp import commands

from cluster_kit_amqp.link import DialFailed
from cluster_kit_amqp.options import parse_url
from cluster_kit_amqp.plane.link import dial
from tests.unit.amqp_server import Peer, served

pytestmark = pytest.mark.asyncio

FILES = Path(__file__).parent / "certificates"
CA, SERVER, CLIENT = (str(FILES / name) for name in ("ca.pem", "server.pem", "client.pem"))
EXPIRED = str(FILES / "expired.pem")  # signed by itself


def server_context(certificate: str = SERVER) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=CA)
    context.load_cert_chain(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def dial_tls(url: str, query: str) -> None:
    options = parse_url(f"amqps{url.removeprefix('amqp')}?{query}")
    link = await dial(options, options.hosts[0], tls=options.tls_context(), name="test")
    await link.close()


@pytest.mark.parametrize(("auth", "mechanism"), [("plain", "PLAIN"), ("external", "EXTERNAL")])
async def test_a_certificate_of_the_client_is_shown(auth: str, mechanism: str) -> None:
    told: list[Any] = []

    async def server(peer: Peer) -> None:
        certificate = peer.writer.get_extra_info("peercert")
        told.append(dict(part[0] for part in certificate["subject"])["commonName"])
        await peer.start(mechanisms="PLAIN EXTERNAL")
        told.append(await peer.expect(commands.Connection.StartOk))
        peer.send(0, commands.Connection.Tune(0, 131072, 0))
        await peer.expect(commands.Connection.Open)
        peer.send(0, commands.Connection.OpenOk())

    async with served(server, tls=server_context()) as url:
        await dial_tls(url, f"cafile={CA}&certfile={CLIENT}&auth={auth}")

    assert told[0] == "client"
    assert told[1].mechanism == mechanism
    assert told[1].response == ("" if auth == "external" else "\0guest\0guest")


@pytest.mark.parametrize(
    ("certificate", "query", "reason"),
    [
        (SERVER, f"certfile={CLIENT}", "certificate in certificate chain"),
        (EXPIRED, f"cafile={EXPIRED}&certfile={CLIENT}", "certificate has expired"),
    ],
)
async def test_a_certificate_of_the_server_that_is_not_accepted_is_told(
    certificate: str, query: str, reason: str
) -> None:
    async def server(peer: Peer) -> None:
        await peer.start()

    async with served(server, tls=server_context(certificate)) as url:
        with pytest.raises(DialFailed) as caught:
            await dial_tls(url, query)

    assert caught.value.reason.startswith("the server's certificate is not accepted: ")
    assert caught.value.reason.endswith(reason)


async def test_a_client_without_a_certificate_is_refused_in_words() -> None:
    async def server(peer: Peer) -> None:
        await peer.start()

    async with served(server, tls=server_context()) as url:
        with pytest.raises(DialFailed) as caught:
            await dial_tls(url, "verify=false")

    assert caught.value.reason
    assert len(caught.value.reason.splitlines()) == 1


async def test_a_server_without_tls_is_no_server_with_tls() -> None:
    async def server(peer: Peer) -> None:
        peer.raw(b"AMQP\x00\x00\x09\x01")

    async with served(server) as url:
        with pytest.raises(DialFailed, match="speaks no TLS on this port"):
            await dial_tls(url, f"cafile={CA}")
