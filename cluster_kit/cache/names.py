"""The keys of one cache in a store it may share with others."""

from __future__ import annotations


class Names:
    """``shop.c5.tasks.user-1`` is entry ``user-1`` of the prefix ``tasks``, which has 5 characters.

    The length keeps prefixes that contain a dot apart.

    Args:
        app: name of the application.
        prefix: of the cache.

    Attributes:
        entries: what the names of entries begin with.
        epoch: where the version of all entries is.
        counted: where the version of all counters is, which outlive what takes all entries away.

    >>> Names("shop", "tasks").entry("user-1")
    'shop.c5.tasks.user-1'
    """

    def __init__(self, app: str, prefix: str) -> None:
        self._place = f"{len(prefix)}.{prefix}"
        self._app = app
        self.entries: str = f"{app}.c{self._place}."
        self.epoch: str = f"{app}.e{self._place}"
        self.counted: str = f"{app}.m{self._place}"
        self._tags = f"{app}.t{self._place}."

    def entry(self, key: str) -> str:
        """Return where the value of a key is."""
        return self.entries + key

    def tag(self, tag: str) -> str:
        """Return where the version of a tag is."""
        return self._tags + tag

    def counter(self, key: str, epoch: bytes) -> str:
        """Return where a counter is: another place after each reset."""
        return f"{self._app}.n{self._place}.{epoch.hex()}.{key}"
