from __future__ import annotations

import copy
import inspect
import pickle
import re
import traceback
from collections.abc import Callable

import pytest

from cluster_kit import errors
from cluster_kit.errors import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    AlreadyStartedError,
    AlreadySubscribedError,
    CacheError,
    CacheLoadTimeout,
    CacheRecursion,
    CacheUnavailable,
    ClusterKitError,
    CommitUnconfirmed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    HandlerTimeout,
    InvalidNameError,
    LockAlreadyHeld,
    LockError,
    LockLost,
    LockTimeout,
    LockUnavailable,
    MessageTooLargeError,
    NotStartedError,
    PluginFailedError,
    PluginRequirementError,
    PublishManyError,
    PublishRefused,
    PublishUnconfirmed,
    TopologyError,
    TransportError,
    UnknownOptionError,
    UnknownTransactionError,
    Unroutable,
)
from cluster_kit.message import Reject, Retry, Snooze
from cluster_kit.wording import shorten, suggestion

UNKNOWN = "whether the transaction of message m1 was committed is not known"

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ClusterKitError) and kind.__module__.startswith(errors.__name__)
}
NODE = re.compile(
    r"^ {4}(?P<stem>[│ ├└─]*)(?P<name>[A-Z]\w+)(?: \((?P<second>\w+)\))?", re.MULTILINE
)


def drawn_tree() -> dict[str, list[str]]:
    """Name to bases as the module's docstring draws them."""
    tree: dict[str, list[str]] = {}
    path: list[str] = []
    for node in NODE.finditer(errors.__doc__ or ""):
        depth = len(node["stem"]) // 4
        path[depth:] = [node["name"]]
        parent = path[depth - 1] if depth else "Exception"
        tree[node["name"]] = [parent, node["second"]] if node["second"] else [parent]
    return tree


