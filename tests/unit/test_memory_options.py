from __future__ import annotations

from pathlib import Path

import pytest

from cluster_kit.errors import ConfigurationError, InvalidNameError, UnknownOptionError
from cluster_kit_memory.options import parse_url


def test_no_name_is_the_default_hub_without_a_file() -> None:
    options = parse_url("memory://")

    assert (options.hub, options.path) == ("default", None)


def test_a_hub_is_named_by_what_follows_the_slashes_and_keeps_its_case() -> None:
    assert parse_url("memory://Orders-2").hub == "Orders-2"


def test_a_path_is_decoded_made_absolute_and_keeps_its_plus_signs() -> None:
    assert parse_url("memory://a?path=/tmp/a%20b%23+c.db").path == Path("/tmp/a b#+c.db").resolve()
    assert parse_url("memory://a?path=work.db").path == Path.cwd() / "work.db"


def test_an_unknown_option_is_refused_with_the_closest_known_one() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'path'"):
        parse_url("memory://a?paht=x")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memory://a?path=", "option 'path'"),
        ("memory://a?path=%00", "option 'path'"),
        ("memory://a?path=x&path=y", "'path' of a memory:// URL is given twice"),
        ("memory:///var/work.db", r"memory://\?path=/var/work.db"),
        ("memory://a?path=x#1", "%23"),
        ("memory://[a", "is no URL"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        parse_url(url)


def test_a_bad_hub_name_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="hub name"):
        parse_url("memory://a%20b")
