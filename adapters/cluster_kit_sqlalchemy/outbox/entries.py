"""Messages as rows, and rows as messages."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from cluster_kit.broadcast import Audience, Broadcast
from cluster_kit.checks import truth, whole_number
from cluster_kit.clock import MAX_WAIT, seconds
from cluster_kit.errors import ConfigurationError, DecodeError, InvalidNameError
from cluster_kit.message import MAX_RETRIES, Envelope
from cluster_kit.names import (
    QueueName,
    check_channel,
    check_message_id,
    check_name,
    check_queue,
)
from cluster_kit_sqlalchemy.tables import LANES

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["task", "sync", "pubsub"]
"""What a message is: a task of the event queue, or a broadcast of one of two realms."""

Row = dict[str, object]

T = TypeVar("T")

_END = 253_402_300_799  # of the year 9999, seconds since 1970
_INT64 = 2**63
_MAX_NAME_BYTES = 255  # of a header; more does not fit into a message of AMQP


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message in the outbox.

    Attributes:
        position: of its row, by which messages of a key are ordered.
        key: what it is ordered with.
        kind: what it is.
        channel: name without prefix.
        id: message id.
        created_at: seconds since 1970.
        attempts: to send it that were refused.
        unconfirmed: whether an attempt got no answer, so that it may have arrived.
        columns: of its row, as the driver gives them.
    """

    position: int
    key: str
    kind: Kind
    channel: str
    id: str
    created_at: float
    attempts: int
    unconfirmed: bool
    columns: Mapping[str, Any]

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Entry:
        """Return the entry of a row, whoever wrote it. Never raises."""
        return cls(
            position=columns["position"],
            key=str(columns["key"]),
            kind=columns["kind"],
            channel=str(columns["channel"]),
            id=str(columns["id"]),
            created_at=number(columns["created_at"]),
            attempts=int(number(columns["attempts"])),
            unconfirmed=bool(columns["unconfirmed"]),
            columns=columns,
        )

    def task(self, app: str, now: float) -> tuple[Envelope, float]:
        """Return the task and the seconds it is still to be delayed.

        Raises:
            DecodeError: somebody else wrote the row.
        """
        columns, options = self.columns, self._task_options()
        channel = self._legal(check_channel, columns["channel"])
        queue = QueueName(None if options["shared"] else app, channel)
        envelope = Envelope(
            queue=self._legal(check_queue, queue),
            id=self._legal(check_message_id, columns["id"]),
            body=self._body(),
            content_type=self._text("content_type"),
            published_at=self.created_at,
            max_retries=options["max_retries"],
            timeout=options["timeout"],
            expires_at=options["expires_at"],
            origin=self._text("origin") or "",
            headers=options["headers"],
        )
        return envelope, max(0.0, number(columns["due_at"]) - now)

    def broadcast(self) -> Broadcast:
        """Return the broadcast. Raises as `task`."""
        try:
            audience = Audience(self._options().get("audience", Audience.OTHERS))
        except ValueError as exc:
            raise self.spoilt(str(exc)) from exc
        return Broadcast(
            realm=self.kind,
            channel=self._legal(partial(check_name, "channel"), self.columns["channel"]),
            id=self._legal(check_message_id, self.columns["id"]),
            body=self._body(),
            content_type=self._text("content_type"),
            published_at=self.created_at,
            origin=self._text("origin") or "",
            audience=audience,
        )

    def check_lane(self) -> None:
        """Check that relays look for it where it is. Raises as `task`."""
        if (lane := self.columns["lane"]) not in range(LANES):
            raise self.spoilt(f"its lane is {lane!r}, not from 0 to {LANES - 1}")

    def spoilt(self, problem: str) -> DecodeError:
        """Return the error for a row that makes no sense."""
        return DecodeError(f"outbox row {self.position}: {problem}")

    def _legal(self, check: Callable[[Any], T], value: object) -> T:
        try:
            return check(value)
        except InvalidNameError as exc:
            raise self.spoilt(str(exc)) from exc

    def _text(self, column: str) -> str | None:
        value: object = self.columns[column]
        if not isinstance(value, str | None):
            raise self.spoilt(f"its {column} is no text but {type(value).__name__}")
        return value

    def _body(self) -> bytes:
        body: object = self.columns["body"]
        if not isinstance(body, bytes):
            raise self.spoilt(f"its body is no bytes but {type(body).__name__}")
        return body

    def _task_options(self) -> dict[str, Any]:
        """Return the options of a task: one of another kind would break whoever reads it."""
        given = self._options()
        options: dict[str, Any] = {"shared": False, "headers": {}}
        for name, check in _TASK_OPTIONS.items():
            value = given.get(name)
            try:
                options[name] = options.get(name) if value is None else check(name, value)
            except ConfigurationError as exc:
                raise self.spoilt(f"its options: {exc}") from exc
        return options

    def _options(self) -> dict[str, Any]:
        try:
            options: object = json.loads(self.columns["options"])
        except (TypeError, ValueError) as exc:
            raise self.spoilt(f"its options are no JSON: {exc}") from exc
        if not isinstance(options, dict):
            raise self.spoilt("its options are no object")
        return cast("dict[str, Any]", options)


