"""Which part of the work an instance does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from cluster_kit.errors import ConfigurationError
from cluster_kit.names import MODE_WORDS, check_topic
from cluster_kit.wording import suggestion

WEB, BACKGROUND, TRANSIENT = "!", "*", "-"
"""Words of a mode: requests, every topic, nothing at all."""
VARIABLE = "CLUSTER_KIT_WORKER_MODE"
"""Where a mode comes from."""


@dataclass(frozen=True, slots=True)
class WorkerMode:
    """Splits one application into services, each on instances of its own.

    ========  =========  ================  ===========================
    mode      serving()  serving("topic")  does
    ========  =========  ================  ===========================
    (empty)   yes        yes               everything
    ``!``     yes        no                requests only
    ``*``     no         yes               all background work
    ``a,b``   no         when listed       the listed topics only
    ``!,a``   yes        when listed       requests and listed topics
    ``!,*``   yes        yes               everything, said explicitly
    ``-``     no         no                nothing: a passing command
    ========  =========  ================  ===========================

    Attributes:
        web: whether it answers requests.
        background: whether it does the background work of every topic.
        topics: those it serves when `background` is false.

    >>> mode = WorkerMode.parse("!, mails:send")
    >>> mode.serving(), mode.serving("mails:send"), mode.serving("reports:build")
    (True, True, False)
    """

    web: bool
    background: bool
    topics: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a mode. Items are trimmed; their order does not matter.

        Raises:
            ConfigurationError: ``-`` beside other items, an empty item, or a topic that is
                no legal name.

        >>> WorkerMode.parse("") == WorkerMode.parse("!,*")
        True
        >>> WorkerMode.parse("b, a") == WorkerMode.parse("a,b")
        True
        """
        if not text.strip():
            return cls(web=True, background=True)
        listed = [item.strip() for item in text.split(",")]
        if len(listed) > 1 and not listed[-1] and listed[-2] not in MODE_WORDS:
            listed.pop()  # a comma behind the last topic does no harm
        items = set(listed)
        if "" in items:
            raise ConfigurationError(f"worker mode {text!r} has an empty item")
        if TRANSIENT in items and len(items) > 1:
            raise ConfigurationError(f"in worker mode {text!r} '-' must stand alone")
        background = BACKGROUND in items
        topics = {check_topic(item) for item in items - MODE_WORDS}
        return cls(WEB in items, background, frozenset(topics))

    @property
    def transient(self) -> bool:
        """Whether it serves nothing at all, as a passing command does.

        >>> WorkerMode.parse("-").transient
        True
        """
        return not (self.web or self.background or self.topics)

    def serving(self, topic: str | None = None) -> bool:
        """Whether this instance serves `topic`, or without one, the main service.

        >>> WorkerMode.parse("*").serving(), WorkerMode.parse("*").serving("mails:send")
        (False, True)
        """
        if topic is None:
            return self.web
        return self.background or topic in self.topics

    def unknown_topics(self, known: Iterable[str]) -> list[str]:
        """Return the topics of this mode that are not among `known`, sorted.

        >>> WorkerMode.parse("mails:send,mials").unknown_topics({"mails:send"})
        ['mials']
        """
        return sorted(self.topics.difference(known))

    def require_known(self, known: Iterable[str], origin: str = VARIABLE) -> None:
        """Refuse topics nobody serves: a typing error would leave work undone in silence.

        Args:
            known: topics that are served.
            origin: by what the mode was set.

        Raises:
            ConfigurationError: names every unknown topic, with the closest known one.

        >>> WorkerMode.parse("mials").require_known({"mails", "reports"})
        Traceback (most recent call last):
            ...
        cluster_kit.errors.ConfigurationError: CLUSTER_KIT_WORKER_MODE names topic 'mials', which \
no plugin serves; did you mean 'mails'?
        """
        topics = sorted(set(known))
        everything = f"; known: {', '.join(topics) or 'none'}"
        lines = [
            f"{origin} names topic {topic!r}, which no plugin serves"
            f"{suggestion(topic, topics) or everything}"
            for topic in self.unknown_topics(topics)
        ]
        if lines:
            raise ConfigurationError("\n".join(lines))
