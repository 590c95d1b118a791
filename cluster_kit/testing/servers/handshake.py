"""Asks a broker who it is, without logging in."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from pamqp import commands, frame
from pamqp.exceptions import UnmarshalingException

_HEADER = b"AMQP\x00\x00\x09\x01"
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


def server_properties(url: str, *, timeout: float) -> Mapping[str, object]:
    """Return what the broker at `url` says of itself as its first word.

    Args:
        url: ``amqp://`` or ``amqps://`` with one host.
        timeout: seconds for the connection and for each answer.

    Raises:
        OSError: nobody answers there, or not in AMQP 0-9-1.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "localhost", parts.port or _DEFAULT_PORTS.get(parts.scheme, 5672))
    with socket.create_connection(address, timeout) as connection:
        link: socket.socket = connection
        if parts.scheme == "amqps":
            # Only a greeting is exchanged here; the client under test checks the certificate.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            link = context.wrap_socket(connection)
        link.sendall(_HEADER)
        return _greeting(link)


def _greeting(link: socket.socket) -> Mapping[str, object]:
    data = b""
    while True:
        chunk = link.recv(4096)
        if not chunk:
            raise ConnectionError(f"the server hung up after {data!r}")
        data += chunk
        if data.startswith(b"AMQP"):
            raise ConnectionError(f"the server speaks another protocol: {data!r}")
        try:
            _, _, start = frame.unmarshal(data)
        except UnmarshalingException:
            continue  # not all of it is here yet
        if not isinstance(start, commands.Connection.Start):
            raise ConnectionError(f"the server began with {start!r}")
        properties: Mapping[str, object] = start.server_properties
        return properties