def number(value: object) -> float:
    """Return a number of a row; 0 for what is none, as SQLite keeps anything in a column."""
    return value if isinstance(value, int | float) and 0 <= value <= _END else 0.0


def _headers(name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigurationError(f"{name} must be an object, not {type(value).__name__}")
    headers = cast("dict[str, object]", value)
    for key, each in headers.items():
        whole = isinstance(each, int) and -_INT64 <= each < _INT64
        if not (whole or each is None or isinstance(each, str)):
            raise ConfigurationError(f"{name}: {key!r} is no text, integer, true, false or null")
        try:
            size = len(key.encode())
            str(each).encode()
        except UnicodeEncodeError as exc:  # JSON can have half a character
            raise ConfigurationError(f"{name}: {key[:40]!r} is not valid Unicode") from exc
        if size > _MAX_NAME_BYTES:
            raise ConfigurationError(f"{name}: {key[:40]!r}… is over {_MAX_NAME_BYTES} bytes")
    return headers


_TASK_OPTIONS: dict[str, Callable[[str, object], object]] = {
    "shared": truth,
    "max_retries": partial(whole_number, most=MAX_RETRIES),
    "timeout": partial(seconds, zero=False, limit=MAX_WAIT),
    "expires_at": partial(seconds, limit=_END),
    "headers": _headers,
}
"""What `Entry.task` reads of a row's options, each with what raises `ConfigurationError`."""


def task_row(app: str, envelope: Envelope, delay: float, key: str | None) -> Row:
    """Return the row of a task."""
    options = {
        "shared": envelope.queue.app is None or None,
        "max_retries": envelope.max_retries,
        "timeout": envelope.timeout,
        "expires_at": envelope.expires_at,
        "headers": dict(envelope.headers) or None,
    }
    created = envelope.published_at or 0.0
    return {
        **_common(app, "task", envelope, envelope.queue.channel, key),
        "due_at": created + delay if delay else None,
        "options": {name: value for name, value in options.items() if value is not None},
    }


def broadcast_row(app: str, kind: Kind, broadcast: Broadcast, key: str | None) -> Row:
    """Return the row of a broadcast."""
    return {
        **_common(app, kind, broadcast, broadcast.channel, key),
        "due_at": None,
        "options": {"audience": broadcast.audience.value},
    }


def _common(
    app: str, kind: Kind, message: Envelope | Broadcast, channel: str, key: str | None
) -> Row:
    # No key of a caller's has a space in it.
    ordered_with = f"{kind} {channel}" if key is None else check_name("key", key)
    return {
        "app": app,
        "lane": zlib.crc32(ordered_with.encode()) % LANES,
        "key": ordered_with,
        "id": message.id,
        "kind": kind,
        "channel": channel,
        "body": message.body,
        "content_type": message.content_type,
        "origin": message.origin,
        "created_at": message.published_at,
    }
