"""The handle of a RabbitMQ node that tests get."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from cluster_kit.testing.servers.handshake import server_properties
from cluster_kit.testing.servers.node import NodeCommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cluster_kit.testing.servers.node import Node

_LARGEST_BATCH = 16
"""Most virtual hosts made at once; each time twice as many as before, because calling rabbitmqctl
takes far longer than a virtual host, of which a run may need a single one or hundreds."""

_MAKE = """
    ok = rabbit_definitions:import_raw(<<%s>>),
    [User] = %s,
    Wanted = %s,
    Missing = fun() ->
        All = rabbit_auth_backend_internal:list_user_permissions(User),
        Wanted -- [proplists:get_value(vhost, One) || One <- All]
    end,
    Wait = fun Again(Turns) ->
        case Missing() of
            Left when Left =:= []; Turns =:= 0 -> Left;
            _ -> timer:sleep(50), Again(Turns - 1)
        end
    end,
    Wait(1000).
"""
"""Imports definitions and waits until a user may use these virtual hosts; says which not."""


class RabbitServer:
    """A RabbitMQ node. Its methods block: in a coroutine use `asyncio.to_thread`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._spare: list[str] = []
        self._made: list[str] = []
        self._batch = 1

    @property
    def url(self) -> str:
        """URL of the default virtual host."""
        return self._node.url

    @property
    def origin(self) -> str:
        """Where the node comes from, for people."""
        return self._node.origin

    @property
    def can_control(self) -> bool:
        """Whether `stop`, `start` and `restart` work: not on a node that others may be using."""
        return self._node.can_control

    @property
    def has_ctl(self) -> bool:
        """Whether `ctl`, `close_connections` and virtual hosts of one's own work."""
        return self._node.has_ctl

    @property
    def ctl_command(self) -> Sequence[str]:
        """What another process of this machine runs for `ctl`; empty where it cannot."""
        return self._node.ctl_command

    @property
    def version(self) -> str:
        """Version of the broker, from its own greeting."""
        return str(server_properties(self.url, timeout=10.0).get("version", ""))

    def ctl(self, *args: str) -> str:
        """Run ``rabbitmqctl args…`` and return what it printed.

        Raises:
            NodeCommandError: it failed, or there is no rabbitmqctl for this node.
        """
        return self._node.ctl(*args)

    def new_url(self) -> str:
        """Return the URL of a fresh virtual host; without `has_ctl`, that of the given one."""
        if not self.has_ctl:
            return self.url
        if not self._spare:
            self._make_vhosts()
        path = "/" + quote(self._spare.pop(0), safe="")
        return urlunsplit(urlsplit(self.url)._replace(path=path))

    def leave_vhosts(self) -> None:
        """Let `close` not remove the virtual hosts made so far: whoever has the node ends it."""
        self._made, self._spare = [], []

    def stop(self) -> None:
        """Stop the node; what it has stored stays."""
        self._node.stop()

    def kill(self) -> None:
        """End the node without warning, as a power cut would."""
        self._node.stop(kill=True)

    def start(self) -> None:
        """Start the stopped node on its old ports; return when it answers."""
        self._node.start()

    def restart(self) -> None:
        """Stop and start the node."""
        self.stop()
        self.start()

    def close_connections(self, url: str, reason: str = "closed by a test") -> None:
        """Make the broker close every client connection of the virtual host of `url`."""
        vhost = unquote(urlsplit(url).path.removeprefix("/")) or "/"
        self.ctl("close_all_connections", "--vhost", vhost, reason)

    def close(self) -> None:
        """Remove the virtual hosts made here, and end the node if it is ours. Idempotent."""
        made, self._made = self._made, []
        self._spare = []
        try:
            if made and not self.can_control:
                self._remove_vhosts(made)
        finally:
            self._node.close()

    def _make_vhosts(self) -> None:
        names = [f"ck-test-{uuid.uuid4().hex[:12]}" for _ in range(self._batch)]
        self._batch = min(2 * self._batch, _LARGEST_BATCH)
        user = urlsplit(self.url).username or "guest"
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "vhosts": [{"name": name} for name in names],
            "permissions": [{"user": user, "vhost": name, **everything} for name in names],
        }
        self._made += names
        # Not import_definitions: it wants a file on the node's machine, or standard input, which
        # not every way to run rabbitmqctl passes on.
        left = self.ctl(
            "eval", _MAKE % (_numbers(definitions), _binaries([user]), _binaries(names))
        )
        if left.strip() != "[]":
            raise NodeCommandError(f"virtual hosts were not made: {left.strip()}")
        self._spare += names

    def _remove_vhosts(self, names: list[str]) -> None:
        # One call for all: delete_vhost takes a single name and most of a second.
        listed = _binaries(names)
        self.ctl("eval", f'[catch rabbit_vhost:delete(V, <<"tests">>) || V <- {listed}].')


def _numbers(value: object) -> str:
    """Return the JSON of `value` as numbers of bytes: Debian's rabbitmqctl drops backslashes."""
    return ",".join(map(str, json.dumps(value).encode()))


def _binaries(names: Sequence[str]) -> str:
    """Return `names` as a list in Erlang."""
    return "[" + ",".join(f"<<{json.dumps(name)}>>" for name in names) + "]"
