"""What tests of every folder may ask for."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 * 2**30
"""What has to be free there for the tests' folders: they take a tenth of it, unless many fail."""
QUICK = Path(__file__).parent / "unit"

# A busy machine makes each example slow, and nothing wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_configure() -> None:
    """Prepare what holds for all tests."""
    _hear_signals()
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_BYTES:
        # SQLite waits for the disk at each commit, and each test makes a database or two.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measure the coverage of a part: tests that are measured take half as long again.

    It is the quick tests, each on one database, but for the hunts, which repeat what others cover.
    """
    if not config.pluginmanager.hasplugin("_cov"):
        return
    for item in items:
        _, _, variant = item.nodeid.partition("[")
        hunts = item.path.stem.endswith("_model")
        if QUICK not in item.path.parents or "postgresql" in variant or hunts:
            item.add_marker("no_cover")


def _hear_signals() -> None:
    """Hear the signals that tests send, though who runs them had them ignored (`&`, `nohup`).

    What a process ignores, all that it starts ignore too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a command that was run in this process sets up to log with is taken down again.

    Its handler would write to a stream of the runner's that is closed by then, and so have Python
    tell of that on standard error, in the middle of later tests.
    """
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    added = [one for one in root.handlers if one not in handlers]
    root.handlers[:] = handlers
    root.setLevel(level)
    if any(isinstance(one.formatter, structlog.stdlib.ProcessorFormatter) for one in added):
        structlog.reset_defaults()
    for one in added:
        one.close()


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the settings of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("HERD_"):
            monkeypatch.delenv(name)


# Databases


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """One PostgreSQL for all tests of a pytest process."""
    server = _start_postgres(hasty=True)
    yield server
    server.close()


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A PostgreSQL that a test may crash."""
    server = _start_postgres(hasty=False)
    yield server
    server.close()


def _start_postgres(*, hasty: bool) -> Any:
    """A server; where there can be none the test is skipped, and where CI is set it fails."""
    try:
        from tests.support.postgres_server import PostgresServer, why_not
    except ImportError as error:
        reason = f"the driver of PostgreSQL is not installed ({error})"
    else:
        reason = why_not() or ""
        if not reason:
            return PostgresServer(hasty=hasty)
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Gives the address of a database for a herd, of each kind: each time another.

    The address is empty for the file in the herd's own folder. PostgreSQL's has the herd's tables,
    which take long to make; `bare=True` leaves them out.
    """
    if request.param == "sqlite":
        yield lambda **_: ""
        return
    server = request.getfixturevalue("postgres_server")
    names: list[str] = []

    def make(*, bare: bool = False) -> str:
        names.append(server.new_database() if bare else server.new_database(server.migrated))
        return str(server.url(names[-1]))

    yield make
    for name in names:
        server.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def outage(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A database for one herd that a test may take away, of each kind: an `Outage`."""
    from tests.support.outages import FileOutage, ServerOutage

    if request.param == "sqlite":
        with FileOutage().planted() as planted:
            yield planted
        return
    from tests.support.cut_proxy import CutProxy

    server = request.getfixturevalue("postgres_server")
    name = server.new_database(server.migrated)
    with CutProxy(server.port) as proxy:
        yield ServerOutage(proxy, server.url(name))
    server.drop(name)


# Herds


@pytest.fixture
def make_house(tmp_path, clean_environment, new_database) -> Iterator[Callable[..., Any]]:
    """Makes herds; at the end of the test the money of each is checked."""
    from tests.support.house import House

    houses: list[House] = []

    def make(policy: dict[str, Any] | None = None, **settings: Any) -> House:
        given = {"database_url": new_database(), **settings}
        house = House(tmp_path / f"house{len(houses)}", policy, **given)
        houses.append(house)
        return house

    yield make
    for house in houses:
        house.check()
        house.close()


@pytest.fixture
def house(make_house) -> Any:
    """A herd with its default settings, and 100,000 winston in account `default`."""
    made = make_house()
    made.fund(100_000)
    return made


@pytest.fixture
def outage_house(tmp_path, clean_environment, outage) -> Iterator[Any]:
    """A herd whose database a test may take away, and 100,000 winston in account `default`."""
    from tests.support.house import House

    made = House(tmp_path / "house", database_url=outage.url)
    made.fund(100_000)
    yield made
    outage.end()
    made.check()
    made.close()
