"""What all groups of settings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, ClassVar, Self

from cluster_kit.errors import SettingsError


class Group:
    """Base of all groups: frozen, and with errors that show no value.

    What is given is checked by pydantic, which is loaded for it; defaults need no check.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid"}

    def __init__(self, **values: object) -> None:
        self._fill(_check(type(self), values) if values else {})

    def _fill(self, values: Mapping[str, object]) -> None:
        """Take values that are known to be right, and for the others the defaults."""
        own = vars(self)
        for field in fields(self):
            own[field.name] = values.get(field.name, field.default)

    def but(self, **values: object) -> Self:
        """Return the same with other values, which are known to be right."""
        other = object.__new__(type(self))
        other._fill(vars(self) | values)
        return other

    def __setattr__(self, name: str, value: object) -> None:
        # The error of a frozen dataclass would be another one.
        raise SettingsError(f"{name}: settings are frozen; make new ones")


def _check(kind: type[Group], values: Mapping[str, object]) -> Mapping[str, object]:
    from cluster_kit.settings.reading import check  # noqa: PLC0415 - loads pydantic

    return check(kind, values)


group = dataclass(init=False, unsafe_hash=True)
"""Makes a class a group. Not a frozen dataclass, for those have an error of their own."""
