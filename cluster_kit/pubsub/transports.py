"""Which transport a channel has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.broadcast import Binding
from cluster_kit.patterns import covers, is_pattern, matches, overlap

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cluster_kit.broadcast import Transport


class Transports:
    """The choice of an application, the same in all its instances.

    Args:
        default: of channels that no pattern stands for.
        chosen: patterns with their transports; the first that stands for a channel decides.
    """

    def __init__(self, default: Transport, chosen: Iterable[tuple[str, Transport]] = ()) -> None:
        self._default: Transport = default
        self._chosen: tuple[tuple[str, Transport], ...] = tuple(chosen)

    def of(self, channel: str) -> Transport:
        """Return the transport of a channel."""
        for pattern, transport in self._chosen:
            if matches(pattern, channel):
                return transport
        return self._default

    def reach(self, name: str, transport: Transport) -> bool:
        """Whether what `name` stands for may come over this transport."""
        return any(binding.transport == transport for binding in self.bindings("", name))

    def bindings(self, realm: str, name: str) -> set[Binding]:
        """Return what it takes to receive a channel, or all channels that a pattern stands for."""
        if not is_pattern(name):
            return {Binding(realm=realm, pattern=name, transport=self.of(name))}
        possible: set[Transport] = set()
        for other, transport in self._chosen:
            if overlap(other, name):
                possible.add(transport)
            if covers(other, name):  # it decides for whatever is left
                break
        else:
            possible.add(self._default)
        return {Binding(realm=realm, pattern=name, transport=transport) for transport in possible}
