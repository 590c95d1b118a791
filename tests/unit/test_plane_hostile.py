from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from pamqp import body, commands, header, heartbeat

from cluster_kit.testing.waiting import eventually
from cluster_kit_amqp.link import Channel, DialFailed, Link, LinkDown, Message
from tests.unit.amqp_server import Peer, Script, dialled, linked, served

pytestmark = pytest.mark.asyncio


def nobody(*_: object) -> None: ...


# --- before it is open -----------------------------------------------------------------------


async def other_version(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(b"AMQP\x01\x01\x00\x0a")


async def web_server(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def tls_server(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(b"\x15\x03\x01\x00\x02\x02\x0a")


async def hangs_up(peer: Peer) -> None:
    await peer.greeted()
    peer.writer.close()


async def hangs_up_after_start(peer: Peer) -> None:
    await peer.start()
    await peer.expect(commands.Connection.StartOk)
    peer.writer.close()


async def resets(peer: Peer) -> None:
    await peer.greeted()
    peer.writer.transport.abort()


async def wrong_order(peer: Peer) -> None:
    await peer.greeted()
    peer.send(0, commands.Connection.Tune(1, 131072, 1))


async def oversize(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(struct.pack(">BHI", 1, 0, 1 << 20))


async def wrong_end(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(struct.pack(">BHI", 1, 0, 4) + b"\x00\x0a\x00\x0a" + b"\x00")


async def cut_off_method(peer: Peer) -> None:
    await peer.greeted()
    peer.raw(struct.pack(">BHI", 1, 0, 4) + b"\x00\x0a\x00\x0a" + b"\xce")


async def odd_table(peer: Peer) -> None:
    await peer.greeted()
    table = b"\x01a?"
    payload = b"\x00\x0a\x00\x0a\x00\x09" + struct.pack(">I", len(table)) + table
    peer.raw(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")


async def other_mechanisms(peer: Peer) -> None:
    await peer.start(mechanisms="GSSAPI AMQPLAIN")


async def challenges(peer: Peer) -> None:
    await peer.start()
    await peer.expect(commands.Connection.StartOk)
    peer.send(0, commands.Connection.Secure("what?"))


async def tiny_frames(peer: Peer) -> None:
    await peer.start()
    await peer.expect(commands.Connection.StartOk)
    peer.send(0, commands.Connection.Tune(1, 512, 1))


async def refuses(peer: Peer) -> None:
    await peer.start()
    await peer.expect(commands.Connection.StartOk)
    peer.send(0, commands.Connection.Close(403, "ACCESS_REFUSED - who are you", 0, 0))
    await peer.expect(commands.Connection.CloseOk)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (other_version, "another version of AMQP"),
        (web_server, "no AMQP server"),
        (tls_server, "the server speaks TLS on this port: it needs amqps://"),
        (hangs_up, "the peer closed the connection"),
        (hangs_up_after_start, "the peer closed the connection"),
        (resets, "reset|the peer closed"),
        (wrong_order, "method 10.30 came out of place"),
        (oversize, "a frame of 1048584 bytes"),
        (wrong_end, "ends in 0x00"),
        (cut_off_method, "cannot be decoded"),
        (odd_table, "cannot be decoded"),
        (other_mechanisms, "no authentication PLAIN, it has GSSAPI, AMQPLAIN"),
        (challenges, "method 10.20 came out of place"),
        (tiny_frames, "frames of 512 bytes only"),
        (refuses, "403 ACCESS_REFUSED - who are you"),
    ],
)
async def test_a_bad_beginning_is_told(script: Script, reason: str) -> None:
    async with served(script) as url:
        with pytest.raises(DialFailed, match=reason) as caught:
            await dialled(url)

    assert caught.value.retryable is (script is not refuses)


async def test_a_silent_server_keeps_nobody_beyond_the_caller_s_patience() -> None:
    gone = asyncio.Event()

    async def silent(peer: Peer) -> None:
        await peer.greeted()
        await peer.until_gone()
        gone.set()

    async with served(silent) as url:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await dialled(url)
        await gone.wait()


async def test_what_both_sides_can_do_is_agreed_on() -> None:
    told: list[Any] = []

    async def server(peer: Peer) -> None:
        await peer.start()
        told.append(await peer.expect(commands.Connection.StartOk))
        peer.send(0, commands.Connection.Tune(0, 16384, 60))
        told.append(await peer.expect(commands.Connection.TuneOk))
        told.append(await peer.expect(commands.Connection.Open))
        peer.send(0, commands.Connection.OpenOk())

    async with linked(server, query="?heartbeat=7&channel_max=9&frame_max=65536"):
        start, tune, opened = told

    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (9, 16384, 7)
    assert opened.virtual_host == "/"
    assert start.client_properties["connection_name"] == "test"
    assert set(start.client_properties["capabilities"]) == {
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "consumer_cancel_notify",
        "exchange_exchange_bindings",
        "publisher_confirms",
    }


# --- once it is open -------------------------------------------------------------------------

DELIVER = commands.Basic.Deliver("t", 1, False, "x", "k")
HEADER = header.ContentHeader(body_size=3)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([(7, commands.Basic.Ack(1))], "channel 7, which is not open"),
        ([(0, HEADER)], "a message came on channel 0"),
        ([(0, commands.Connection.OpenOk())], "method 10.41 came on channel 0"),
        ([(1, HEADER)], "header of a message came out of place"),
        ([(1, body.ContentBody(b"abc"))], "without its header"),
        ([(1, DELIVER), (1, body.ContentBody(b"abc"))], "without its header"),
        ([(1, DELIVER), (1, DELIVER)], "a method came where a message was to go on"),
        ([(1, DELIVER), (1, HEADER), (1, HEADER)], "header of a message came out of place"),
        (
            [(1, DELIVER), (1, HEADER), (1, body.ContentBody(b"abcd"))],
            "not as long as its header said",
        ),
        (
            [(1, DELIVER), (1, header.ContentHeader(body_size=2**62))],
            "a message of 4611686018427387904 bytes",
        ),
        ([(1, commands.Basic.Ack(99))], "confirmed message 99 of 1"),
        ([(1, commands.Basic.QosOk())], "method 60.11 came out of place"),
        ([(1, commands.Queue.DeclareOk("q", 1, 1))], "method 50.11 came out of place"),
    ],
)
async def test_what_is_out_of_place_ends_the_link_with_its_reason(
    frames: list[tuple[int, Any]], reason: str
) -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(body.ContentBody)
        for channel, made in frames:
            peer.send(channel, made)

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        with pytest.raises(LinkDown, match=reason):
            await channel.publish("x", "k", Message(body=b"1"))

        assert reason in (link.lost or "")
        assert not channel.open
        with pytest.raises(LinkDown) as caught:
            await channel.publish("x", "k", Message(body=b"1"))
        assert not caught.value.sent


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack(">BHI", 1, 1, 4) + b"\x00\x3c\x00\x3c\xce",  # basic.deliver without arguments
        struct.pack(">BHI", 1, 1, 7) + b"\x00\x3c\x00\x3c\xffab\xce",
        struct.pack(">BHI", 1, 1, 2) + b"\x00\x3c\xce",  # half of a method's ids
        struct.pack(">BHI", 1, 1, 4) + b"\x00\x3c\x00\x50\xce",  # basic.ack without a number
        struct.pack(">BHI", 1, 1, 5) + b"\x00\x3c\x00\x1e\x05\xce",  # basic.cancel, cut off
        struct.pack(">BHI", 1, 1, 4) + b"\x00\x14\x00\x28\xce",  # channel.close without a code
        struct.pack(">BHI", 2, 1, 3) + b"\x00\x3c\x00\xce",  # half of a header
        struct.pack(">BHI", 8, 1, 0) + b"\xce",  # a heartbeat where none belongs
        struct.pack(">BHI", 3, 1, 1 << 18),  # larger than agreed on
        b"\xff" * 64,
    ],
)
async def test_mangled_frames_end_the_link_and_hang_nobody(raw: bytes) -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(commands.Queue.Declare)
        peer.raw(raw)

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        with pytest.raises(LinkDown):
            await channel.check_queue("q")
        assert link.lost


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_end_of_the_socket_ends_every_call(how: str) -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(commands.Queue.Declare)
        getattr(peer.writer.transport, how)()

    changes: list[None] = []
    closed: list[str] = []
    async with linked(server) as link:
        link.on_change(lambda: changes.append(None))
        channel = await link.open_channel(confirms=True)
        channel.on_closed(closed.append)
        publishing = asyncio.ensure_future(channel.publish("x", "k", Message(body=b"1")))
        with pytest.raises(LinkDown):
            await channel.check_queue("q")
        with pytest.raises(LinkDown) as caught:
            await publishing

        assert caught.value.sent
        assert closed == [link.lost]
        assert changes == [None]
        await channel.close()
        late: list[str] = []
        channel.on_closed(late.append)
        await eventually(lambda: late == closed)
        with pytest.raises(LinkDown):
            await link.open_channel()


