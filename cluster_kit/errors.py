"""Every error the library raises.

::

    ClusterKitError
    ├── ConfigurationError (ValueError)
    │   ├── SettingsError             a CLUSTER_KIT_* variable or Settings argument is wrong
    │   ├── InvalidNameError          a channel, app or plugin name breaks the syntax
    │   ├── UnknownOptionError        an option that nothing reads, with the closest known one
    │   ├── AdapterNotFoundError      no adapter is registered for this URL scheme
    │   ├── AdapterUnavailableError   the adapter needs a package that is not installed
    │   ├── AlreadySubscribedError    the channel has another handler in this instance
    │   └── TopologyError             the broker holds a queue or exchange with other arguments
    ├── LifecycleError (RuntimeError)
    │   ├── NotStartedError           the cluster is not running (not started, or stopped)
    │   └── AlreadyStartedError       legal only before start
    ├── TransportError
    │   ├── ConnectError              no connection at start: unreachable, wrong password, no vhost
    │   ├── ConnectionLost            nothing was sent: no connection within the deadline
    │   ├── PublishRefused            the broker said no; the message is not stored
    │   ├── Unroutable                no queue took the message; it is not stored
    │   ├── PublishUnconfirmed        the outcome is unknown; the message may be stored
    │   └── PublishManyError          a batch that ended in part: which ids are confirmed
    ├── MessageError
    │   ├── EncodeError (ValueError)  the payload or a header cannot be encoded
    │   ├── DecodeError (ValueError)  a body cannot be decoded
    │   └── MessageTooLargeError (ValueError)  over a size limit
    ├── LockError
    │   ├── LockTimeout (TimeoutError)  somebody else held the lock the whole time
    │   ├── LockUnavailable           the server of the locks did not answer
    │   ├── LockLost                  the lock is not ours any more, or was given back
    │   └── LockAlreadyHeld           the same task has it and would wait for itself
    ├── HandlerTimeout (TimeoutError) a handler ran longer than its timeout
    └── PluginError
        ├── PluginFailedError         a hook raised
        └── PluginRequirementError (ConfigurationError)  one is missing, or they form a circle

Each class has `retryable`: whether the same call may succeed later without anything being
changed. Errors of drivers are always translated; passwords never reach a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster_kit.pickling import reduced
from cluster_kit.urls import redact_url
from cluster_kit.wording import shorten, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ClusterKitError(Exception):
    """Base of every error of this library. It survives pickle and copy."""

    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(self)


class ConfigurationError(ClusterKitError, ValueError):
    """Something was configured or called wrongly; it fails the same way every time."""


class SettingsError(ConfigurationError):
    """A setting is wrong. The text names every variable or argument at fault."""


class InvalidNameError(ConfigurationError):
    """A name breaks the syntax of `cluster_kit.names`."""

    kind: str
    name: object
    reason: str

    def __init__(self, kind: str, name: object, reason: str) -> None:
        self.kind, self.name, self.reason = kind, name, reason
        super().__init__(f"bad {kind} {shorten(repr(name))}: {reason}")


class UnknownOptionError(ConfigurationError):
    """An option nobody reads; most often a typing error."""

    where: str
    name: str
    known: tuple[str, ...]

    def __init__(self, where: str, name: str, known: Iterable[str]) -> None:
        self.where, self.name, self.known = where, name, tuple(sorted(known))
        hint = suggestion(name, self.known) or f"; known: {', '.join(self.known) or 'none'}"
        super().__init__(f"unknown option {name!r} in {where}{hint}")


class AdapterNotFoundError(ConfigurationError):
    """No registered adapter serves this URL scheme.

    `unusable` are adapters that are installed and cannot be used: it may be one of theirs.
    """

    scheme: str
    known: tuple[str, ...]
    unusable: tuple[AdapterUnavailableError, ...]

    def __init__(
        self, scheme: str, known: Iterable[str], unusable: Iterable[AdapterUnavailableError] = ()
    ) -> None:
        self.scheme, self.known, self.unusable = scheme, tuple(sorted(known)), tuple(unusable)
        hint = suggestion(scheme, self.known) or f"; known: {', '.join(self.known)}"
        others = "".join(f"; {error}" for error in self.unusable)
        super().__init__(f"no adapter for {scheme}://{hint}{others}")


class AdapterUnavailableError(ConfigurationError):
    """The adapter is known but cannot be imported."""

    name: str
    missing: str
    install: str

    def __init__(self, name: str, missing: str, install: str) -> None:
        self.name, self.missing, self.install = name, missing, install
        super().__init__(f"adapter {name!r} needs {missing}{f': {install}' if install else ''}")


class AlreadySubscribedError(ConfigurationError):
    """A channel takes one handler per instance; the same function twice is no error."""

    channel: str

    def __init__(self, channel: str) -> None:
        self.channel = channel
        super().__init__(f"channel {channel!r} already has another handler in this instance")


class TopologyError(ConfigurationError):
    """A queue or exchange on the broker is not what this application needs.

    `subject` names it and `detail` says which argument differs or what is missing.
    """

    subject: str
    detail: str

    def __init__(self, subject: str, detail: str) -> None:
        self.subject, self.detail = subject, detail
        super().__init__(f"{subject}: {detail}")


class LifecycleError(ClusterKitError, RuntimeError):
    """A call at the wrong time of the cluster's life."""


