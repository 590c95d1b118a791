"""Headers of messages that are read only when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping


class Packed(Mapping[str, object]):
    """Headers as they travel. They are read when they are first asked for, which most never are.

    Args:
        raw: the table, with its size in front.
        unpack: reads it; what it cannot read has no headers.
    """

    __slots__ = ("_table", "_unpack", "raw")

    def __init__(self, raw: bytes, unpack: Callable[[bytes], Mapping[str, object] | None]) -> None:
        self.raw = raw
        self._unpack = unpack
        self._table: Mapping[str, object] | None = None

    def _read(self) -> Mapping[str, object]:
        if self._table is None:
            self._table = self._unpack(self.raw) or {}
        return self._table

    def __getitem__(self, name: str) -> object:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def items(self) -> ItemsView[str, object]:
        """Return all of them; what a mapping has of its own looks each one up again."""
        return self._read().items()