@pytest.mark.parametrize("last", [b"", struct.pack(">BHI", 1, 1, 400) + bytes(200)])
async def test_a_peer_that_freezes_between_frames_or_in_one_is_noticed(last: bytes) -> None:
    async def server(peer: Peer) -> None:
        await peer.open(heartbeat=1)
        await peer.channel_opened()
        await peer.expect(heartbeat.Heartbeat)
        peer.raw(last)
        await peer.until_gone()

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        with pytest.raises(LinkDown, match=r"sent nothing for 1\.5 s"):
            await channel.publish("x", "k", Message(body=b"1"))
        assert link.silence < 2.0 + 0.5  # for a busy machine


async def test_the_broker_closing_the_connection_is_answered_and_told() -> None:
    answered = asyncio.Event()

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        peer.send(0, commands.Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0))
        await peer.expect(commands.Connection.CloseOk)
        answered.set()

    async with linked(server) as link:
        await link.open_channel(confirms=True)
        await answered.wait()
        assert link.lost == "320 CONNECTION_FORCED - bye"


async def test_a_server_that_never_answers_a_close_is_left() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(commands.Basic.Publish)  # which never comes

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await channel.close()
        await link.close()
        assert link.lost == "closed by this side"


# --- channels --------------------------------------------------------------------------------


