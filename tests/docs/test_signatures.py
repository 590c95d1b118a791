"""Calls as the tables of caches and locks write them, against the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator

import pytest

from cluster_kit import Cache, CacheStats
from cluster_kit.locks import Lease, LockManager, MultiLease
from tests.docs.test_references import rows, tables

CALL = re.compile(r"(?P<name>[a-z_]+)\((?P<parameters>.*)\)")
CODE = re.compile(r"`([^`]+)`")
OTHERS = "…"  # stands for the options below the table
INNER = {"share"}  # of a lease: not for users


def calls(document: str, heading: str) -> Iterator[tuple[str, str]]:
    """Name and parameters of each call in the first column of the table with this heading."""
    inside = False
    for row in rows(document):
        if re.fullmatch("-+", row[0]):
            continue
        names = CODE.findall(row[0])
        inside = row[0] == heading or (inside and bool(names))
        for name in names if inside else []:
            if call := CALL.search(name):
                yield call["name"], call["parameters"]


def written(method: Callable[..., object]) -> list[str]:
    """The parameters of a method as the tables write them, without `self` and annotations."""
    shown: list[str] = []
    for parameter in list(inspect.signature(method).parameters.values())[1:]:
        named = parameter.kind is parameter.KEYWORD_ONLY
        if named and not any(each.startswith("*") for each in shown):
            shown.append("*")
        if parameter.kind is parameter.VAR_KEYWORD:
            shown += ["*", OTHERS]
        elif parameter.kind is parameter.VAR_POSITIONAL:
            shown.append(f"*{parameter.name}")
        elif parameter.default is parameter.empty:
            shown.append(parameter.name)
        else:
            default = parameter.default
            text = f"{default:g}" if type(default) is float else repr(default)
            shown.append(f"{parameter.name}={text}")
    return shown


def options_of_locks() -> set[str]:
    [table] = tables("docs/how-to/locks.md", "option")
    settings = {"none": "None", "CLUSTER_KIT_LOCKS__TIMEOUT": "None"}  # the setting counts then
    return {
        f"{name}={settings.get(text.strip('`'), text.strip('`'))}" for name, text in table.items()
    }


CACHE_CALLS = list(calls("docs/how-to/cache.md", "call"))
LOCK_CALLS = list(calls("docs/how-to/locks.md", "call"))


@pytest.mark.parametrize(("name", "parameters"), CACHE_CALLS)
def test_the_calls_of_a_cache_are_as_in_the_code(name: str, parameters: str) -> None:
    assert parameters == ", ".join(written(getattr(Cache, name)))


def test_every_call_of_a_cache_is_there() -> None:
    public = {name for name in dir(Cache) if not name.startswith("_")}
    led = {"name", "counted", "options", "desert", "troubles", "prepare", "use", "look"}  # by us

    assert {name for name, _ in CACHE_CALLS} == public - led


def test_the_counters_of_a_cache_are_as_in_the_code() -> None:
    [table] = tables("docs/how-to/cache.md", "field")
    text = inspect.cleandoc(CacheStats.__doc__ or "").split("Attributes:\n")[1]
    documented = dict(line.strip().split(": ", 1) for line in text.splitlines())

    assert list(table) == [each.name for each in dataclasses.fields(CacheStats)]
    assert table == {name: meaning.removesuffix(".") for name, meaning in documented.items()}


@pytest.mark.parametrize(("name", "parameters"), LOCK_CALLS)
def test_the_calls_of_locks_are_as_in_the_code(name: str, parameters: str) -> None:
    real = written(getattr(LockManager, name))
    if not parameters.endswith(OTHERS):
        assert parameters == ", ".join(real)
        return

    shown = parameters.split(", ")[:-1]
    assert [each for each in real if each in shown] == shown
    if real[-1] != OTHERS:
        left = {each for each in real if each not in shown}
        assert left <= options_of_locks()
        assert {each.partition("=")[0] for each in left | set(shown)} >= {
            each.partition("=")[0] for each in options_of_locks()
        }


def test_every_call_of_locks_is_there() -> None:
    public = {name for name in dir(LockManager) if not name.startswith("_")}
    led = {"attach", "lacks", "close", "troubles"}  # by the cluster

    assert {name for name, _ in LOCK_CALLS} == public - led


def test_what_a_lease_can_do_is_as_in_the_code() -> None:
    table = [
        (CODE.findall(row[0]), row[-1])
        for row in rows("docs/how-to/locks.md")
        if re.match(r"`(?:await |async with )?lease\b", row[0])
    ]
    shown = {
        match["name"]: (match["parameters"], several)
        for codes, several in table
        for code in codes
        if (match := re.search(r"lease\.(?P<name>[a-z_]+)(?:\((?P<parameters>.*)\))?", code))
    }

    assert set(shown) == {name for name in dir(Lease) if not name.startswith("_")} - INNER
    for name, (parameters, several) in shown.items():
        attribute = inspect.getattr_static(Lease, name)
        real = None if isinstance(attribute, property) else ", ".join(written(attribute))
        assert parameters == real, name
        assert several.startswith("yes") == hasattr(MultiLease, name), name
