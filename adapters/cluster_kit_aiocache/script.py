"""A program that Redis runs as one atomic step."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster_kit_aiocache.redis_lines import Lines, Word


class Script:
    """Runs by its digest; a server that does not know it, as after a restart, is told it again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def load(self, lines: Lines) -> None:
        """Tell it to the server, so that the first run need not."""
        await lines.execute_command("SCRIPT", "LOAD", self._text)

    async def run(
        self,
        lines: Lines,
        *,
        keys: Sequence[str],
        values: Sequence[Word],
        repeat: bool = True,
        on_repeat: Callable[[], object] | None = None,
    ) -> Any:  # noqa: ANN401 - what the script returns
        """Run it; again, with `repeat`, when the connection is lost. See `Lines`."""
        ask = partial(lines.execute_commands, repeat=repeat, on_repeat=on_repeat)
        arguments = (len(keys), *keys, *values)
        try:
            [answer] = await ask(("EVALSHA", self._digest, *arguments))
        except NoScriptError:
            [answer] = await ask(("EVAL", self._text, *arguments))
        return answer