async def consume(channel: Channel, taken: list[Any], on_cancelled: Callable[[str], None]) -> str:
    return await channel.consume(
        "q",
        prefetch=9,
        on_message=lambda _, incoming: taken.append(incoming),
        on_cancelled=on_cancelled,
    )


async def test_bodies_come_in_one_piece_however_they_travel() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        properties = commands.Basic.Properties(message_id="m", headers={"a": 1})
        peer.deliver(1, 1, b"abc", b"d", b"ef", consumer=tag, properties=properties)
        peer.deliver(1, 2, consumer=tag)
        peer.deliver(1, 3, b"\xce" * 70_000, b"\xce" * 70_000, consumer=tag)
        peer.deliver(1, 4, b"not ours", consumer="another")
        peer.raw(struct.pack(">BHI", 1, 1, 4 + 4 + 8 + 1 + 2) + b"\x00\x3c\x00\x3c")
        peer.raw(b"\x03")
        peer.raw(b"abc" + struct.pack(">Q", 5) + b"\x01\x00\x00\xce")
        peer.send(1, header.ContentHeader(body_size=0))

    taken: list[Any] = []
    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await consume(channel, taken, nobody)
        await eventually(lambda: len(taken) == 3)

    assert [incoming.tag for incoming in taken] == [1, 2, 3]
    assert [len(incoming.message.body) for incoming in taken] == [6, 0, 140_000]
    assert (taken[0].message.message_id, taken[0].message.headers) == ("m", {"a": 1})


async def test_a_message_whose_properties_nobody_can_read_comes_without_them() -> None:
    class Broken(commands.Basic.Properties):
        def marshal(self) -> bytes:
            return b"\x20\x00" + struct.pack(">I", 900) + b"\x01a?"

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        peer.deliver(1, 1, b"abc", consumer=tag, properties=Broken())

    taken: list[Any] = []
    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await consume(channel, taken, nobody)
        await eventually(lambda: taken)

        assert (taken[0].message.headers, taken[0].message.body) == ({}, b"abc")
        assert link.lost is None


async def test_a_handler_of_deliveries_that_fails_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        for number in (1, 2):
            peer.deliver(1, number, b"x", consumer=tag)

    taken: list[int] = []

    def fail_once(_: str, incoming: Any) -> None:
        taken.append(incoming.tag)
        if len(taken) == 1:
            raise RuntimeError("unthinkable")

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await channel.consume("q", prefetch=9, on_message=fail_once, on_cancelled=nobody)
        await eventually(lambda: taken == [1, 2])
        assert link.lost is None
    assert "unthinkable" in caplog.text


async def test_while_a_channel_closes_nothing_of_it_counts() -> None:
    acked: list[Any] = []

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        tag = await peer.consumer()
        peer.deliver(1, 1, b"a", consumer=tag)
        peer.deliver(1, 2, b"b", consumer=tag)
        acked.append(await peer.expect(commands.Basic.Ack))
        await peer.expect(commands.Channel.Close)
        peer.deliver(1, 3, b"late", consumer=tag)
        peer.send(1, commands.Basic.Cancel(tag), body.ContentBody(b"odd"))
        peer.send(1, commands.Channel.Close(404, "at the same time", 0, 0))
        await peer.expect(commands.Channel.CloseOk)
        peer.send(1, commands.Channel.CloseOk())
        await peer.channel_opened(1)

    taken: list[Any] = []
    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await consume(channel, taken, nobody)
        await eventually(lambda: len(taken) == 2)
        channel.ack(1)
        await channel.close()
        assert not channel.open
        await link.open_channel(confirms=True)

        assert len(taken) == 2
        assert link.lost is None
        assert acked[0].delivery_tag == 1


