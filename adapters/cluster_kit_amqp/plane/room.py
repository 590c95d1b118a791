"""Back-pressure: how much may be on its way to the broker at a time."""

from __future__ import annotations

import asyncio

from cluster_kit_amqp.link import Unsent

MOST_MESSAGES = 4096
MOST_BYTES = 16 * 1024 * 1024


class Room:
    """The bound on what is published on a link and not confirmed yet.

    Closed as well while the socket takes nothing, or the broker. Those who wait go on in the
    order they came.
    """

    def __init__(self) -> None:
        self._messages = self._bytes = 0
        self._shut_by: set[object] = set()
        self._waiting: dict[asyncio.Future[None], None] = {}  # in their order

    @property
    def free(self) -> bool:
        """Whether a publish may go on at once."""
        return not self._waiting and self._has_room()

    @property
    def one(self) -> bool:
        """Whether a single message is on its way."""
        return self._messages == 1

    def _has_room(self) -> bool:
        within = self._messages < MOST_MESSAGES and self._bytes < MOST_BYTES
        return within and not self._shut_by

    def enter_if_free(self, size: int) -> bool:
        """As `enter`, if a publish may go on at once; return whether it may."""
        if self._waiting or not self._has_room():
            return False
        self._messages += 1
        self._bytes += size
        return True

    def enter(self, size: int) -> None:
        """Note a message that is being sent, with `size` bytes."""
        self._messages += 1
        self._bytes += size
        if self._waiting:
            self._wake()

    def leave(self, messages: int, size: int) -> None:
        """Note messages that are not on their way any more."""
        self._messages -= messages
        self._bytes -= size
        self._wake()

    def shut(self, by: object) -> None:
        """`by` takes nothing more for now."""
        self._shut_by.add(by)

    def reopen(self, by: object) -> None:
        """`by` takes again."""
        self._shut_by.discard(by)
        self._wake()

    async def wait(self, size: int) -> None:
        """Wait for room, or for the loss of the link, and `enter`. A cancellation is `Unsent`."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.pop(turn, None)
            self._wake()  # the next one, had this one been called already
            raise Unsent from None
        self._waiting.pop(turn, None)
        self.enter(size)

    def give_up(self) -> None:
        """The link is lost: everybody may go on and find out."""
        waiting, self._waiting = self._waiting, {}
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)

    def _wake(self) -> None:
        """Call the first who waits. It calls the next when it has entered."""
        if self._waiting and self._has_room():
            turn = next(iter(self._waiting))
            if not turn.done():
                turn.set_result(None)


class Refusals:
    """Why the broker takes no messages now, by channel; 0 stands for all. Shuts the room.

    Args:
        room: of the connection.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._reasons: dict[int, str] = {}

    @property
    def first(self) -> str | None:
        """The oldest of the reasons; None when there is none."""
        return next(iter(self._reasons.values()), None)

    def note(self, channel: int, reason: str | None) -> bool:
        """Note a reason, or with None its end; False: there was none."""
        if reason is not None:
            self._reasons[channel] = reason
            self._room.shut(channel)
        elif self._reasons.pop(channel, None) is None:
            return False
        else:
            self._room.reopen(channel)
        return True
