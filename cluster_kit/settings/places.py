"""Where settings are: in variables, in arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

PREFIX = "CLUSTER_KIT_"
"""What variables of the library begin with."""
NESTED = "__"
"""Joins a group and its setting in the name of a variable."""
TEST_PREFIX = "CLUSTER_KIT_TEST_"
"""Variables of the test harness; they are no settings."""

DOTENV = ".env"
"""File of the working directory with more variables."""

Path = tuple[str, ...]
"""Names from the outermost group to the setting."""

Problem = tuple[Path, str]
"""Where, and what is wrong there."""


@dataclass(slots=True)
class Given:
    """What variables and the ``.env`` file say, and which of both did."""

    values: dict[Path, str] = field(default_factory=dict[Path, str])
    origins: dict[Path, str] = field(default_factory=dict[Path, str])

    def below(self, path: Path) -> list[Path]:
        """Return what is set at or below `path`."""
        return [found for found in sorted(self.values) if found[: len(path)] == path]


def paths(kind: type[DataclassInstance], above: Path = ()) -> Iterator[Path]:
    """Iterate over the paths of all settings of a group."""
    for setting in fields(kind):
        if is_dataclass(setting.default) and not isinstance(setting.default, type):
            yield from paths(type(setting.default), (*above, setting.name))
        else:
            yield (*above, setting.name)


def is_setting(name: str) -> bool:
    """Whether a variable is one of the library, known or not."""
    upper = name.upper()
    return upper.startswith(PREFIX) and not upper.startswith(TEST_PREFIX)


def path_of(name: str) -> Path:
    """Return where a variable of the library belongs.

    >>> path_of("CLUSTER_KIT_EVENT_QUEUE__URL")
    ('event_queue', 'url')
    """
    return tuple(name.upper().removeprefix(PREFIX).lower().split(NESTED))


def variable(path: Path) -> str:
    """Return the variable of a setting.

    >>> variable(("event_queue", "url"))
    'CLUSTER_KIT_EVENT_QUEUE__URL'
    """
    return PREFIX + NESTED.join(path).upper()


def argument(path: Path) -> str:
    """Return the argument of a setting.

    >>> argument(("event_queue", "url"))
    'event_queue.url'
    """
    return ".".join(path)
