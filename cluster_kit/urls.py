"""Addresses of servers, shown without their secrets."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*)://")
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<userinfo>\S*)@")
_SECRET_OPTION = re.compile(r"(?i)(?P<name>[?&](?:password|passwd|secret|token)=)[^&\s]*")


def redact_url(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by ``***``.

    Everything between ``://`` and the last ``@`` counts as user and password, so that a password
    somebody forgot to percent-encode does not leak either.

    >>> redact_url("amqp://shop:s3cr/et@mq-1,mq-2/prod?heartbeat=10")
    'amqp://shop:***@mq-1,mq-2/prod?heartbeat=10'
    >>> redact_url("memory://")
    'memory://'
    """

    def hide(match: re.Match[str]) -> str:
        user, colon, _ = match["userinfo"].partition(":")
        return f"{match['scheme']}{user}{':***' if colon else ''}@"

    return _SECRET_OPTION.sub(r"\g<name>***", _USERINFO.sub(hide, text))


def url_scheme(url: str) -> str:
    """Return the scheme of `url` in lower case, or an empty string when it has none.

    >>> url_scheme("AMQPS://mq/")
    'amqps'
    """
    found = _SCHEME.match(url)
    return found["scheme"].lower() if found else ""
