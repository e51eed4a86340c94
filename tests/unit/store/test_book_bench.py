"""The benchmark of the book measures a book that order intake could have made."""

from __future__ import annotations

import pytest

from herder.settings import load_settings
from herder.store import accounts as account_sql
from tests.bench.book import WHAT, compare, measure, short
from tests.bench.book_herd import Book
from tests.support.house import check_money


@pytest.fixture
def book(tmp_path, clean_environment, new_database):
    made = Book(load_settings(tmp_path / "home", database_url=new_database()), 300)
    made.load()
    yield made
    made.database.close()


def test_a_book_made_in_bulk_balances_and_works_on(book):
    book.check()
    check_money(book.database, book.books)
    with book.database.read() as connection:
        open_orders = [
            account_sql.standing(connection, name).open_orders for name in book.clients.names
        ]
    assert sum(open_orders) == 300
    assert max(open_orders) > 2 * min(open_orders), "some order far more than others"

    taken = measure([book], 3, "test")
    assert {what for what, _ in taken} == set(WHAT)
    assert all(len(samples) == 3 for samples in taken.values())
    book.check()
    check_money(book.database, book.books)


def test_ratios_are_named_for_what_they_compare():
    taken = {(what, size): [float(size)] * 9 for what in WHAT for size in (1_000, 100_000)}
    ratios = compare("sqlite", taken, (1_000, 100_000))
    assert ratios["sqlite_rebid_p99_100k_vs_1k"] == 100
    assert len(ratios) == 2 * len(WHAT)
    assert [short(size) for size in (999, 1_000, 2_000_000)] == ["999", "1k", "2m"]
