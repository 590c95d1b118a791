"""Whatever a hostile server does on one connection, there is another after it."""

from __future__ import annotations

import re
import struct
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pamqp import body, commands, header

from cluster_kit.clock import SystemClock
from cluster_kit.ports import AdapterContext
from cluster_kit.supervisor import Supervisor
from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.connection.supervised import Connection
from cluster_kit_amqp.health import Problems
from cluster_kit_amqp.link import Link
from cluster_kit_amqp.options import Host, parse_url
from cluster_kit_amqp.plane.link import dial
from tests.unit.amqp_server import Peer, served

pytestmark = pytest.mark.asyncio

Attack = Callable[[Peer], Awaitable[None]]


def frame(kind: int, channel: int, size: int, payload: bytes = b"", end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, size) + payload + end


def raw(data: bytes) -> Attack:
    async def attack(peer: Peer) -> None:
        peer.raw(data)

    return attack


async def endless_frame(peer: Peer) -> None:
    peer.raw(frame(1, 1, 2**32 - 1, end=b""))
    await flood(peer, bytes(65536))


async def endless_header(peer: Peer) -> None:
    """As large as a header may be, again and again, and none of them complete."""
    peer.send(1, commands.Basic.Deliver("t", 1, False, "x", "k"))
    peer.raw(frame(2, 1, 2**20, end=b""))
    await flood(peer, bytes(65536))


async def body_beyond_measure(peer: Peer) -> None:
    peer.send(1, commands.Basic.Deliver("t", 1, False, "x", "k"))
    peer.send(1, header.ContentHeader(body_size=2**50))
    await flood(peer, body.ContentBody(bytes(60000)).marshal())


async def flood(peer: Peer, data: bytes) -> None:
    for _ in range(500):
        peer.raw(data)
        await peer.writer.drain()


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


ATTACKS: dict[str, tuple[Attack, str]] = {
    "a frame without its end": (raw(frame(1, 1, 4, b"\x00\x3c\x00\x3c", b"\x00")), "ends in 0x00"),
    "a type of frame nobody knows": (raw(frame(7, 1, 0)), "this is no AMQP server"),
    "a frame larger than agreed on": (endless_frame, "at most 131072 are agreed on"),
    "a header larger than any": (endless_header, "at most 131072 are agreed on"),
    "a channel that is not open": (raw(frame(1, 9, 4, b"\x00\x3c\x00\x50")), "which is not open"),
    "a body beyond measure": (body_beyond_measure, "a message of 1125899906842624 bytes"),
    "a cut off method": (raw(frame(1, 1, 4, b"\x00\x3c\x00\x3c")), "cut off|cannot be decoded"),
    "a confirm of nothing": (
        raw(frame(1, 1, 13, b"\x00\x3c\x00\x50" + (77).to_bytes(8, "big") + b"\x00")),
        "confirmed message 77 of 0",
    ),
}


Events = list[tuple[str, dict[str, object]]]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[Connection, Events]]:
    """A connection that is made again whenever it is lost."""
    events: Events = []
    tasks, options = Supervisor(), parse_url(url)

    def note(event: str, /, **fields: object) -> None:
        events.append((event, fields))

    async def dial_host(host: Host) -> Link:
        return await dial(options, host, tls=None, name="test")

    context = AdapterContext(app="shop", instance_id="one", tasks=tasks, emit=note)
    problems = Problems(SystemClock())
    made = Connection(dial_host, options, context, purpose="publish", problems=problems)
    await made.open(5.0)
    try:
        yield made, events
    finally:
        await made.close()
        assert await tasks.close() == []


@pytest.mark.parametrize(("attack", "reason"), ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_ends_the_link_with_its_reason_and_the_next_one_serves(
    attack: Attack, reason: str
) -> None:
    peers = 0

    async def server(peer: Peer) -> None:
        nonlocal peers
        peers += 1
        await peer.open_channel()
        if peers == 1:
            await attack(peer)

    tracemalloc.start()
    try:
        async with served(server) as url, connected(url) as (connection, events):
            link = await connection.ready()
            await link.open_channel(confirms=True)
            await eventually(lambda: connection.generation == 2)
            again = await connection.ready()
            await again.open_channel(confirms=True)
            assert again.lost is None
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    [lost] = [fields for name, fields in events if name == "connection.lost"]
    assert re.search(reason, str(lost["reason"])), lost
    assert most < 4 * 1024 * 1024


async def test_handshakes_that_stall_or_make_no_sense_are_not_the_last() -> None:
    peers = 0

    async def server(peer: Peer) -> None:
        nonlocal peers
        peers += 1
        match peers:
            case 1:
                await peer.open()
                peer.writer.close()
            case 2:
                await peer.start()
                await peer.expect(commands.Connection.StartOk)  # and nothing more
            case 3:
                await peer.greeted()
                start = b"\x00\x0a\x00\x0a\x00\x09" + nested(30_000)[: 1 << 16]
                peer.raw(frame(1, 0, len(start), start))
            case _:
                await peer.open()

    async with served(server) as url, connected(f"{url}?connect_timeout=0.3") as (connection, _):
        await eventually(lambda: connection.generation == 2)
        assert connection.link is not None

    assert peers == 4
