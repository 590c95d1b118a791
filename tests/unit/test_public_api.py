"""The public interface, compared with the file that was agreed on.

After a change that is meant: ``python tests/unit/test_public_api.py`` writes the file anew.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cluster_kit
from cluster_kit.settings.group import Group

ROOT = Path(__file__).resolve().parents[2]
AGREED = Path(__file__).with_name("public_api.txt")
REWRITE = "if that is meant: python tests/unit/test_public_api.py"
MODULES = (
    "cluster_kit",
    *(
        f"cluster_kit.{name}"
        for name in (
            *("broadcast", "clock", "codec", "errors", "event_queue", "locks"),
            *("locks.acquiring", "locks.semaphore", "message", "names"),
            *("patterns", "plugin", "ports", "pubsub", "registry", "settings", "sync_messages"),
            *("telemetry", "urls"),
        )
    ),
)
HEAVY = ("pydantic", "pydantic_settings", "aio_pika", "aiormq", "pamqp", "redis", "typer", "rich")
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


# --- names and signatures ---


class Plain:
    """An annotation shown as it was written."""

    def __init__(self, text: object) -> None:
        self._text = text if isinstance(text, str) else inspect.formatannotation(text)

    def __repr__(self) -> str:
        return self._text


def signature(function: Any) -> str:
    found = inspect.signature(function)
    parameters = [
        p if p.annotation is p.empty else p.replace(annotation=Plain(p.annotation))
        for p in found.parameters.values()
    ]
    if found.return_annotation is found.empty:
        return str(found.replace(parameters=parameters))
    result = Plain(found.return_annotation)
    return str(found.replace(parameters=parameters, return_annotation=result))


def describe_function(name: str, function: Any) -> str:
    prefix = "async def" if inspect.iscoroutinefunction(function) else "def"
    return f"{prefix} {name}{signature(function)}"


def describe_member(name: str, member: object) -> str | None:
    match member:
        case property(fget=getter):
            return f"{name} -> {Plain(inspect.signature(getter).return_annotation)}"  # type: ignore[arg-type]
        case classmethod() | staticmethod():
            return f"{type(member).__name__} {describe_function(name, member.__func__)}"
        case _ if inspect.isfunction(member):
            return describe_function(name, member)
        case bool() | str() | tuple():
            return f"{name} = {member!r}"
        case _:
            return None


def describe_class(name: str, kind: type) -> Iterator[str]:
    yield f"class {name}({', '.join(base.__name__ for base in kind.__bases__)})"
    if issubclass(kind, enum.Enum):
        yield from (f"    {member.name} = {member.value!r}" for member in kind)
        return
    if issubclass(kind, Group):
        for field in dataclasses.fields(kind):
            yield f"    {field.name}: {field.type} = {field.default!r}"
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    own = {} if is_protocol(kind) else {"__init__": kind.__dict__.get("__init__")}
    own |= {name: member for name, member in vars(kind).items() if not name.startswith("_")}
    for member_name in sorted(own.keys() - {field.name for field in fields}):
        text = describe_member(member_name, own[member_name])
        if text is not None:
            yield f"    {text}"
    yield from (f"    self.{attribute}" for attribute in sorted(attributes(kind)))


def attributes(kind: type) -> set[str]:
    """Public attributes that the constructor sets."""
    constructor = kind.__dict__.get("__init__")
    if constructor is None or dataclasses.is_dataclass(kind) or is_protocol(kind):
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(constructor)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and not node.attr.startswith("_")
    }


def is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def exported(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is not None:
        return sorted(names)
    tree = ast.parse(Path(module.__file__ or "").read_text())
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, Definition):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return sorted(name for name in found if not name.startswith("_") and name != "log")


def describe(module: ModuleType) -> Iterator[str]:
    yield f"# {module.__name__}"
    for name in exported(module):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            yield from describe_class(name, thing)
        elif inspect.isfunction(thing):
            yield describe_function(name, thing)
        else:
            yield name
    yield ""


def current() -> list[str]:
    return [line for name in MODULES for line in describe(importlib.import_module(name))]


def test_the_public_interface_is_the_one_agreed_on() -> None:
    assert current() == AGREED.read_text().splitlines(), REWRITE


# --- the package itself ---


def in_a_fresh_process(code: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", f"import json, sys\n{code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    return json.loads(done.stdout)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import cluster_kit\nprint(json.dumps(sorted(sys.modules)))"

    assert [name for name in in_a_fresh_process(code) if name.split(".")[0] in HEAVY] == []


def test_listing_adapters_loads_no_driver() -> None:
    code = (
        "from cluster_kit.registry import AdapterRegistry\n"
        "assert AdapterRegistry().names()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )

    assert [name for name in in_a_fresh_process(code) if name.split(".")[0] in HEAVY] == []


def test_an_import_loads_nothing_but_the_package() -> None:
    loaded = in_a_fresh_process("import cluster_kit\nprint(json.dumps(sorted(sys.modules)))")

    ours = [name for name in loaded if name.split(".")[0].startswith("cluster_kit")]
    assert ours == ["cluster_kit"]
    assert {"asyncio", "importlib.metadata", "logging"}.isdisjoint(loaded)


def test_a_start_loads_only_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env is
    code = (
        "import asyncio\n"
        "from cluster_kit import Cluster\n"
        "async def main():\n"
        "    async with Cluster('shop') as cluster:\n"
        "        await cluster.event_queue.publish('mails', 1)\n"
        "asyncio.run(main())\n"
        "print(json.dumps(sorted(sys.modules)))"
    )

    unused = {"cluster_kit.cache.engine", "cluster_kit.testing", "cluster_kit.cli"}
    assert {*HEAVY, *unused}.isdisjoint(in_a_fresh_process(code))


def test_no_driver_is_loaded_before_rabbitmq_is_asked_something() -> None:
    code = (
        "import cluster_kit_amqp.tasks.adapter, cluster_kit_amqp.broadcast.adapter\n"
        "print(json.dumps(sorted(sys.modules)))"
    )

    assert set(HEAVY).isdisjoint(in_a_fresh_process(code))


def test_every_name_is_found_where_it_is_promised() -> None:
    namespace: dict[str, object] = {}
    exec("from cluster_kit import *", namespace)

    assert sorted(namespace.keys() - {"__builtins__"}) == sorted(cluster_kit.__all__)
    assert dir(cluster_kit) == sorted(cluster_kit.__all__)
    assert cluster_kit.__version__ == version("cluster-kit")


def test_an_unknown_name_is_an_attribute_error() -> None:
    text = r"^module 'cluster_kit' has no attribute 'Klaster'$"
    with pytest.raises(AttributeError, match=text):
        _ = cluster_kit.Klaster


# --- docstrings ---


def undocumented(node: ast.Module | Definition, path: str) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        yield path
    if isinstance(node, ast.Module | ast.ClassDef):
        for inner in node.body:
            if isinstance(inner, Definition) and needs_docstring(inner):
                yield from undocumented(inner, f"{path} {inner.name}")


def needs_docstring(node: Definition) -> bool:
    """Private names need none; of a test the name says it all, of an overload its function."""
    overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
    return not overload and not node.name.startswith(("_", "test_"))


def test_every_public_name_has_a_docstring() -> None:
    files = [path for top in ("cluster_kit", "adapters") for path in (ROOT / top).rglob("*.py")]
    missing = [
        line
        for path in sorted(files)
        for line in undocumented(ast.parse(path.read_text()), str(path.relative_to(ROOT)))
    ]

    assert missing == []


if __name__ == "__main__":
    AGREED.write_text("\n".join(current()) + "\n")
