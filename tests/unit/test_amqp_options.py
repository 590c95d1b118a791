from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_kit.errors import ConfigurationError, UnknownOptionError
from cluster_kit_amqp.options import Host, parse_url


def test_the_shortest_url_has_defaults() -> None:
    options = parse_url("amqp://mq")

    assert options.hosts == (Host("mq", 5672),)
    assert (options.user, options.password, options.vhost) == ("guest", "guest", "/")
    assert (options.declare, options.heartbeat, options.connect_timeout) == ("auto", 10, None)
    assert options.shuffle
    assert not options.tls
    assert options.tls_context() is None


def test_a_full_url() -> None:
    options = parse_url(
        "amqps://us%2Fer:p%40%3A%25@h1:1,[::1]:2,h3/a%2Fb"
        "?declare=none&heartbeat=3&connect_timeout=1.5&shuffle=false&verify=no"
        "&name=web%20one&frame_max=65536&channel_max=9&auth=external&certfile=c.pem"
    )

    assert options.hosts == (Host("h1", 1), Host("::1", 2), Host("h3", 5671))
    assert [str(host) for host in options.hosts] == ["h1:1", "[::1]:2", "h3:5671"]
    assert (options.user, options.password, options.vhost) == ("us/er", "p@:%", "a/b")
    assert (options.declare, options.heartbeat, options.connect_timeout) == ("none", 3, 1.5)
    assert not options.shuffle
    assert options.tls
    assert (options.name, options.frame_max, options.channel_max) == ("web one", 65536, 9)
    assert (options.auth, options.certfile) == ("external", "c.pem")


def test_tls_without_files_trusts_what_the_system_trusts() -> None:
    assert parse_url("amqps://mq").tls_context() is not None


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "/"), ("/", "/"), ("/%2F", "/"), ("//", "/"), ("/x", "x")]
)
def test_virtual_hosts(path: str, vhost: str) -> None:
    assert parse_url(f"amqp://mq{path}").vhost == vhost


def test_nothing_shows_the_password() -> None:
    options = parse_url("amqp://shop:s3cret@mq/")

    assert "s3cret" not in repr(options)
    assert "s3cret" not in options.url


def test_an_unknown_option_is_named_with_the_closest_known_one() -> None:
    with pytest.raises(UnknownOptionError, match=r"'heartbat'.*did you mean 'heartbeat'"):
        parse_url("amqp://u:s3cret@mq/?heartbat=5")


def test_a_near_miss_of_a_value_is_corrected() -> None:
    text = "must be one of auto, passive, none, not 'nope'; did you mean 'none'?"
    with pytest.raises(ConfigurationError) as caught:
        parse_url("amqp://mq/?declare=nope")

    assert str(caught.value).endswith(text)


@pytest.mark.parametrize(
    ("query", "option"),
    [
        ("declare=automatic", "declare"),
        ("declare=", "declare"),
        ("heartbeat=0", "heartbeat"),
        ("heartbeat=-1", "heartbeat"),
        ("heartbeat=1.5", "heartbeat"),
        ("heartbeat=٣", "heartbeat"),
        ("heartbeat=9999999999999999999999", "heartbeat"),
        ("connect_timeout=0", "connect_timeout"),
        ("connect_timeout=nan", "connect_timeout"),
        ("connect_timeout=inf", "connect_timeout"),
        ("connect_timeout=soon", "connect_timeout"),
        ("shuffle=maybe", "shuffle"),
        ("heartbeat=5&heartbeat=6", "heartbeat"),
        ("cafile=/x", "cafile"),
        ("verify=false", "verify"),
        ("frame_max=4096", "frame_max"),
        ("frame_max=134217729", "frame_max"),
        ("channel_max=0", "channel_max"),
        ("channel_max=65536", "channel_max"),
        ("name=", "name"),
        ("name=" + "x" * 201, "name"),
        ("auth=kerberos", "auth"),
        ("auth=external", "auth"),
    ],
)
def test_a_bad_value_names_its_option(query: str, option: str) -> None:
    with pytest.raises(ConfigurationError, match=f"option '{option}'") as caught:
        parse_url(f"amqp://u:s3cret@mq/?{query}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://",
        "amqp:///vhost",
        "http://mq/",
        "amqp://u:s3cret@",
        "amqp://u:s3cret@mq:port/",
        "amqp://u:s3cret@mq:99999/",
        "amqp://u:s3cret@a,,b/",
        "amqp://u:s3cret@[::1/",
        "amqp://u:s3cr#et@mq/",
        "amqps://u:s3cret@mq/?keyfile=x",
        "amqps://u:s3cret@mq/?auth=external",
        "amqp://u:s3cret@mq/" + "x" * 256,
    ],
)
def test_a_bad_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)
    assert "s3cret" not in str(caught.value)


PIECES = ("k3wqz", "v8zjx", "p5xmq", "7hgtv")


@st.composite
def passwords(draw: st.DrawFn) -> str:
    """Pieces that are easily found again, and what nobody should leave unencoded around them."""
    odd = st.text("/?#@[]:&=%,;", max_size=3)
    return "".join(draw(odd) + piece for piece in PIECES) + draw(odd)


@given(
    passwords(),
    st.sampled_from(["amqp", "amqps"]),
    st.sampled_from(
        ["mq/prod", "mq", "mq-1,mq-2:5673/prod?heartbeat=5", "mq/?heartbat=5", "mq:x/"]
    ),
)
def test_no_piece_of_a_password_is_shown_wherever_it_is_odd(
    password: str, scheme: str, rest: str
) -> None:
    try:
        shown = repr(parse_url(f"{scheme}://shop:{password}@{rest}"))
    except ConfigurationError as exc:
        shown = f"{exc!r} {''.join(traceback.format_exception(exc))}"

    assert [piece for piece in PIECES if piece in shown] == []


def test_a_missing_certificate_file_is_named() -> None:
    options = parse_url("amqps://mq/?cafile=/no/such/file.pem")

    with pytest.raises(ConfigurationError, match="certificates"):
        options.tls_context()
