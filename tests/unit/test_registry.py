from __future__ import annotations

import importlib
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from cluster_kit.errors import (
    AdapterNotFoundError,
    AdapterUnavailableError,
    ConfigurationError,
    UnknownOptionError,
)
from cluster_kit.ports import AdapterContext, AdapterSpec
from cluster_kit.registry import GROUP, AdapterRegistry
from cluster_kit.supervisor import Supervisor
from cluster_kit.telemetry import Telemetry
from cluster_kit_memory.event_queue import MemoryEventQueue

HUB = "memory://here"


def context() -> AdapterContext:
    return AdapterContext(app="shop", instance_id="one", tasks=Supervisor(), emit=Telemetry().emit)


def spec(name: str, *schemes: str, **options: Any) -> AdapterSpec:
    return AdapterSpec(name=name, schemes=schemes or (name,), **options)


class Site:
    """A folder on the import path into which a third party installs its adapter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def install(self, text: str, target: str = "{module}:ADAPTER") -> None:
        """Add a distribution whose adapter ``kafka`` is in a module of this text."""
        module = f"kafka_{uuid.uuid4().hex}"
        (self._folder / f"{module}.py").write_text(text)
        info = self._folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        entry = f"[{GROUP}]\nkafka = {target.format(module=module)}\n"
        (info / "entry_points.txt").write_text(entry)
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(tmp_path)
    return Site(tmp_path)


def test_the_adapters_of_the_library_come_through_their_entry_points() -> None:
    registry = AdapterRegistry()

    assert registry.names() == ["aiocache", "amqp", "memory", "sqlalchemy"]
    assert [(spec.name, spec.schemes) for spec in registry.specs()] == [
        (
            "aiocache",
            ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "memcached"),
        ),
        ("amqp", ("amqp", "amqps")),
        ("memory", ("memory",)),
        ("sqlalchemy", ()),
    ]


@pytest.mark.parametrize(
    ("url", "name"),
    [("memory://", "memory"), ("amqp://mq/", "amqp"), ("AMQPS://a,b/", "amqp")],
)
def test_the_scheme_chooses(url: str, name: str) -> None:
    assert AdapterRegistry().find(url).name == name


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("ampq://mq/", "no adapter for ampq://; did you mean 'amqp'?"),
        (
            "kafka://mq/",
            (
                "no adapter for kafka://; known: amqp, amqps, memcached, memory, redis, "
                "redis+sentinel, rediss, rediss+sentinel, unix"
            ),
        ),
    ],
)
def test_an_unknown_scheme_is_refused_with_the_known_ones(url: str, text: str) -> None:
    with pytest.raises(AdapterNotFoundError, match=f"^{re.escape(text)}$"):
        AdapterRegistry().find(url)


@pytest.mark.parametrize("url", ["", "memory", "shop:s3cret@mq:5672", "//shop:s3cret@mq/"])
def test_what_is_no_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^this is no URL: expected scheme://…$"):
        AdapterRegistry().find(url)


def test_create_makes_the_adapter() -> None:
    made = AdapterRegistry().create("event_queue", "memory://here", context())

    assert isinstance(made, MemoryEventQueue)


def test_create_passes_on_what_the_adapter_says_of_its_url() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'path'"):
        AdapterRegistry().create("event_queue", "memory://here?pth=x", context())


def test_a_registered_adapter_has_its_schemes_from_then_on() -> None:
    registry, made = AdapterRegistry(), AdapterRegistry().create("event_queue", HUB, context())
    registry.register(spec("mine", event_queue=lambda *_: made))

    assert registry.names() == ["aiocache", "amqp", "memory", "mine", "sqlalchemy"]
    assert registry.create("event_queue", "mine://x", context()) is made


def test_registering_a_name_again_replaces_it() -> None:
    registry = AdapterRegistry()
    registry.register(spec("mine", "one"))
    registry.register(spec("mine", "two"))
    registry.register(spec("memory", "memory", install="mine"))

    assert registry.find("two://").name == "mine"
    assert registry.find("memory://").install == "mine"
    with pytest.raises(AdapterNotFoundError):
        registry.find("one://")


def test_a_scheme_another_adapter_has_is_refused() -> None:
    registry = AdapterRegistry()

    text = "adapter 'mine': amqps:// is that of adapter 'amqp'; to replace it, take its name"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        registry.register(spec("mine", "mine", "amqps"))
    assert "mine" not in registry.names()


def test_an_entry_point_whose_scheme_is_taken_harms_nobody(site: Site) -> None:
    site.install(
        "from cluster_kit.ports import AdapterSpec\n"
        "ADAPTER = AdapterSpec(name='kafka', schemes=('amqp',))\n"
    )
    registry = AdapterRegistry()

    assert registry.find("amqp://").name == "amqp"
    text = "adapter 'kafka' needs schemes of its own: amqp:// is that of adapter 'amqp'"
    assert [str(error) for error in registry.unavailable()] == [text]


def test_what_is_no_spec_is_refused() -> None:
    wrong: Any = 3
    with pytest.raises(ConfigurationError, match=r"^register takes an AdapterSpec, not int$"):
        AdapterRegistry().register(wrong)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"name": ""}, "an adapter's name is a text, not ''"),
        (
            {"schemes": "files"},
            "adapter 'mine': schemes is a tuple, as in ('files',), not 'files'",
        ),
        (
            {"schemes": ("files://",)},
            "adapter 'mine': 'files://' is no URL scheme; did you mean 'files'?",
        ),
        (
            {"schemes": ("Files",)},
            "adapter 'mine': 'Files' is no URL scheme; did you mean 'files'?",
        ),
        ({"schemes": ("",)}, "adapter 'mine': '' is no URL scheme"),
        ({"schemes": (3,)}, "adapter 'mine': 3 is no URL scheme"),
        ({"locks": 3}, "adapter 'mine': locks is no function, but int"),
    ],
)
def test_a_spec_that_cannot_be_one_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(text)}$"):
        AdapterSpec(**{"name": "mine", "schemes": ("mine",), **wrong})


class Half:
    capabilities = None

    async def connect(self) -> None: ...


def failing(_url: str, _context: AdapterContext) -> Any:
    raise LookupError("no such folder")


@pytest.mark.parametrize(
    ("capability", "factory", "text"),
    [
        (
            "event_queue",
            lambda *_: Half(),
            (
                "made no event_queue, but Half without close, publish, bury, consume, read_dead, "
                "depth, purge, channels, health"
            ),
        ),
        (
            "locks",
            lambda *_: Half(),
            (
                "made no locks, but Half without close, warnings, contend, renew, release, quotas, "
                "inspect, health"
            ),
        ),
        (
            "pubsub",
            lambda *_: None,
            (
                "made no pubsub, but NoneType without connect, close, listen, publish, bind, "
                "unbind, linked_since, can_publish, health"
            ),
        ),
        ("cache", failing, "failed to make cache: LookupError: no such folder"),
    ],
)
def test_what_a_factory_does_wrong_names_its_adapter(
    capability: str, factory: Any, text: str
) -> None:
    registry = AdapterRegistry()
    registry.register(spec("mine", **{capability: factory}))

    with pytest.raises(ConfigurationError) as caught:
        registry.create(capability, "mine://", context())
    assert str(caught.value) == f"adapter 'mine' {text}"


def test_registries_do_not_share_what_is_registered() -> None:
    AdapterRegistry().register(spec("mine"))

    assert AdapterRegistry().names() == ["aiocache", "amqp", "memory", "sqlalchemy"]


@pytest.mark.parametrize("capability", ["event_queue", "locks"])
def test_a_capability_an_adapter_lacks_is_refused(capability: str) -> None:
    registry = AdapterRegistry()
    registry.register(spec("mine"))

    with pytest.raises(
        ConfigurationError, match=f"^adapter 'mine' has no {capability}; "
    ) as caught:
        registry.create(capability, "mine://", context())
    assert "amqp://" in str(caught.value)
    assert "memory://" in str(caught.value)


def test_a_missing_driver_says_what_to_install() -> None:
    def factory(_url: str, _context: AdapterContext) -> Any:
        return importlib.import_module("no_such_driver")

    registry = AdapterRegistry()
    registry.register(spec("mine", event_queue=factory, install="pip install driver"))

    with pytest.raises(
        AdapterUnavailableError,
        match=r"^adapter 'mine' needs the package no_such_driver: pip install driver$",
    ) as caught:
        registry.create("event_queue", "mine://", context())
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_driver", "the package no_such_driver"),
        ("from json import no_such", "a working import (ImportError: cannot import name 'no_such'"),
        ("", "a working import (AttributeError: module"),
        ("1 / 0", "a working import (ZeroDivisionError: division by zero)"),
    ],
)
def test_an_adapter_that_cannot_be_imported_harms_only_who_asks_for_it(
    site: Site, text: str, reason: str
) -> None:
    site.install(text)
    registry = AdapterRegistry()

    assert registry.names() == ["aiocache", "amqp", "memory", "sqlalchemy"]
    assert registry.find("memory://").name == "memory"
    pattern = "^" + re.escape(f"adapter 'kafka' needs {reason}") + ".*: pip install kafka_"
    with pytest.raises(AdapterUnavailableError, match=pattern) as caught:
        registry.create("event_queue", "kafka://mq", context())
    assert caught.value.__cause__ is not None


def test_a_third_party_adapter_is_found_as_the_librarys_own(site: Site) -> None:
    schemes = "('kafka', 'kafkas')"
    site.install(
        "from cluster_kit.ports import AdapterSpec\n"
        f"ADAPTER = AdapterSpec(name='kafka', schemes={schemes})\n"
    )
    registry = AdapterRegistry()

    assert registry.names() == ["aiocache", "amqp", "kafka", "memory", "sqlalchemy"]
    assert registry.find("kafkas://mq").name == "kafka"


def test_an_entry_point_that_names_something_else_harms_only_who_asks_for_it(site: Site) -> None:
    site.install("", target="json:dumps")
    registry = AdapterRegistry()

    assert registry.names() == ["aiocache", "amqp", "memory", "sqlalchemy"]
    text = "adapter 'kafka' needs an AdapterSpec at json:dumps, where a function is"
    with pytest.raises(AdapterUnavailableError, match=f"^{re.escape(text)}$"):
        registry.find("kafka://mq")
    assert [str(error) for error in registry.unavailable()] == [text]


def test_a_scheme_nobody_serves_is_refused_with_what_is_installed_and_cannot_be_used(
    site: Site,
) -> None:
    site.install("import no_such_driver")

    text = (
        "no adapter for kafka+ssl://; known: amqp, amqps, memcached, memory, redis, "
        "redis+sentinel, rediss, rediss+sentinel, unix; "
        "adapter 'kafka' needs the package no_such_driver: pip install kafka_"
    )
    with pytest.raises(AdapterNotFoundError, match=f"^{re.escape(text)}"):
        AdapterRegistry().find("kafka+ssl://mq")