class NotStartedError(LifecycleError):
    """The cluster is not running."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the cluster is not running; call start() or use 'async with'")


class AlreadyStartedError(LifecycleError):
    """Legal only before `start`."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is legal only before start()")


class TransportError(ClusterKitError):
    """Between this process and the broker."""

    retryable = True


class ConnectError(TransportError):
    """The first connection failed. `url` is redacted; `retryable` tells whether waiting helps."""

    url: str
    reason: str

    def __init__(self, url: str, reason: str, *, retryable: bool = True) -> None:
        self.url, self.reason = redact_url(url), redact_url(reason)
        # An instance, not the class, knows: a wrong password stays wrong, a closed port may open.
        self.retryable = retryable
        super().__init__(f"cannot connect to {self.url}: {self.reason}")


class ConnectionLost(TransportError):  # noqa: N818 - the name is the contract's
    """There was no usable connection within the deadline, so nothing was sent."""


class PublishRefused(TransportError):  # noqa: N818 - the name is the contract's
    """The broker refused the message (queue full, alarm, size); it is not stored."""


class Unroutable(TransportError):  # noqa: N818 - the name is the contract's
    """No queue took the message; it is not stored."""


class PublishUnconfirmed(TransportError):  # noqa: N818 - the name is the contract's
    """The outcome is unknown: the message was sent and no answer came within the deadline.

    Publishing again under the same `message_id` may store it twice and never loses it.
    """

    message_id: str
    reason: str

    def __init__(self, message_id: str, reason: str) -> None:
        self.message_id, self.reason = message_id, redact_url(reason)
        super().__init__(f"message {message_id} may or may not be stored: {self.reason}")


class PublishManyError(TransportError):
    """A batch of which a part was not confirmed.

    `confirmed` has the ids of stored messages in order, `failed` maps the others to their error.
    """

    confirmed: list[str]
    failed: dict[str, Exception]

    def __init__(self, confirmed: list[str], failed: Mapping[str, Exception]) -> None:
        self.confirmed, self.failed = confirmed, dict(failed)
        first = next(iter(self.failed.values()))
        super().__init__(
            f"{len(confirmed)} messages confirmed, {len(failed)} not; the first failure: "
            f"{type(first).__name__}: {first}"
        )


class MessageError(ClusterKitError):
    """A payload or header that cannot travel."""


class EncodeError(MessageError, ValueError):
    """The payload or a header cannot be encoded; the text names the place."""


class DecodeError(MessageError, ValueError):
    """The body of a received message cannot be decoded."""


class MessageTooLargeError(MessageError, ValueError):
    """Over a size limit. Both sizes are in bytes."""

    size_bytes: int
    limit_bytes: int

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(f"{what} has {size_bytes} bytes, the limit is {limit_bytes}")


class HandlerTimeout(ClusterKitError, TimeoutError):  # noqa: N818 - reads as what happened
    """A handler ran longer than its timeout (seconds); the attempt has failed."""

    retryable = True
    timeout: float

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        super().__init__(f"the handler ran longer than {timeout:g} s")


class LockError(ClusterKitError):
    """Around locks. `key` is the lock's, without the prefix of the application; `reason` is why."""

    key: str
    reason: str
    retryable = True

    def __init__(self, key: str, reason: str) -> None:
        self.key, self.reason = key, redact_url(reason)
        super().__init__(f"lock {key!r}: {self.reason}")


class LockTimeout(LockError, TimeoutError):  # noqa: N818 - the name is the contract's
    """It was waited for in vain: somebody else held it. `waited` is in seconds."""

    def __init__(self, key: str, waited: float) -> None:
        self.waited: float = waited
        super().__init__(key, f"held by somebody else all of the {waited:.3g} s waited")


class LockUnavailable(LockError):  # noqa: N818 - the name is the contract's
    """The server gave no usable answer in time. What was asked may have happened there."""


class LockLost(LockError):  # noqa: N818 - the name is the contract's
    """It is not ours any more. What it protected may be touched by others from now on."""


class LockAlreadyHeld(LockError):  # noqa: N818 - the name is the contract's
    """The task that asks has it, and would wait for itself; see ``reentrant=True``."""

    retryable = False

    def __init__(self, key: str) -> None:
        super().__init__(key, "this task holds it; ask with reentrant=True to share it")


class PluginError(ClusterKitError):
    """Around plugins."""


class PluginFailedError(PluginError):
    """A plugin's hook raised; the cause is chained."""

    plugin: str
    hook: str

    def __init__(self, plugin: str, hook: str, cause: BaseException) -> None:
        self.plugin, self.hook = plugin, hook
        super().__init__(f"plugin {plugin!r} failed in {hook}: {type(cause).__name__}: {cause}")


class PluginRequirementError(PluginError, ConfigurationError):
    """A required plugin is missing, or plugins require each other in a circle."""
