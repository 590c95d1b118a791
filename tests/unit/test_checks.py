from __future__ import annotations

import re

import pytest

from cluster_kit.checks import whole_number
from cluster_kit.errors import ConfigurationError


@pytest.mark.parametrize("value", [0, 1, 10**18])
def test_an_integer_in_bounds_is_returned(value: int) -> None:
    assert whole_number("limit", value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "limit must be from 0 to 5, not -1"),
        (6, "limit must be from 0 to 5, not 6"),
        (1.0, "limit must be an integer, not float"),
        (True, "limit must be an integer, not bool"),
        ("3", "limit must be an integer, not str"),
        (None, "limit must be an integer, not NoneType"),
    ],
)
def test_anything_else_is_refused_by_name(value: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        whole_number("limit", value, most=5)


def test_without_an_upper_bound_only_the_lower_one_is_told() -> None:
    with pytest.raises(ConfigurationError, match=r"^prefetch must be 1 or more, not 0$"):
        whole_number("prefetch", 0, least=1)
