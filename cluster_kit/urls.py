"""Addresses of servers, shown without their secrets."""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

_SCHEME = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://")
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<userinfo>\S*)@")
_OF_STORES = re.compile(r"(?i)(?:rediss?(?:\+sentinel)?|unix|memcached)://")
_SECRET_OPTION = re.compile(r"(?i)(?P<name>[?&](?:password|passwd|secret|token)=)[^&\s]*")

_STRAY_PERCENT = re.compile(r"%(?![0-9a-fA-F]{2})")


def redact_url(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by ``***``.

    Everything between ``://`` and the last ``@`` counts as user and password, so that a password
    somebody forgot to percent-encode does not leak either. A user of Redis or memcached without a
    password is shown as ``***``, too: it is most often a password in the wrong place.

    >>> redact_url("amqp://shop:s3cr/et@mq-1,mq-2/prod?heartbeat=10")
    'amqp://shop:***@mq-1,mq-2/prod?heartbeat=10'
    >>> redact_url("redis://s3cret@cache/0")
    'redis://***@cache/0'
    >>> redact_url("memory://")
    'memory://'
    """

    def hide(match: re.Match[str]) -> str:
        user, colon, _ = match["userinfo"].partition(":")
        if user and not colon and _OF_STORES.match(match["scheme"]):
            user = "***"
        return f"{match['scheme']}{user}{':***' if colon else ''}@"

    return _SECRET_OPTION.sub(r"\g<name>***", _USERINFO.sub(hide, text))


def url_scheme(url: str) -> str:
    """Return the scheme of `url` in lower case, or an empty string when it has none.

    >>> url_scheme("AMQPS://mq/")
    'amqps'
    """
    found = _SCHEME.match(url)
    return found["scheme"].lower() if found else ""


def server_url_fault(url: str) -> str:
    """Return what is wrong in ``scheme://user:password@host:port,…/path?options``, or nothing.

    Nothing of the URL but single characters is shown: a wrong one may have its password anywhere.

    >>> server_url_fault("amqp://shop:s3cr/et@mq/")
    "user and password are percent-encoded: '/' is written %2F"
    """
    rest = url.partition("://")[2]
    end = next((place for place, c in enumerate(rest) if c in "/?#"), len(rest))
    userinfo, _, hosts = rest[:end].rpartition("@")
    if "@" in rest[end:]:
        return _unencoded(rest[end])
    if "@" in userinfo:
        return _unencoded("@")
    if _STRAY_PERCENT.search(rest):
        return f"{_unencoded('%')} where no two hexadecimal digits follow"
    if not all(_is_host(text) for text in hosts.split(",")):
        return "bad host or port: expected host or host:port, with a port from 1 to 65535"
    return ""


def _unencoded(character: str) -> str:
    written = quote(character, safe="")
    return f"user and password are percent-encoded: {character!r} is written {written}"


def _is_host(text: str) -> bool:
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
