"""Where settings come from, and how a wrong one is named to who set it."""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from dotenv.parser import parse_stream
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
)

from cluster_kit.errors import SettingsError
from cluster_kit.urls import redact_url

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PREFIX = "CLUSTER_KIT_"
"""What variables of the library begin with."""
NESTED = "__"
"""Joins a group and its setting in the name of a variable."""
TEST_PREFIX = "CLUSTER_KIT_TEST_"
"""Variables of the test harness; they are no settings."""

DOTENV = ".env"
"""File of the working directory with more variables."""

_EXPORT = r"\s*(?:export\s+)?"
_OURS = re.compile(rf"{_EXPORT}({PREFIX}\w+)", re.IGNORECASE)
_OTHERS = re.compile(rf"{_EXPORT}(?!{PREFIX})\w+\s*=", re.IGNORECASE)

Path = tuple[str, ...]
"""Names from the outermost group to the setting."""

Problem = tuple[Path, str]
"""Where, and what is wrong there."""


class Variables(PydanticBaseSettingsSource):
    """The ``CLUSTER_KIT_*`` variables of the environment, over those of the ``.env`` file.

    Every variable under the prefix is passed on, known or not: an unknown one is then refused
    like an unknown argument. pydantic-settings' own sources pass over it in silence.
    """

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        self.values: dict[Path, str] = {}
        self.origins: dict[Path, str] = {}
        for source, origin in (
            (_read_dotenv(settings), f" (in {DOTENV})"),
            (EnvSettingsSource(settings).env_vars, ""),
        ):
            for name, value in source.items():
                if _is_setting(name):
                    path = tuple(name.upper().removeprefix(PREFIX).lower().split(NESTED))
                    self.values[path], self.origins[path] = value or "", origin

    def __call__(self) -> dict[str, Any]:
        """Return the values as nested dicts."""
        tree: dict[str, Any] = {}
        for path, value in sorted(self.values.items(), reverse=True):
            _graft(tree, path, value)
        return tree

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of an outermost setting; part of the interface of a source."""
        del field
        return self().get(field_name), field_name, False

    def below(self, path: Path) -> list[Path]:
        """Return what is set at or below `path`."""
        return [found for found in sorted(self.values) if found[: len(path)] == path]


def variable(path: Path) -> str:
    """Return the variable of a setting.

    >>> variable(("event_queue", "url"))
    'CLUSTER_KIT_EVENT_QUEUE__URL'
    """
    return PREFIX + NESTED.join(path).upper()


def argument(path: Path) -> str:
    """Return the argument of a setting.

    >>> argument(("event_queue", "url"))
    'event_queue.url'
    """
    return ".".join(path)


def origin(model: type[BaseSettings], path: Path, value: object) -> str:
    """Return by what a setting got its value: its variable, where that says the same, or code."""
    variables = Variables(model)
    if variables.values.get(path) == value:
        return f"{variable(path)}{variables.origins[path]}"
    return f"the argument {argument(path)}"


def paths(model: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    """Iterate over the paths of all settings of `model`."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from paths(field.annotation, (*above, name))
        else:
            yield (*above, name)


class SettingsGroupError(SettingsError):
    """A group of settings is wrong. `problems` has the places within the group."""

    def __init__(self, problems: list[Problem], text: str) -> None:
        self.problems = problems
        super().__init__(text)


@contextmanager
def naming_origins(model: type[BaseModel], arguments: Mapping[str, object]) -> Generator[None]:
    """Turn pydantic's error about `model` into one that names arguments and variables.

    Raises:
        SettingsError: with a line for each problem.
    """
    try:
        yield
    except ValidationError as exc:
        # Not chained: pydantic's error holds the values, passwords included.
        raise _explain(exc, model, arguments) from None


def _explain(
    error: ValidationError, model: type[BaseModel], arguments: Mapping[str, object]
) -> SettingsError:
    problems = list(_problems(error))
    speaker = _Speaker(model, arguments)
    lines = [line for path, text in problems for line in speaker.lines(path, text)]
    # A URL may have been given where none belongs, in a name or a number.
    text = redact_url("\n".join(dict.fromkeys(lines)))
    top = issubclass(model, BaseSettings)
    return SettingsError(text) if top else SettingsGroupError(problems, text)


def _problems(error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False, include_input=False):
        path = tuple(str(part) for part in details["loc"])
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, SettingsGroupError):
            yield from ((path + inner, text) for inner, text in cause.problems)
        else:
            yield path, str(cause or details["msg"])


class _Speaker:
    """Says what is wrong in the words of whoever set it."""

    def __init__(self, model: type[BaseModel], arguments: Mapping[str, object]) -> None:
        self._known = list(paths(model))
        self._arguments = arguments
        self._variables = Variables(model) if issubclass(model, BaseSettings) else None

    def lines(self, path: Path, text: str) -> Iterator[str]:
        """Iterate over what is wrong at `path`; several variables may set parts of it."""
        if self._variables is None or _given(self._arguments, path):
            yield f"{argument(path)}{self._fault(argument, path, path, text)}"
            return
        for found in self._variables.below(path):
            name = f"{variable(found)}{self._variables.origins[found]}"
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


def _is_setting(name: str) -> bool:
    upper = name.upper()
    return upper.startswith(PREFIX) and not upper.startswith(TEST_PREFIX)


def _read_dotenv(settings: type[BaseSettings]) -> Mapping[str, str | None]:
    file = pathlib.Path(DOTENV)
    if file.is_dir() and not (file / "pyvenv.cfg").exists():  # some call a virtual environment so
        raise SettingsError(f"cannot read {DOTENV}: it is a directory")
    if not file.is_file():
        return {}
    try:
        # utf-8-sig: editors on Windows write the mark.
        _check_dotenv(file.read_text(encoding="utf-8-sig"))
        source = DotEnvSettingsSource(settings, env_file=DOTENV, env_file_encoding="utf-8-sig")
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    else:
        return source.env_vars
    raise SettingsError(f"cannot read {DOTENV}: {reason}")


def _check_dotenv(text: str) -> None:
    """Refuse lines that would be passed over, but for other programs' variables. Show no values."""
    lines: list[str] = []
    for binding in parse_stream(io.StringIO(text)):
        if not binding.error or _OTHERS.match(binding.original.string):
            continue
        rest = binding.original.string.lstrip()
        number = binding.original.line + binding.original.string.removesuffix(rest).count("\n")
        name = _OURS.match(rest)
        lines.append(
            f"{DOTENV}, line {number}{f', {name[1]}' if name else ''}: expected NAME=VALUE"
        )
    if lines:
        raise SettingsError("\n".join(lines))


def _graft(tree: dict[str, Any], path: Path, value: str) -> None:
    """Put `value` into nested dicts. A value where a group belongs wins, and is then refused."""
    for name in path[:-1]:
        below = tree.setdefault(name, {})
        if not isinstance(below, dict):
            return
        tree = cast("dict[str, Any]", below)
    tree[path[-1]] = value


def _given(arguments: object, path: Path) -> bool:
    """Whether the setting at `path` comes from the arguments of the constructor."""
    for name in path:
        if not isinstance(arguments, Mapping):
            return True
        if name not in arguments:
            return False
        arguments = cast("Mapping[str, object]", arguments)[name]
    return True