def test_the_tree_in_the_docstring_is_the_real_one() -> None:
    real = {name: [base.__name__ for base in kind.__bases__] for name, kind in CLASSES.items()}

    assert drawn_tree() == real


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_class_is_documented_and_says_whether_to_retry(name: str) -> None:
    kind = CLASSES[name]

    assert inspect.getdoc(kind)
    passing = issubclass(kind, TransportError | HandlerTimeout | LockError | CacheError)
    assert kind.retryable is (passing and kind not in {LockAlreadyHeld, CacheRecursion})


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidNameError("channel", "a b", "no spaces"), "bad channel 'a b': no spaces"),
        (
            UnknownOptionError("memory://", "pth", ["path"]),
            "unknown option 'pth' in memory://; did you mean 'path'?",
        ),
        (
            UnknownOptionError("memory://", "zzz", ["path", "mode"]),
            "unknown option 'zzz' in memory://; known: mode, path",
        ),
        (UnknownOptionError("x://", "zzz", []), "unknown option 'zzz' in x://; known: none"),
        (
            AdapterNotFoundError("ampq", ["memory", "amqp"]),
            "no adapter for ampq://; did you mean 'amqp'?",
        ),
        (
            AdapterNotFoundError("kafka", ["memory", "amqp"]),
            "no adapter for kafka://; known: amqp, memory",
        ),
        (
            AdapterUnavailableError("amqp", "the package aio_pika", "pip install aio-pika"),
            "adapter 'amqp' needs the package aio_pika: pip install aio-pika",
        ),
        (
            AdapterUnavailableError("kafka", "the package kafka", ""),
            "adapter 'kafka' needs the package kafka",
        ),
        (
            AlreadySubscribedError("mails", "shop.Mails.send", "shop.Mails.other"),
            (
                "channel 'mails' already has another handler in this instance: shop.Mails.send; "
                "refused is shop.Mails.other"
            ),
        ),
        (
            UnknownTransactionError("a str", ["a Session", "an object with on_commit"]),
            "the transaction must be a Session or an object with on_commit, not a str",
        ),
        (TopologyError("queue 'a'", "x-max-length differs"), "queue 'a': x-max-length differs"),
        (
            NotStartedError("event queue"),
            "event queue: the cluster is not running; call start() or use 'async with'",
        ),
        (AlreadyStartedError("add_plugin()"), "add_plugin() is legal only before start()"),
        (
            ConnectError("amqp://mq/", "refused"),
            "cannot connect to amqp://mq/: refused",
        ),
        (
            CommitUnconfirmed("m1", "it was cancelled"),
            f"{UNKNOWN}: it was cancelled",
        ),
        (
            CommitUnconfirmed("m1", "ended by CancelledError: "),
            f"{UNKNOWN}: ended by CancelledError",
        ),
        (
            PublishUnconfirmed("m1", "no answer within 10 s"),
            "message m1 may or may not be stored: no answer within 10 s",
        ),
        (
            PublishManyError(["a", "b"], {"c": PublishRefused("queue full")}),
            "2 messages confirmed, 1 not; the first failure: PublishRefused: queue full",
        ),
        (
            MessageTooLargeError("the payload", 12, 10),
            "the payload has 12 bytes, the limit is 10",
        ),
        (LockTimeout("a", 0.25), "lock 'a': held by somebody else all of the 0.25 s waited"),
        (LockTimeout("a", 0.0), "lock 'a': held by somebody else"),
        (
            LockTimeout("a", 0.25, "all 3 permits were taken"),
            "lock 'a': all 3 permits were taken all of the 0.25 s waited",
        ),
        (LockUnavailable("a", "refused"), "lock 'a': refused"),
        (LockLost("a", "it was given back"), "lock 'a': it was given back"),
        (
            LockAlreadyHeld("a"),
            "lock 'a': this task holds it; ask with reentrant=True to share it",
        ),
        (CacheUnavailable("users", "refused"), "cache 'users': refused"),
        (
            CacheLoadTimeout("a", 0.25, "users"),
            "cache 'users': the value of 'a' was not loaded within 0.25 s (its hard_timeout)",
        ),
        (
            CacheLoadTimeout("a", 2.5, "users", given_up=True),
            (
                "cache 'users': the value of 'a' was not loaded within 2.5 s "
                "(ten times its hard_timeout: given up)"
            ),
        ),
        (CacheRecursion("a"), "the loader of 'a' asks for the same key"),
        (
            UnknownTransactionError("Engine", ["a session", "a connection"]),
            "the transaction must be a session or a connection, not Engine",
        ),
        (HandlerTimeout(0.25), "the handler ran longer than 0.25 s"),
        (
            PluginFailedError("mails", "load", KeyError("x")),
            "plugin 'mails' failed in load: KeyError: 'x'",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_texts(error: ClusterKitError, text: str) -> None:
    assert str(error) == text


def sample(kind: type[ClusterKitError]) -> ClusterKitError:
    """An error of this class, made as the library makes it."""
    arguments: dict[type[ClusterKitError], tuple[object, ...]] = {
        InvalidNameError: ("channel", "a b", "no spaces"),
        UnknownOptionError: ("memory://", "pth", ["path"]),
        AdapterNotFoundError: ("ampq", ["memory", "amqp"]),
        AdapterUnavailableError: ("amqp", "the package aio_pika", "pip install aio-pika"),
        AlreadySubscribedError: ("mails", "shop.send", "shop.other"),
        UnknownTransactionError: ("a str", ["a Session", "an object with on_commit"]),
        TopologyError: ("queue 'a'", "x-max-length differs"),
        ConnectError: ("amqp://shop:secret@mq/", "refused"),
        CommitUnconfirmed: ("m1", "its commit was cancelled"),
        PublishUnconfirmed: ("m1", "no answer within 10 s"),
        PublishManyError: (["a"], {"b": ConnectionLost("gone")}),
        MessageTooLargeError: ("the payload", 12, 10),
        CacheUnavailable: ("users", "why"),
        CacheLoadTimeout: ("a", 0.25, "users"),
        CacheRecursion: ("a",),
        LockError: ("a", "why"),
        LockTimeout: ("a", 0.25),
        LockUnavailable: ("a", "why"),
        LockLost: ("a", "why"),
        LockAlreadyHeld: ("a",),
        HandlerTimeout: (0.25,),
        PluginFailedError: ("mails", "load", KeyError("x")),
    }
    return kind(*arguments.get(kind, ("text",)))


def seen(error: BaseException) -> object:
    attributes = {
        name: {id_: seen(inner) for id_, inner in value.items()} if name == "failed" else value
        for name, value in vars(error).items()
    }
    return type(error), str(error), repr(error), error.args, attributes


def through_pickle(error: BaseException) -> BaseException:
    again: BaseException = pickle.loads(pickle.dumps(error))
    return again


@pytest.mark.parametrize("way", [through_pickle, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "error",
    [
        *(sample(kind) for _, kind in sorted(CLASSES.items())),
        ConnectError("amqp://mq/", "wrong password", retryable=False),
        Retry(5, "busy"),
        Retry(),
        Snooze(3),
        Reject("never"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_errors_survive_pickle_and_copy(
    error: Exception, way: Callable[[BaseException], BaseException]
) -> None:
    error.add_note("seen in process 7")

    again = way(error)

    assert again is not error
    assert seen(again) == seen(error)
    assert getattr(again, "retryable", None) == getattr(error, "retryable", None)


def test_errors_are_what_a_caller_would_catch_in_plain_python() -> None:
    assert isinstance(ConfigurationError(), ValueError)
    assert isinstance(NotStartedError("x"), RuntimeError)
    assert isinstance(HandlerTimeout(1), TimeoutError)
    assert issubclass(PluginRequirementError, ConfigurationError)


def test_a_failed_connection_says_itself_whether_waiting_helps() -> None:
    assert ConnectError("amqp://mq/", "refused").retryable is True
    assert ConnectError("amqp://mq/", "wrong password", retryable=False).retryable is False
    assert ConnectError.retryable is True


def test_the_parts_of_a_batch_are_kept() -> None:
    failure = ConnectionLost("gone")
    error = PublishManyError(["a"], {"b": failure, "c": Unroutable("no queue")})

    assert error.confirmed == ["a"]
    assert list(error.failed) == ["b", "c"]
    assert error.failed["b"] is failure


@pytest.mark.parametrize(
    "error",
    [
        ConnectError("amqp://shop:s3cr/et@mq/", "at amqp://shop:s3cr/et@mq/: refused"),
        PublishUnconfirmed("m1", "lost amqp://shop:s3cr/et@mq/"),
        CommitUnconfirmed("m1", "lost amqp://shop:s3cr/et@mq/"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_password_in_text_repr_attributes_or_traceback(error: ClusterKitError) -> None:
    try:
        raise error
    except ClusterKitError as exc:
        trace = "".join(traceback.format_exception(exc))

    shown = [str(error), repr(error), trace, repr(vars(error)), repr(error.args)]
    assert [text for text in shown if "s3cr" in text] == []
    assert "amqp://shop:***@mq/" in str(error)


def test_suggestions_are_made_only_when_close() -> None:
    assert suggestion("mials", ["mails", "reports"]) == "; did you mean 'mails'?"
    assert suggestion("zzz", ["mails", "reports"]) == ""
    assert suggestion("mails", []) == ""


def test_shorten_keeps_the_limit() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
