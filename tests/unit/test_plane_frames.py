from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat

from cluster_kit_amqp.plane.frames import BODY, HEADER, FrameReader, MalformedError
from cluster_kit_amqp.plane.frames import frame as own_frame

Seen = tuple[int, int, bytes]


def read(pieces: list[bytes], largest: int = 131072) -> list[Seen]:
    seen: list[Seen] = []

    def note(kind: int, channel: int, data: bytes, start: int, stop: int) -> int:
        seen.append((kind, channel, data[start:stop]))
        return stop + 1

    reader = FrameReader(note, largest)
    for piece in pieces:
        reader.feed(piece)
    return seen


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Frames as pamqp writes them, each with its channel."""
    channels = st.integers(1, 65535)
    kinds = st.one_of(
        st.binary(min_size=1, max_size=300).map(body.ContentBody),
        st.integers(0, 2**63).map(lambda tag: commands.Basic.Ack(tag % 2**63)),
        st.text(max_size=40).map(
            lambda text: header.ContentHeader(
                body_size=7, properties=commands.Basic.Properties(app_id=text)
            )
        ),
        st.just(heartbeat.Heartbeat()),
    )
    frames = draw(st.lists(st.tuples(channels, kinds), max_size=12))
    return [
        (0 if isinstance(made, heartbeat.Heartbeat) else channel, frame.marshal(made, channel))
        for channel, made in frames
    ]


@given(streams(), st.lists(st.integers(0, 10_000), max_size=30))
def test_frames_are_found_however_the_stream_is_cut(
    frames: list[tuple[int, bytes]], places: list[int]
) -> None:
    stream = b"".join(raw for _, raw in frames)
    expected = [(raw[0], channel, raw[7:-1]) for channel, raw in frames]

    assert read([stream]) == expected
    assert read(cut(stream, places)) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))]) == expected


@given(st.sampled_from([1, 2, 3, 8]), st.integers(0, 65535), st.binary(max_size=200))
def test_a_frame_made_is_a_frame_read(kind: int, channel: int, payload: bytes) -> None:
    assert read([own_frame(kind, channel, payload)]) == [(kind, channel, payload)]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"AMQP\x00\x01\x00\x00", "another version of AMQP"),
        (b"HTTP/1.1 400 Bad Request", "no AMQP server: it sent b'HTTP/1.1'"),
        (b"\x01\x00\x01\x00\x00\x00\x01xy", "ends in 0x79"),
        (b"\x05\x00\x01\x00\x00\x00\x01x\xce", "no AMQP server"),
        (b"\x01\x00\x01\xff\xff\xff\xff\x00", "at most 4096"),
        (b"\x03\x00\x01\x00\x00\x0f\xf9\x00", "a frame of 4097 bytes"),
    ],
)
def test_what_is_no_frame_is_told_apart(stream: bytes, reason: str) -> None:
    with pytest.raises(MalformedError) as caught:
        read([stream], largest=4096)

    assert reason in str(caught.value)


@given(st.binary(min_size=1, max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_noise_is_refused_or_waited_upon_and_never_anything_else(
    noise: bytes, places: list[int]
) -> None:
    try:
        seen = read(cut(noise, places), largest=4096)
    except MalformedError:
        return
    assert sum(len(payload) + 8 for _, _, payload in seen) <= len(noise)


def test_a_header_may_be_larger_than_agreed_on() -> None:
    [(_, _, header)] = read([own_frame(HEADER, 1, bytes(150_000))], largest=8192)
    assert len(header) == 150_000

    with pytest.raises(MalformedError, match="at most 8192"):
        read([own_frame(HEADER, 1, bytes(200_000))], largest=8192)
    with pytest.raises(MalformedError, match="at most 8192"):
        read([own_frame(BODY, 1, bytes(9000))], largest=8192)
