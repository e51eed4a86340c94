"""The proxy by which tests take the database away does what they rely on."""

from __future__ import annotations

import threading

import psycopg
import pytest

from tests.support.cut_proxy import CutProxy
from tests.support.wait import wait_for


@pytest.fixture
def proxied(postgres_server):
    name = postgres_server.new_database()
    with CutProxy(postgres_server.port) as proxy:
        yield proxy, proxy.through(postgres_server.url(name))
    postgres_server.drop(name)


def ask(url):
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT 1").fetchone()


def test_it_refuses_and_takes_connections_again(proxied):
    proxy, url = proxied
    with psycopg.connect(url) as open_before:
        assert ask(url) == (1,)
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            open_before.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        ask(url)
    proxy.restore()
    assert ask(url) == (1,)


def test_what_is_held_goes_on_afterwards(proxied):
    proxy, url = proxied
    answers = []
    with psycopg.connect(url) as connection:
        proxy.hold()
        asking = threading.Thread(
            target=lambda: answers.append(connection.execute("SELECT 2").fetchone())
        )
        asking.start()
        asking.join(0.3)
        assert answers == []
        proxy.restore()
        asking.join(30)
    assert answers == [(2,)]


def test_an_outage_ends_by_itself(proxied):
    proxy, url = proxied
    proxy.refuse_for(0.1)

    def back():
        try:
            return ask(url)
        except psycopg.OperationalError:
            return None

    assert wait_for(back, "it is back") == (1,)


def test_a_commit_whose_answer_is_cut_is_made(proxied):
    proxy, url = proxied
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE made (n int)")
    happened = proxy.cut_at(b"COMMIT")
    connection = psycopg.connect(url)
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    connection.execute("INSERT INTO made VALUES (7)")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert happened.wait(10)
    proxy.restore()
    with psycopg.connect(url) as again:
        assert again.execute("SELECT n FROM made").fetchall() == [(7,)]


def test_a_transaction_that_only_reads_is_not_the_one_that_is_cut(proxied):
    proxy, url = proxied
    connection = psycopg.connect(url)
    connection.read_only = True
    happened = proxy.cut_at(b"COMMIT")
    for _ in range(2):
        connection.execute("SELECT 1")
        connection.commit()
    assert not happened.is_set()
    connection.read_only = False
    connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert happened.wait(10)


def test_who_gets_the_answer_of_a_commit_finds_everything_cut(proxied):
    proxy, url = proxied
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE made (n int)")
    with psycopg.connect(url) as other:
        happened = proxy.cut_at(b"COMMIT", after=b"INSERT INTO made", answered=True)
        connection = psycopg.connect(url)
        connection.execute("INSERT INTO made VALUES (8)")
        connection.commit()
        # Without a wait: whoever may go on goes on at once.
        assert happened.is_set()
        for line in (other, connection):
            with pytest.raises(psycopg.OperationalError):
                line.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            ask(url)
    proxy.restore()
    with psycopg.connect(url) as again:
        assert again.execute("SELECT n FROM made").fetchall() == [(8,)]
