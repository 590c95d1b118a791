"""Names a wrong setting to who set it, in the words of an argument or of a variable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

from cluster_kit.errors import SettingsError
from cluster_kit.settings.places import (
    Given,
    Path,
    Problem,
    argument,
    paths,
    variable,
)
from cluster_kit.urls import redact_url

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import ValidationError


def explained(
    error: ValidationError,
    kind: type[DataclassInstance],
    arguments: Mapping[str, object],
    given: Given | None = None,
) -> SettingsError:
    """Return pydantic's error as one that names arguments and variables and shows no value."""
    problems = list(_problems(error))
    speaker = _Speaker(kind, arguments, given)
    lines = [line for path, text in problems for line in speaker.lines(path, text)]
    # A URL may have been given where none belongs, in a name or a number.
    text = redact_url("\n".join(dict.fromkeys(lines)))
    return SettingsError(text, problems)


def _problems(error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False, include_input=False):
        path = tuple(str(part) for part in details["loc"])
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, SettingsError) and cause.problems:
            yield from ((path + inner, text) for inner, text in cause.problems)
        else:
            yield path, str(cause or details["msg"])


class _Speaker:
    """Says what is wrong in the words of whoever set it."""

    def __init__(
        self, kind: type[DataclassInstance], arguments: Mapping[str, object], given: Given | None
    ) -> None:
        self._known = list(paths(kind))
        self._arguments = arguments
        self._given = given

    def lines(self, path: Path, text: str) -> Iterator[str]:
        """Iterate over what is wrong at `path`; several variables may set parts of it."""
        if self._given is None or _given(self._arguments, path):
            yield f"{argument(path)}{self._fault(argument, path, path, text)}"
            return
        for found in self._given.below(path):
            name = f"{variable(found)}{self._given.origins[found]}"
            yield f"{name}{self._fault(variable, path, found, text)}"

    def _fault(self, form: Callable[[Path], str], path: Path, found: Path, text: str) -> str:
        known = self._known
        members = [form(other) for other in known if other[: len(path)] == path and other != path]
        if found != path and path in known:
            return f" is not a setting; did you mean {form(path)}?"
        if path not in known and not members:
            return f" is not a setting{self._hint(form, found)}"
        if members:
            return f" is a group of settings: {', '.join(members)}"
        return f": {text}"

    def _hint(self, form: Callable[[Path], str], unknown: Path) -> str:
        """Return what is closest: in the same place, where that exists, else of all settings."""
        from difflib import get_close_matches  # noqa: PLC0415 - only when somebody has erred

        depth = len(unknown)
        beside = {
            other[depth - 1]: other[:depth]
            for other in self._known
            if other[: depth - 1] == unknown[:-1] and (form is argument or len(other) == depth)
        }
        namesakes = [path for path in self._known if path[-1] == unknown[-1]]
        if depth == 1 and namesakes and not beside.keys() & {unknown[-1]}:
            return f"; did you mean {form(namesakes[0])}?"
        everywhere = {argument(path): path for path in self._known}
        tries = [(unknown[-1], beside)] if beside else [(argument(unknown), everywhere)]
        if depth == 1:  # CLUSTER_KIT_PUBSUB_URL has lost an underscore
            tries = [*(tries if form is argument else []), (argument(unknown), everywhere)]
        for name, candidates in tries:
            if close := get_close_matches(name, candidates, n=1):
                return f"; did you mean {form(candidates[close[0]])}?"
        return ""


def _given(arguments: object, path: Path) -> bool:
    """Whether the setting at `path` comes from the arguments of the constructor."""
    for name in path:
        if not isinstance(arguments, Mapping):
            return True
        if name not in arguments:
            return False
        arguments = cast("Mapping[str, object]", arguments)[name]
    return True