async def test_a_cancelled_call_ends_its_channel_and_no_other() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        await peer.expect(commands.Queue.Declare)
        await peer.channel_opened(2)
        await peer.expect(commands.Channel.Close)
        peer.send(1, commands.Queue.DeclareOk("q", 1, 1), commands.Channel.CloseOk())
        await peer.expect(commands.Queue.Declare)
        peer.send(2, commands.Queue.DeclareOk("q", 5, 6))

    async with linked(server) as link:
        first = await link.open_channel(confirms=True)
        asking = asyncio.ensure_future(first.check_queue("q"))
        await asyncio.sleep(0)  # it has asked
        second = await link.open_channel(confirms=True)
        asking.cancel()
        await asyncio.wait({asking})

        assert not first.open
        assert (await second.check_queue("q")).consumers == 6
        assert link.lost is None


async def test_a_consumer_the_broker_cancels_is_told() -> None:
    answers: list[Any] = []

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        peer.send(1, commands.Basic.Cancel("nobody's", nowait=True))
        peer.send(1, commands.Basic.Cancel(await peer.consumer()))
        answers.append(await peer.expect(commands.Basic.CancelOk))

    cancelled: list[str] = []
    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        tag = await consume(channel, [], cancelled.append)
        await eventually(lambda: answers)

        assert cancelled == [tag]
        assert answers[0].consumer_tag == tag


async def test_blocked_and_unblocked_are_told() -> None:
    unblock = asyncio.Event()

    async def server(peer: Peer) -> None:
        await peer.open_channel()
        peer.send(0, commands.Connection.Blocked("low on memory"))
        await unblock.wait()
        peer.send(0, commands.Connection.Unblocked())

    async with linked(server) as link:
        seen: list[str | None] = []
        link.on_change(lambda: seen.append(link.blocked))
        await link.open_channel(confirms=True)
        await eventually(lambda: seen == ["low on memory"])
        unblock.set()
        await eventually(lambda: seen == ["low on memory", None])


async def test_a_body_larger_than_a_frame_is_split() -> None:
    seen: list[Any] = []

    async def server(peer: Peer) -> None:
        await peer.open(frame_max=8192)
        await peer.channel_opened()
        await peer.expect(commands.Basic.Publish)
        seen.append(await peer.expect(header.ContentHeader))
        while sum(len(part.value) for part in seen[1:]) < seen[0].body_size:
            seen.append(await peer.expect(body.ContentBody))
        peer.send(1, commands.Basic.Ack(1))

    async with linked(server) as link:
        channel = await link.open_channel(confirms=True)
        await channel.publish("x", "k", Message(body=bytes(range(256)) * 100))

    assert [len(part.value) for part in seen[1:]] == [8184, 8184, 8184, 1048]
    assert b"".join(part.value for part in seen[1:]) == bytes(range(256)) * 100


async def test_there_are_no_more_channels_than_agreed_on() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()

    async with linked(server, query="?channel_max=1") as link:
        await link.open_channel(confirms=True)
        with pytest.raises(Exception, match="1 channels"):
            await link.open_channel()


async def publishing_many(link: Link, count: int) -> list[BaseException | None]:
    channel = await link.open_channel(confirms=True)
    tasks = [
        asyncio.ensure_future(channel.publish("x", "k", Message(body=b"1", message_id=str(n))))
        for n in range(count)
    ]
    await asyncio.wait(tasks)
    return [task.exception() for task in tasks]


async def test_each_publish_hears_what_became_of_it() -> None:
    async def server(peer: Peer) -> None:
        await peer.open_channel()
        for _ in range(5):
            await peer.expect(body.ContentBody)
        returned = commands.Basic.Return(312, "NO_ROUTE", "x", "k")
        properties = commands.Basic.Properties(message_id="1")
        peer.send(1, commands.Basic.Ack(3), commands.Basic.Nack(5))
        peer.send(1, returned, header.ContentHeader(body_size=1, properties=properties))
        peer.send(1, body.ContentBody(b"1"), commands.Basic.Ack(4, multiple=True))

    async with linked(server) as link:
        outcomes = await publishing_many(link, 5)

    assert [type(outcome).__name__ for outcome in outcomes] == [
        "NoneType",
        "Returned",
        "NoneType",
        "NoneType",
        "Nacked",
    ]
