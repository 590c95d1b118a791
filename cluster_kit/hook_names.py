"""Methods of a plugin that were meant as hooks and are none: misspelt, or named as elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher

from cluster_kit.errors import ConfigurationError

log = logging.getLogger(__name__)

_MISSPELT = 0.85
"""Likeness, from 0 to 1, from which a name is taken for a hook's with a mistake in it."""

_AT_START, _AT_STOP = ("load", "after_start"), ("before_stop",)
_ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("on_startup", "startup", "on_start", "on_load"), _AT_START),
    **dict.fromkeys(("on_setup", "setup"), _AT_START),
    **dict.fromkeys(("on_shutdown", "shutdown", "on_stop"), _AT_STOP),
    **dict.fromkeys(("on_teardown", "teardown", "tear_down"), _AT_STOP),
}
"""What hooks are called in other frameworks, with those of ours that are meant."""


def check_methods(name: str, kind: type, base: type, hooks: Sequence[str]) -> None:
    """Check that no method of a plugin was meant as a hook that the plugin leaves out.

    One that is named almost as such a hook is logged: it may have a purpose of its own.

    Args:
        name: of the plugin.
        kind: its class.
        base: the class that has the hooks.
        hooks: their names.

    Raises:
        ConfigurationError: one is named as the hooks of other frameworks.
    """
    left_out = [hook for hook in hooks if getattr(kind, hook) is getattr(base, hook)]
    for method in sorted(_own_methods(kind, base)):
        ours = _ELSEWHERE.get(method)
        if ours is not None and set(ours) <= set(left_out):
            remedy = "override " + " or ".join(f"{hook}()" for hook in ours)
            text = f"plugin {name!r} has a method {method}(), which is never called: {remedy}"
            raise ConfigurationError(text)
        for hook in left_out:
            if _alike(method, hook):
                text = "plugin %r has a method %s(), which is never called; did you mean %s()?"
                log.warning(text, name, method, hook)


def _own_methods(kind: type, base: type) -> set[str]:
    bases = [each for each in kind.__mro__ if each is not object and each is not base]
    methods = {name for each in bases for name, value in vars(each).items() if callable(value)}
    return {name for name in methods if not (name.startswith("_") or hasattr(base, name))}


def _alike(name: str, hook: str) -> bool:
    # Two letters of a short name that changed places make less of a likeness than they look.
    same_letters = sorted(name) == sorted(hook)
    return same_letters or SequenceMatcher(None, name, hook).ratio() >= _MISSPELT
