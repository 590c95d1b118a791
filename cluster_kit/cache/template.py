"""Keys that are made of the arguments of a call."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import fields, is_dataclass
from itertools import chain
from string import Formatter
from typing import TYPE_CHECKING, Any, cast

from cluster_kit.errors import ConfigurationError
from cluster_kit.names import MAX_NAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_FORMATTER = Formatter()
_PLACE = re.compile(r" at 0x[0-9A-Fa-f]+>")  # in memory, as in the text of an object without one
_DIGESTED = re.compile(r"~[0-9a-f]{64}$")  # as `_shortened` makes them
_READABLE_BYTES = 120  # of a key that is too long, before its digest


class Template:
    """A text with fields in braces, as `str.format` knows them, all of them named.

    Args:
        name: what it is, for errors.
        text: see there.

    Raises:
        ConfigurationError: it is none.
    """

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._fields = list(_fields(name, text))
        self._parts = list(_FORMATTER.parse(text))

    def check(self, parameters: Collection[str]) -> None:
        """Refuse a function that does not take what the fields name.

        Raises:
            ConfigurationError: that is so.
        """
        for field in self._fields:
            if field not in parameters:
                known = ", ".join(parameters) or "none"
                what = f"{self._name} {self._text!r} names {field!r}"
                raise ConfigurationError(f"{what}, which is no parameter; there are: {known}")

    def fill(self, given: Mapping[str, object]) -> str:
        """Return the text as `str.format` makes it.

        Raises:
            ConfigurationError: what was given has not what a field asks for.
        """
        try:
            return self._text.format(**given)
        except Exception as exc:
            raise self._misfit(exc) from exc

    def key(self, given: Mapping[str, object]) -> str:
        """Return a key that no values of other texts have.

        Raises:
            ConfigurationError: what was given has not what a field asks for, or no text.
        """
        made: list[str] = []
        for number, (literal, field, spec, conversion) in enumerate(self._parts, 1):
            made.append(literal)
            if field is None:
                continue
            try:
                value = _FORMATTER.get_field(field, (), given)[0]
                text = _text(value, spec or "", conversion, given)
                _check(field, value, text)
            except Exception as exc:
                raise self._misfit(exc) from exc
            following = self._parts[number][0][:1] if number < len(self._parts) else None
            made.append(_field(text, following))
        return _shortened("".join(made))

    def _misfit(self, error: Exception) -> ConfigurationError:
        what = f"{self._name} {self._text!r} does not fit this call"
        return ConfigurationError(f"{what}: {type(error).__name__}: {error}")


def _fields(name: str, template: str) -> Iterator[str]:
    """Return which parameters a template names. Raises as `Template`."""
    try:
        parts = list(_FORMATTER.parse(template))
    except ValueError as exc:
        raise ConfigurationError(f"{name} {template!r} is no template: {exc}") from None
    for _, field, spec, conversion in parts:
        if conversion not in {None, "", "a", "r", "s"}:
            raise ConfigurationError(f"{name} {template!r} has a conversion !{conversion}")
        if field is not None:
            yield field.split(".")[0].split("[")[0]
        if spec:
            yield from _fields(name, spec)


def _text(value: Any, spec: str, conversion: str | None, given: Mapping[str, object]) -> str:  # noqa: ANN401 - of a user
    """Return the text of a value, as the template says."""
    if spec or conversion:
        converted = _FORMATTER.convert_field(value, conversion) if conversion else value
        return format(converted, _FORMATTER.vformat(spec, (), given))
    return format(value)


def _check(field: str, value: object, text: str | None = None) -> None:
    """Refuse what has another text in each process, so that its key would never be met again.

    Raises:
        TypeError: that is so.
    """
    if inspect.isroutine(value):
        raise TypeError(f"{field} is a function, {value!r}, which has no text of its own")
    if isinstance(value, set | frozenset):
        raise TypeError(f"{field} is a set, whose order is another in each process; sort it")
    for name, part in _parts(field, value, text):
        _check(name, part)
    if not isinstance(value, str | bytes | bytearray | dict | list | tuple):
        _check_text(field, value, repr(value) if text is None else text)


def _parts(field: str, value: object, text: str | None) -> Iterator[tuple[str, object]]:
    """Return what a value's text is made of, as far as that is known."""
    if isinstance(value, dict):
        for item in chain.from_iterable(cast("dict[object, object]", value).items()):
            yield field, item
    elif isinstance(value, list | tuple):
        for item in cast("Iterable[object]", value):
            yield field, item
    elif is_dataclass(value) and text in {None, repr(value)}:
        for part in (part for part in fields(value) if part.repr):
            yield f"{field}.{part.name}", getattr(value, part.name, None)


def _check_text(field: str, value: object, text: str) -> None:
    if "frozenset({" in text:
        raise TypeError(f"{field} has a set, whose order is another in each process: {text}")
    if _PLACE.search(text) is not None:
        what = f"{type(value).__name__} has no text by which two of them differ"
        raise TypeError(f"{field} is {text}: {what}")


def _field(text: str, following: str | None) -> str:
    """Return a field so that its end can be told.

    Args:
        text: of its value.
        following: the character the template goes on with; empty where that is another field,
            None at the end.
    """
    if following in {"", "%"}:
        return f"({_escaped(text, '()')})"
    return _escaped(text, following or "")


def _escaped(text: str, more: str) -> str:
    return "".join(
        c if c.isprintable() and c not in " *#%~" and c not in more else _percent(c) for c in text
    )


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _shortened(key: str) -> str:
    encoded = key.encode("utf-8", "surrogatepass")
    if len(encoded) <= MAX_NAME_BYTES and not _DIGESTED.search(key):
        return key
    begin = encoded[:_READABLE_BYTES].decode(errors="ignore")
    return f"{begin}~{hashlib.sha256(encoded).hexdigest()}"
