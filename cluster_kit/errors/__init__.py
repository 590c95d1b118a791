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
    │   ├── UnknownTransactionError (TypeError)  what was passed is no usable transaction
    │   └── TopologyError             the broker holds a queue or exchange with other arguments
    ├── LifecycleError (RuntimeError)
    │   ├── NotStartedError           the cluster is not running (not started, or stopped)
    │   └── AlreadyStartedError       add_plugin() and extend() are legal only before start
    ├── TransportError
    │   ├── ConnectError              no connection at start: unreachable, wrong password, no vhost
    │   ├── ConnectionLost            nothing was sent: no connection within the deadline
    │   ├── PublishRefused            the broker said no; the message is not stored
    │   │   └── PublishBlocked        it takes none from anybody now: an alarm of memory or disk
    │   ├── Unroutable                no queue took the message; it is not stored
    │   ├── PublishUnconfirmed        the outcome is unknown; the message may be stored
    │   └── PublishManyError          a batch that ended in part: which ids are confirmed
    ├── MessageError
    │   ├── EncodeError (ValueError)  the payload or a header cannot be encoded
    │   ├── DecodeError (ValueError)  a body cannot be decoded
    │   └── MessageTooLargeError (ValueError)  over a size limit
    ├── CacheError
    │   ├── CacheUnavailable          store or backplane could not be told or asked
    │   ├── CacheLoadTimeout (TimeoutError)  a loader took too long, and there is no older value
    │   └── CacheRecursion (RecursionError)  a loader asked for the very key it loads
    ├── LockError
    │   ├── LockTimeout (TimeoutError)  somebody else held the lock the whole time
    │   ├── LockUnavailable           the server of the locks did not answer
    │   ├── LockLost                  the lock is not ours any more, or was given back
    │   └── LockAlreadyHeld           the same task has it and would wait for itself
    ├── CommitUnconfirmed             a commit's outcome is unknown; the message was not sent
    ├── HandlerTimeout (TimeoutError) a handler ran longer than its timeout
    └── PluginError
        ├── PluginFailedError         a hook raised
        └── PluginRequirementError (ConfigurationError)  one is missing, or they form a circle

Each class has `retryable`: whether the same call may succeed later without anything being
changed. Errors of drivers are always translated; passwords never reach a message.
"""

from __future__ import annotations

from cluster_kit.errors.base import ClusterKitError
from cluster_kit.errors.caches import (
    CacheError,
    CacheLoadTimeout,
    CacheRecursion,
    CacheUnavailable,
)
from cluster_kit.errors.configuration import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    AlreadySubscribedError,
    ConfigurationError,
    InvalidNameError,
    SettingsError,
    TopologyError,
    UnknownOptionError,
    UnknownTransactionError,
)
from cluster_kit.errors.lifecycle import AlreadyStartedError, LifecycleError, NotStartedError
from cluster_kit.errors.locks import (
    LockAlreadyHeld,
    LockError,
    LockLost,
    LockTimeout,
    LockUnavailable,
)
from cluster_kit.errors.messages import (
    CommitUnconfirmed,
    DecodeError,
    EncodeError,
    HandlerTimeout,
    MessageError,
    MessageTooLargeError,
)
from cluster_kit.errors.plugins import PluginError, PluginFailedError, PluginRequirementError
from cluster_kit.errors.transport import (
    ConnectError,
    ConnectionLost,
    PublishBlocked,
    PublishManyError,
    PublishRefused,
    PublishUnconfirmed,
    TransportError,
    Unroutable,
)

__all__ = [
    "AdapterNotFoundError",
    "AdapterUnavailableError",
    "AlreadyStartedError",
    "AlreadySubscribedError",
    "CacheError",
    "CacheLoadTimeout",
    "CacheRecursion",
    "CacheUnavailable",
    "ClusterKitError",
    "CommitUnconfirmed",
    "ConfigurationError",
    "ConnectError",
    "ConnectionLost",
    "DecodeError",
    "EncodeError",
    "HandlerTimeout",
    "InvalidNameError",
    "LifecycleError",
    "LockAlreadyHeld",
    "LockError",
    "LockLost",
    "LockTimeout",
    "LockUnavailable",
    "MessageError",
    "MessageTooLargeError",
    "NotStartedError",
    "PluginError",
    "PluginFailedError",
    "PluginRequirementError",
    "PublishBlocked",
    "PublishManyError",
    "PublishRefused",
    "PublishUnconfirmed",
    "SettingsError",
    "TopologyError",
    "TransportError",
    "UnknownOptionError",
    "UnknownTransactionError",
    "Unroutable",
]

for _name in __all__:  # what tracebacks and logs show is what users import
    globals()[_name].__module__ = __name__
