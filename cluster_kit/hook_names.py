"""Methods of a plugin that were meant as hooks and are none: misspelt, or named as elsewhere."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any, cast

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
    """Warn of methods that were most likely meant as hooks, by a name the cluster does not call.

    Those of other base classes than plugins are left out, and those the plugin uses itself: it
    may call them, or subscribe them somewhere.

    Args:
        name: of the plugin.
        kind: its class.
        base: the class that has the hooks.
        hooks: their names.
    """
    left_out = [hook for hook in hooks if getattr(kind, hook) is getattr(base, hook)]
    for method in sorted(_own_methods(kind, base)):
        meant = _ELSEWHERE.get(method) or [hook for hook in left_out if _alike(method, hook)]
        if meant:
            text = "plugin %r has a method %s(), which is not called by the cluster; "
            text += "did you mean %s?"
            log.warning(text, name, method, " or ".join(f"{hook}()" for hook in meant))


def _own_methods(kind: type, base: type) -> set[str]:
    """Return the public methods that are not the base's, and that no other one mentions."""
    own = [each for each in kind.__mro__ if issubclass(each, base) and each is not base]
    found = {name: value for each in own for name, value in vars(each).items() if callable(value)}
    used = {name for each in own for value in vars(each).values() for name in _mentioned(value)}
    return {n for n in found if not (n.startswith("_") or hasattr(base, n)) and n not in used}


def _mentioned(member: object) -> set[str]:
    """Return the attributes and names that a function uses, or what is made of one."""
    if isinstance(member, property):
        member = member.fget
    elif isinstance(member, classmethod | staticmethod):
        member = cast("Any", member).__func__
    function = inspect.unwrap(member) if isinstance(member, FunctionType) else None
    code = getattr(function, "__code__", None)
    names, codes = set[str](), [code] if isinstance(code, CodeType) else []
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(each for each in code.co_consts if isinstance(each, CodeType))
    return names


def _alike(name: str, hook: str) -> bool:
    from difflib import SequenceMatcher  # noqa: PLC0415 - for methods of a plugin beside its hooks

    # Two letters of a short name that changed places make less of a likeness than they look.
    same_letters = sorted(name) == sorted(hook)
    return same_letters or SequenceMatcher(None, name, hook).ratio() >= _MISSPELT
