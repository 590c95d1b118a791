"""Around caches."""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.urls import redact_url


class CacheError(ClusterKitError):
    """Around caches."""

    retryable = True


class CacheUnavailable(CacheError):  # noqa: N818 - the name is the contract's
    """The store of a cache, or what tells other instances, gave no usable answer in time.

    What was asked may have happened there. `retryable` is False where waiting does not help: the
    server refuses who we are, or a right that we lack.

    Attributes:
        cache: its name.
        reason: what went wrong.
        refused: whether the store answered, but would not do it: it may be full.
    """

    cache: str
    reason: str
    refused: bool

    def __init__(
        self, cache: str, reason: str, *, refused: bool = False, retryable: bool = True
    ) -> None:
        self.cache, self.reason, self.refused = cache, redact_url(reason), refused
        self.retryable = retryable
        super().__init__(f"cache {cache!r}: {self.reason}")


class CacheLoadTimeout(CacheError, TimeoutError):  # noqa: N818 - reads as what happened
    """A loader took longer than `timeout` seconds.

    It goes on, and its value will be stored; but one that took ten times the `hard_timeout` was
    given up, which `timeout` then says: nothing is stored.

    Attributes:
        key: of the value.
        timeout: seconds that were waited.
        cache: its name.
        given_up: whether the load is over.
    """

    key: str
    timeout: float
    cache: str
    given_up: bool

    def __init__(
        self, key: str, timeout: float, cache: str = "", *, given_up: bool = False
    ) -> None:
        self.key, self.timeout, self.cache, self.given_up = key, timeout, cache, given_up
        limit = "ten times its hard_timeout: given up" if given_up else "its hard_timeout"
        text = f"the value of {key!r} was not loaded within {timeout:.3g} s ({limit})"
        super().__init__(f"cache {cache!r}: {text}")


class CacheRecursion(CacheError, RecursionError):  # noqa: N818 - reads as what happened
    """The loader of a key, or a task it has started, asked for that key: it would wait for itself.

    Nobody can tell whether a loader waits for a task it has started: one that does not may ask
    once the load is over.
    """

    retryable = False
    key: str

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the loader of {key!r} asks for the same key")
