from __future__ import annotations

import subprocess
import sys

import pytest

from cluster_kit.errors import ConfigurationError, UnknownOptionError
from cluster_kit_aiocache import memcached_options, redis_options


def test_a_redis_url_in_full() -> None:
    options = redis_options.parse_url(
        "rediss://shop:p%40ss@cache:6380/3?protocol=2&cafile=/ca.pem&verify=no"
    )

    assert options.hosts == (("cache", 6380),)
    assert (options.user, options.password, options.db) == ("shop", "p@ss", 3)
    assert (options.protocol, options.tls, options.cafile, options.verify) == (
        2,
        True,
        "/ca.pem",
        False,
    )
    assert "p%40ss" not in options.url
    assert "p@ss" not in repr(options)


@pytest.mark.parametrize(
    ("url", "hosts", "service", "socket", "db"),
    [
        ("redis://", (("localhost", 6379),), "", "", 0),
        ("redis://cache", (("cache", 6379),), "", "", 0),
        ("redis://[::1]:1/2", (("::1", 1),), "", "", 2),
        ("redis://cache?db=4", (("cache", 6379),), "", "", 4),
        ("unix:///run/redis.sock?db=2", (), "", "/run/redis.sock", 2),
        ("redis+sentinel://a,b:7/main", (("a", 26379), ("b", 7)), "main", "", 0),
        ("rediss+sentinel://a/main/5", (("a", 26379),), "main", "", 5),
    ],
)
def test_where_redis_is(
    url: str, hosts: tuple[tuple[str, int], ...], service: str, socket: str, db: int
) -> None:
    options = redis_options.parse_url(url)

    assert (options.hosts, options.service, options.socket, options.db) == (
        hosts,
        service,
        socket,
        db,
    )


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://a,b/0", "several hosts need redis"),
        ("redis://cache/x", "must be a whole number"),
        ("redis://cache/1/2", "the number of the database"),
        ("redis://cache/1?db=2", "named twice"),
        ("redis://cache?db=1&db=2", "appears twice"),
        ("redis://cache?verify=no", "needs rediss"),
        ("rediss://cache?verify=perhaps", "true or false"),
        ("redis://cache?protocol=4", "must be 2 or 3"),
        ("redis://cache:port", "bad host or port"),
        ("redis://cache#1", "has a '#'"),
        ("redis://shop:a/b@cache", "percent-encoded"),
        ("unix://", "path of the socket"),
        ("redis+sentinel://a", "name of the service"),
    ],
)
def test_a_wrong_redis_url(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        redis_options.parse_url(url)


def test_an_unknown_option_suggests_the_right_one() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'protocol'"):
        redis_options.parse_url("redis://cache?protocl=2")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memcached://shop:secret@cache", "no user"),
        ("memcached://secret@cache", r"memcached://\*\*\*@cache: memcached has no user"),
        ("memcached://cache/0", "no databases"),
        ("memcached://a,b", "one server"),
        ("memcached://cache?x=1", "unknown option"),
    ],
)
def test_a_wrong_memcached_url(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as found:
        memcached_options.parse_url(url)
    assert "secret" not in str(found.value)


def test_a_memcached_url() -> None:
    options = memcached_options.parse_url("memcached://cache:1")

    assert (options.host, options.port) == ("cache", 1)
    assert memcached_options.parse_url("memcached://").host == "localhost"


def test_memcached_is_spoken_without_the_driver_of_redis() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "import cluster_kit_aiocache.memcached_locks, cluster_kit_aiocache.memcached_store\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
