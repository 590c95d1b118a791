"""What was configured or called wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.wording import shorten, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable


class ConfigurationError(ClusterKitError, ValueError):
    """Something was configured or called wrongly; it fails the same way every time."""


class SettingsError(ConfigurationError):
    """A setting is wrong. The text names every variable or argument at fault.

    Attributes:
        problems: where, as names from the outermost group to the setting, and what is wrong there;
            empty where that is in the text alone.
    """

    def __init__(self, text: str, problems: Iterable[tuple[tuple[str, ...], str]] = ()) -> None:
        self.problems: tuple[tuple[tuple[str, ...], str], ...] = tuple(problems)
        super().__init__(text)


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
    """A channel takes one handler per instance; the same function twice is no error.

    `taken` is the handler it has and `refused` the other one, by their qualified names.
    """

    channel: str
    taken: str
    refused: str

    def __init__(self, channel: str, taken: str, refused: str) -> None:
        self.channel, self.taken, self.refused = channel, taken, refused
        text = f"channel {channel!r} already has another handler in this instance"
        super().__init__(f"{text}: {taken}; refused is {refused}")


class UnknownTransactionError(ConfigurationError, TypeError):
    """What was passed as `transaction` is none, or cannot tell when it is committed."""

    kind: str
    accepted: tuple[str, ...]

    def __init__(self, kind: str, accepted: Iterable[str], hint: str = "") -> None:
        self.kind, self.accepted = kind, tuple(accepted)
        super().__init__(f"the transaction must be {' or '.join(self.accepted)}, not {kind}{hint}")


class TopologyError(ConfigurationError):
    """A queue or exchange on the broker is not what this application needs.

    `subject` names it and `detail` says which argument differs or what is missing.
    """

    subject: str
    detail: str

    def __init__(self, subject: str, detail: str) -> None:
        self.subject, self.detail = subject, detail
        super().__init__(f"{subject}: {detail}")
