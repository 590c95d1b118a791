"""Reads settings by pydantic-settings: arguments over variables over a ``.env`` file."""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_type_hints

from dotenv.parser import parse_stream
from pydantic import TypeAdapter, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from cluster_kit.errors import SettingsError
from cluster_kit.settings.explaining import explained
from cluster_kit.settings.places import (
    DOTENV,
    NESTED,
    PREFIX,
    Given,
    Path,
    is_setting,
    path_of,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic.fields import FieldInfo

_EXPORT = r"\s*(?:export\s+)?"
_OURS = re.compile(rf"{_EXPORT}({PREFIX}\w+)", re.IGNORECASE)
_OTHERS = re.compile(rf"{_EXPORT}(?!{PREFIX})\w+\s*=", re.IGNORECASE)


def read(kind: type[DataclassInstance], arguments: Mapping[str, Any]) -> Mapping[str, object]:
    """Return the settings of all names, from arguments and what they leave to the environment.

    Raises:
        SettingsError: with a line for each problem.
    """
    try:
        return vars(_model(kind)(**arguments))
    except ValidationError as exc:
        # Not chained: pydantic's error holds the values, passwords included.
        raise explained(exc, kind, arguments, given(kind)) from None


def check(kind: type[DataclassInstance], arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Return the settings of all names, from arguments alone. Raises as `read`."""
    try:
        return vars(_adapter(kind).validate_python(arguments))
    except ValidationError as exc:
        raise explained(exc, kind, arguments) from None


def given(kind: type[DataclassInstance]) -> Given:
    """Return what the environment and the ``.env`` file have."""
    return Variables(_model(kind)).given


class _Model(BaseSettings):
    """Base of what pydantic-settings fills."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        extra="forbid",
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then variables; part of the interface of pydantic-settings."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, Variables(settings_cls)


_models: dict[type[DataclassInstance], type[BaseSettings]] = {}
_adapters: dict[type[DataclassInstance], TypeAdapter[DataclassInstance]] = {}


def _model(kind: type[DataclassInstance]) -> type[BaseSettings]:
    if kind not in _models:
        types = get_type_hints(kind, include_extras=True)
        settings: dict[str, Any] = {f.name: (types[f.name], f.default) for f in fields(kind)}
        _models[kind] = create_model(kind.__name__, __base__=_Model, **settings)
    return _models[kind]


def _adapter(kind: type[DataclassInstance]) -> TypeAdapter[DataclassInstance]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


class Variables(PydanticBaseSettingsSource):
    """The ``CLUSTER_KIT_*`` variables of the environment, over those of the ``.env`` file.

    Every variable under the prefix is passed on, known or not: an unknown one is then refused
    like an unknown argument. pydantic-settings' own sources pass over it in silence.
    """

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        self.given = Given()
        for source, origin in (
            (_read_dotenv(settings), f" (in {DOTENV})"),
            (EnvSettingsSource(settings).env_vars, ""),
        ):
            for name, value in source.items():
                if is_setting(name):
                    path = path_of(name)
                    self.given.values[path], self.given.origins[path] = value or "", origin

    def __call__(self) -> dict[str, Any]:
        """Return the values as nested dicts."""
        tree: dict[str, Any] = {}
        for path, value in sorted(self.given.values.items(), reverse=True):
            _graft(tree, path, value)
        return tree

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of an outermost setting; part of the interface of a source."""
        del field
        return self().get(field_name), field_name, False


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
