"""Messages as they arrive: a method, then a header, then frames of the body (4.2.6)."""

from __future__ import annotations

from collections.abc import Callable

from cluster_kit_amqp.plane.frames import MalformedError
from cluster_kit_amqp.plane.properties import Properties, body_size, decode_properties

MOST_BYTES = 1 << 30  # of a body; RabbitMQ takes at most half of that

OnContent = Callable[[Properties, bytes], None]
"""Called with properties and body."""


class Content:
    """Puts the message together that is arriving on a channel.

    Attributes:
        arriving: whether a message has begun and is not complete.
    """

    def __init__(self) -> None:
        self.arriving: bool = False
        self._complete: OnContent | None = None
        self._properties: Properties | None = None
        self._missing = 0
        self._parts: list[bytes] = []

    def begin(self, complete: OnContent) -> None:
        """A method has come that a message follows; `complete` is called with it."""
        self.arriving = True
        self._complete = complete

    def body(self, payload: bytes) -> None:
        """Take a body frame.

        Raises:
            MalformedError: it is not what should come now.
        """
        if self._properties is None:
            raise MalformedError("the body of a message came without its header")
        if not self._parts and len(payload) == self._missing:
            self._finish(payload)
        else:
            self._part(payload)

    def header(self, payload: bytes) -> None:
        """Take a header frame.

        Raises:
            MalformedError: it is not what should come now.
        """
        if not self.arriving or self._properties is not None:
            raise MalformedError("the header of a message came out of place")
        self._missing = body_size(payload)
        if self._missing > MOST_BYTES:
            raise MalformedError(f"a message of {self._missing} bytes is announced")
        self._properties = decode_properties(payload)
        if not self._missing:
            self._finish(b"")

    def _part(self, payload: bytes) -> None:
        if not payload or len(payload) > self._missing:
            raise MalformedError("the body of a message is not as long as its header said")
        self._parts.append(payload)
        self._missing -= len(payload)
        if not self._missing:
            self._finish(b"".join(self._parts))

    def _finish(self, body: bytes) -> None:
        complete, properties = self._complete, self._properties
        self.arriving, self._complete, self._properties = False, None, None
        self._parts.clear()
        if complete is not None and properties is not None:
            complete(properties, body)
