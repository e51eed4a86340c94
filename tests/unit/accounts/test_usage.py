"""Usage: what ended on which day, by account and by model, and no more than may be seen."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest
from sqlalchemy import Engine, event, update

from herder.accounts import usage as usage_module
from herder.accounts.usage import read_usage, row_of, total
from herder.db.tables import orders
from herder.domain.periods import day_of, start_us
from herder.domain.pricing import Rates
from herder.errors import InvalidName, InvalidRequest
from herder.gateway.routes.usage import prefers_csv
from herder.orders.retention import purge
from herder.store import models as model_sql
from tests.unit.cli.herder_cli_support import Cli
from workers.wire import Failure

DAY_US = 86_400_000_000
BROKEN = Failure(code="broken", message="It went wrong.", permanent=True)


@pytest.fixture
def busy(house):
    """Orders of two accounts and two models that ended in each way, today."""
    house.fund(10_000, "ada")
    with house.database.write() as connection:
        model_sql.put_model(connection, "other", Rates(2, 3))
    worker = house.worker()
    for account, generated in (("ada", 4), ("ada", 10), ("default", 7)):
        house.submit(fee=26, account=account)
        worker.finish(house.dispatched(), generated=generated, prompt_tokens=3)
    house.submit(fee=26, account="ada")
    worker.fail(house.dispatched(), permanent=True)
    for account in ("ada", "default"):
        order = house.submit(fee=90, account=account, model="other")
        house.cancellation.cancel(order.id)
    late = house.submit(fee=90, account="default", start_by_us=house.now_us + 1_000_000)
    house.now_us += 2_000_000
    house.cancellation.sweep()
    assert house.order(late.id).state == "expired"
    house.submit(fee=26, account="ada")  # it waits still, and is nobody's usage yet
    return house


def rows(house, **asked):
    return {row.name: row for row in read_usage(house.database, house.now_us, **asked).rows}


def expected(house, name, members):
    """The same by adding up the orders one by one."""
    ended = [one for one in members if one.state.ended]
    return {
        "name": name,
        "orders": {
            state: sum(one.state == state for one in ended)
            for state in ("completed", "failed", "cancelled", "expired")
        },
        **{
            field: sum(getattr(one, field) for one in ended)
            for field in ("prompt_tokens", "generated", "charged", "returned", "refunded")
        },
    }


def all_orders(house):
    with house.database.read() as connection:
        ids = connection.exec_driver_sql("SELECT id FROM orders").scalars().all()
    return [house.order(one) for one in ids]


@pytest.mark.parametrize("by", ["account", "model"])
@pytest.mark.parametrize("account", [None, "ada", "default"])
def test_usage_is_the_sum_of_the_orders(busy, by, account):
    one = next(order for order in all_orders(busy) if order.charged > 5)
    busy.intake.refund(one.id, 5, "sorry")
    members = [order for order in all_orders(busy) if account in (None, order.account)]
    found = rows(busy, by=by, account=account)
    names = {getattr(order, by) for order in members if order.state.ended}
    assert set(found) == names
    for name in names:
        those = [order for order in members if getattr(order, by) == name]
        assert row_of(found[name]) == expected(busy, name, those)
    assert total(found.values()).refunded == (5 if account in (None, one.account) else 0)
    assert all(
        type(value) is int for row in found.values() for value in usage_module.numbers_of(row)
    )


def test_an_order_counts_on_the_day_on_which_it_ended(busy):
    today = day_of(busy.now_us)
    with busy.database.write() as connection:
        last = start_us(date(2026, 3, 1)) - 1
        for place, at_us in enumerate((last, last + 1)):
            ids = [one.id for one in all_orders(busy) if one.state == "completed"]
            connection.execute(
                update(orders).where(orders.c.id == ids[place]).values(ended_us=at_us)
            )

    def completed(first, last):
        return sum(row.completed for row in rows(busy, first=first, last=last).values())

    assert completed("2026-02-01", "2026-02-28") == 1
    assert completed("2026-03-01", "2026-03-01") == 1
    assert completed("2026-02-28", "2026-03-01") == 2
    assert completed("2026-02-01", "2026-02-27") == 0
    assert completed(today.isoformat(), today.isoformat()) == 1
    # The first of the last day's month, and today, unless said otherwise.
    assert completed(None, "2026-02-28") == 1
    report = read_usage(busy.database, busy.now_us)
    assert (report.first, report.last) == (today.replace(day=1), today)


def test_deleted_texts_change_nothing(busy):
    before = rows(busy, by="model")
    assert purge(busy.database, busy.now_us, account="ada") > 0
    assert purge(busy.database, busy.now_us, account="default") > 0
    assert rows(busy, by="model") == before


def test_usage_comes_by_pages(busy):
    names = [f"a{number}" for number in range(5)]
    for name in names:
        busy.fund(100, name)
        busy.cancellation.cancel(busy.submit(fee=26, account=name).id)
    found, after = [], ""
    while after is not None:
        page = read_usage(busy.database, busy.now_us, after=after, limit=2)
        assert len(page.rows) <= 2
        found += [row.name for row in page.rows]
        after = page.next
    assert found == [*names, "ada", "default"]
    assert read_usage(busy.database, busy.now_us, limit=7).next is None


def test_no_sum_is_too_large(busy):
    """One account may have all it has returned again and again."""
    most = 2**53 - 1
    with busy.database.write() as connection:
        row = dict(
            connection.execute(orders.select().where(orders.c.ended_us.is_not(None)).limit(1))
            .one()
            ._mapping
        )
        del row["seq"]
        row |= {"returned": most, "account": "ada", "idempotency_key": None}
        connection.execute(
            orders.insert(), [row | {"id": f"many{number}"} for number in range(1100)]
        )
    try:
        before = sum(order.returned for order in all_orders(busy) if order.account == "ada")
        assert before > 2**63
        assert rows(busy)["ada"].returned == before
    finally:
        with busy.database.write() as connection:
            connection.execute(orders.delete().where(orders.c.id.like("many%")))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"by": "day"}, "by must be account or model, not 'day'"),
        ({"by": None}, "by must be"),
        ({"first": "yesterday"}, "from must be a date"),
        ({"last": "2026-02-30"}, "to must be a date"),
        ({"first": "2026-03-01", "last": "2026-02-01"}, "is after"),
        ({"first": "2025-01-01", "last": "2026-01-02"}, "367 days"),
        ({"first": "1970-01-01"}, "at most 366"),
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(house, asked, said):
    with pytest.raises(InvalidRequest, match=said) as refused:
        read_usage(house.database, house.now_us, **asked)
    assert refused.value.message.endswith(".")
    with pytest.raises(InvalidName):
        read_usage(house.database, house.now_us, account="two words")


def test_a_year_is_not_too_long(house):
    for first, last in (("2028-01-01", "2028-12-31"), ("9998-12-31", "9998-12-31")):
        assert read_usage(house.database, house.now_us, first=first, last=last).rows == ()


def test_an_accounts_usage_is_found_by_its_end(house):
    """What others ordered, and what it ordered at other times, is not read."""
    asked = []
    with house.database.read() as connection:

        def hear(_connection, _cursor, statement, *_rest):
            asked.append(statement)

        event.listen(Engine, "before_cursor_execute", hear)
        try:
            read_usage(house.database, house.now_us, account="default")
        finally:
            event.remove(Engine, "before_cursor_execute", hear)
        (statement,) = (one for one in asked if "ended_us" in one)
        if connection.dialect.name == "sqlite":
            nothing = (None,) * statement.count("?")
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", nothing).all()
            assert "ix_orders_ended (account=? AND ended_us>? AND ended_us<?)" in str(plan)


@pytest.mark.parametrize(
    ("accept", "csv"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("text/csv", True),
        ("Text/CSV; charset=utf-8", True),
        ("text/*", True),
        ("text/csv, */*;q=0.1", True),
        ("application/json, text/csv;q=0.9", False),
        ("text/csv;q=0.5, */*", False),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("text/csv;q=nan", False),
        (",;,=", False),
    ],
)
def test_csv_is_for_those_who_would_rather_have_it(accept, csv):
    assert prefers_csv(accept) is csv


# The command


@pytest.fixture
def cli(busy, monkeypatch) -> Cli:
    monkeypatch.setattr("herder.clock.clock_us", busy.clock)
    return Cli(busy, monkeypatch)


def test_the_command_shows_a_table_json_or_csv(cli, busy):
    found = cli.json("usage")
    assert found["by"] == "account"
    assert [row["name"] for row in found["rows"]] == ["ada", "default"]
    assert found["rows"][0] == row_of(rows(busy)["ada"])
    (row,) = cli.json("usage", "--by", "model", "--account", "ada", "--to", found["to"])["rows"][:1]
    assert row["name"] == "other"

    titles, *lines = csv.reader(io.StringIO(cli.says("usage", "--csv")))
    assert titles == ["account", *usage_module.NUMBERS]
    assert [line[0] for line in lines] == ["ada", "default"]
    assert lines[0][1:] == [str(one) for one in usage_module.numbers_of(rows(busy)["ada"])]

    shown = cli.says("usage")
    assert "ada" in shown
    assert "(total)" in shown
    assert "herd usage --by" in cli.says("usage", "--help")


def test_the_command_shows_every_page(cli, monkeypatch):
    monkeypatch.setitem(read_usage.__kwdefaults__, "limit", 1)
    assert [row["name"] for row in cli.json("usage")["rows"]] == ["ada", "default"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--by", "day"], "account or model"),
        (["--from", "soon"], "--from must be a date"),
        (["--to", "2026-02-30"], "--to must be a date"),
        (["--from", "2026-03-01", "--to", "2026-02-01"], "--from (2026-03-01) is after --to"),
        (["--account", "nobody"], "nobody"),
        (["--csv", "--json"], "not both"),
    ],
)
def test_the_command_refuses_in_one_line(cli, words, said):
    assert said in cli.refused("usage", *words)
