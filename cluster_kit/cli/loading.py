"""Finds the cluster that ``module:attribute`` names."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cluster_kit.cluster import Cluster
from cluster_kit.errors import ClusterKitError, ConfigurationError, SettingsError
from cluster_kit.wording import suggestion

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

_FOREIGN = {__file__, import_module.__code__.co_filename}
"""Where an import by name, or a call of what it found, begins."""


def load_cluster(target: str) -> Cluster:
    """Return the `Cluster` that `target` names, or that the function it names returns.

    Modules are looked for in the working directory first.

    Raises:
        ConfigurationError: `target` is not ``module:attribute``, or there is no such cluster.
        ClusterKitError: the application's own code failed; the text says where.
    """
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        text = f"expected MODULE:CLUSTER, as in shop.main:cluster, not {target!r}"
        raise ConfigurationError(text)
    if "/" in module_name or module_name.endswith(".py"):
        parts = Path(module_name).with_suffix("").parts
        text = f"{module_name} is a path; name the module: {'.'.join(parts)}:{attribute}"
        raise ConfigurationError(text)
    found = _attribute(_module(module_name), attribute)
    if not isinstance(found, Cluster) and callable(found):
        found = _call(target, found)
    if isinstance(found, Cluster):
        return found
    if inspect.iscoroutine(found):
        found.close()
        raise ConfigurationError(f"{target} is async; what makes a Cluster is a plain function")
    raise ConfigurationError(f"{target} is no Cluster, but {type(found).__name__}")


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise ConfigurationError(f"there is no module {exc.name!r} here") from None
        raise _failure(f"importing {name} failed", exc) from exc
    except Exception as exc:
        raise _failure(f"importing {name} failed", exc) from exc


def _attribute(module: ModuleType, path: str) -> object:
    found: object = module
    for name in path.split("."):
        if not hasattr(found, name):
            hint = suggestion(name, _runnable(found, module))
            raise ConfigurationError(f"module {module.__name__!r} has no {path!r}{hint}")
        found = getattr(found, name)
    return found


def _runnable(found: object, module: ModuleType) -> Iterator[str]:
    """Iterate over the names in `found` of what the module has to run: clusters and functions."""
    for name, value in getattr(found, "__dict__", {}).items():
        own = callable(value) and getattr(value, "__module__", None) == module.__name__
        if own or isinstance(value, Cluster):
            yield name


def _call(target: str, factory: Callable[[], object]) -> object:
    try:
        inspect.signature(factory).bind()
    except TypeError as exc:
        raise ConfigurationError(f"{target} is called without arguments: {exc}") from None
    except ValueError:  # of a builtin, which tells nobody what it takes
        pass
    try:
        return factory()
    except Exception as exc:
        raise _failure(f"{target} failed", exc) from exc


def _failure(what: str, exc: Exception) -> ClusterKitError:
    """Say in one line what the application's own code raised, with its traceback as a note."""
    if isinstance(exc, SettingsError):  # of a variable, most often: no place in the code
        return SettingsError(f"wrong settings, {what}: {exc}")
    if isinstance(exc, ClusterKitError):
        kind = ConfigurationError if isinstance(exc, ConfigurationError) else ClusterKitError
        failure = kind(f"{what}: {exc}")
    else:
        failure = ClusterKitError(f"{what}: {type(exc).__name__}: {exc}{_place(exc)}")
    failure.add_note("".join(traceback.format_exception(type(exc), exc, _own_frames(exc))))
    return failure


def _place(exc: Exception) -> str:
    own = traceback.extract_tb(_own_frames(exc))
    # A syntax error names its place itself; the last frame is the importer's.
    told = isinstance(exc, SyntaxError) or not own
    return "" if told else f" ({Path(own[-1].filename).name}, line {own[-1].lineno})"


def _own_frames(exc: Exception) -> TracebackType | None:
    """Return the traceback from the first frame of the application on."""
    found = exc.__traceback__
    while found and (found.tb_frame.f_code.co_filename in _FOREIGN or _frozen(found)):
        found = found.tb_next
    return found


def _frozen(found: TracebackType) -> bool:
    return found.tb_frame.f_code.co_filename.startswith("<frozen importlib")
