"""What outbox, inbox and fences are given, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session

from cluster_kit import Cluster, Event
from cluster_kit.errors import AlreadyStartedError, ConfigurationError
from cluster_kit_sqlalchemy import Fences, Inbox, Outbox, create_tables
from cluster_kit_sqlalchemy.databases import shown, surely_differ
from cluster_kit_sqlalchemy.transactional import check_transactional

if TYPE_CHECKING:
    from pathlib import Path

PG = "postgresql+asyncpg://shop:pw@db/shop"


def test_autocommit_of_the_engine_is_refused_unless_the_connection_overrules_it(
    tmp_path: Path,
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            check_transactional(connection)
        check_transactional(connection.execution_options(isolation_level="SERIALIZABLE"))
    engine.dispose()


@pytest.mark.asyncio
async def test_autocommit_of_the_engine_is_no_transaction_to_publish_in(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/a.db"
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with Cluster("shop") as cluster:
        publish = cluster.sync_messages.publish
        async with AsyncSession(engine) as session:
            await session.connection()
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await publish("orders", 1, transaction=session)
        async with AsyncSession(engine) as session:
            await publish("orders", 1, transaction=session)
            await session.connection()
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                await session.commit()
    await engine.dispose()


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        ("postgresql+psycopg://other@db:5432/shop", False),
        ("postgresql://db/audit", True),
        ("postgresql://pooler/audit", False),  # a name there may stand for any database
        ("postgresql://db:6432/audit", False),
        ("postgresql://db/audit?host=/run", False),
        ("postgresql://db", False),
        ("postgresql://", False),
        ("sqlite:////tmp/shop.db", True),
    ],
)
def test_two_urls_are_of_two_databases_only_where_that_is_sure(other: str, differ: bool) -> None:
    pair: list[URL] = [make_url(PG), make_url(other)]
    assert surely_differ(*pair) is surely_differ(*reversed(pair)) is differ


def test_files_are_told_apart_by_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    a, b, link = (make_url(f"sqlite:///{tmp_path}/{name}.db") for name in ("a", "b", "link"))
    by_uri = make_url(f"sqlite:///file:{tmp_path}/a.db?uri=true")

    assert surely_differ(a, b)
    assert not surely_differ(a, link)
    assert not surely_differ(a, by_uri)
    assert surely_differ(b, by_uri)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:shop?mode=memory&uri=true",
    ],
)
def test_a_database_in_memory_is_no_file(url: str) -> None:
    memory, file = make_url(url), make_url("sqlite:////tmp/shop.db")
    assert surely_differ(memory, file)
    assert surely_differ(file, memory)
    assert not surely_differ(memory, memory)


@pytest.mark.asyncio
@pytest.mark.parametrize("relay", [True, False])
async def test_nothing_is_stored_in_memory(tmp_path: Path, relay: bool) -> None:
    file = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
    memory = create_async_engine("sqlite+aiosqlite://")
    await create_tables(memory)
    with pytest.raises(ConfigurationError, match="an outbox needs a SQLite file"):
        Outbox(Cluster("shop"), memory, relay=relay)
    outbox = Outbox(Cluster("shop"), file, relay=relay)
    async with AsyncSession(memory) as session:
        with pytest.raises(ConfigurationError, match="what is stored there would never leave"):
            await outbox.publish(session, "orders", 1)
    await memory.dispose()
    await file.dispose()


@pytest.mark.asyncio
async def test_an_outbox_stores_nothing_where_its_relay_does_not_look(tmp_path: Path) -> None:
    urls = [f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("shop", "other")]
    own, other = map(create_async_engine, urls)
    await create_tables(other)
    outbox, without_relay = Outbox(Cluster("shop"), own), Outbox(Cluster("shop"), own, relay=False)
    blocking = create_engine(urls[1].replace("+aiosqlite", ""))
    async with AsyncSession(other) as session:
        with pytest.raises(ConfigurationError, match=r"other\.db.* sends from .*shop\.db"):
            await outbox.publish(session, "orders", 1)
        await without_relay.publish(session, "orders", 1)  # another process may send it
    with Session(blocking) as session, pytest.raises(ConfigurationError, match="never leave"):
        outbox.blocking.publish(session, "orders", 1)
    blocking.dispose()
    await own.dispose()
    await other.dispose()


@pytest.mark.asyncio
async def test_a_consumer_whose_effect_was_refused_is_free(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    inbox = Inbox(Cluster("shop"), engine)
    wrong: Any = print
    with pytest.raises(ConfigurationError, match="must be async def"):
        inbox.handler("billing")(wrong)

    async def effect(_payload: object, _session: AsyncSession) -> None: ...

    twice = inbox.handler("billing")
    twice(effect)
    with pytest.raises(ConfigurationError, match="two handlers for consumer 'billing'"):
        twice(effect)
    with pytest.raises(ConfigurationError, match="two handlers for consumer 'billing'"):
        inbox.handler("billing")
    await engine.dispose()


@pytest.mark.asyncio
async def test_without_a_relay_stats_alone_tell_of_what_is_due(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    await create_tables(engine)
    cluster = Cluster("shop")
    outbox = Outbox(cluster, engine, relay=False)
    async with cluster:
        async with AsyncSession(engine) as session, session.begin():
            await outbox.publish(session, "orders", 1)
        stats = await outbox.stats()
        state = cluster.health()["adapters"]["outbox"]
    assert stats.pending == 1
    assert stats.oldest is not None
    assert (state["status"], state["detail"]) == ("ok", "no relay here")
    await engine.dispose()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", [Outbox, Inbox])
async def test_what_comes_after_the_start_is_named(
    tmp_path: Path, kind: type[Outbox | Inbox]
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    async with Cluster("shop") as cluster:
        text = f"giving a cluster its {kind.__name__} is legal only before start"
        with pytest.raises(AlreadyStartedError, match=text):
            kind(cluster, engine)
    await engine.dispose()


@pytest.mark.asyncio
async def test_an_inbox_notes_nothing_where_it_does_not_prune(tmp_path: Path) -> None:
    urls = [f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("shop", "other")]
    own, other = map(create_async_engine, urls)
    await create_tables(other)
    text = r"on sqlite.*other\.db, and the inbox on .*shop\.db: what is noted .* never be deleted"
    with pytest.raises(ConfigurationError, match=text):
        Inbox(Cluster("shop"), own, sessions=async_sessionmaker(other))
    inbox = Inbox(Cluster("shop"), own, sessions=lambda: AsyncSession(other))
    event = Event(id="m1", channel="orders", origin="a", seq=1, published_at=None)
    async with AsyncSession(other) as session:
        with pytest.raises(ConfigurationError, match=text):
            await inbox.first(session, event, consumer="billing")
    Inbox(Cluster("shop"), own, sessions=async_sessionmaker(own))
    await own.dispose()
    await other.dispose()


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["publish", "publish_many", "send_sync_message", "broadcast"])
async def test_a_misspelt_option_names_the_method_that_was_called(
    tmp_path: Path, method: str
) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/a.db")
    outbox = Outbox(Cluster("shop"), engine)
    text = rf"^Outbox.{method}\(\) got an unexpected keyword argument 'tll'"
    async with AsyncSession(engine) as session:
        with pytest.raises(TypeError, match=text):
            await getattr(outbox, method)(session, "orders", [1], tll=3)
    await engine.dispose()


@pytest.mark.parametrize("kind", [Outbox, Inbox, Fences])
@pytest.mark.parametrize(
    ("wrong", "named"), [("shop", "str"), (None, "NoneType"), (Cluster, "the class Cluster")]
)
def test_what_is_no_cluster_is_named(kind: Any, wrong: Any, named: str) -> None:
    engine = () if kind is Fences else (create_async_engine("sqlite+aiosqlite:///shop.db"),)
    with pytest.raises(ConfigurationError, match=f"^cluster must be a Cluster, not {named}$"):
        kind(wrong, *engine)


def test_a_url_is_shown_without_what_its_options_may_hide() -> None:
    url = make_url("postgresql+psycopg://u:one@db:5432/shop?password=two&sslpassword=three")
    assert shown(url) == "postgresql+psycopg://u:***@db:5432/shop"
