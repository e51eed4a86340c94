"""Rows and the statements that they are written by name the same things."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

import pytest
from sqlalchemy import update

import herder.store
from herder.db.tables import event, message, orders, webhook_delivery
from herder.db.tables import set_aside as aside_table
from herder.domain.order import State
from herder.orders.set_aside import SetAside
from herder.store import set_aside as set_aside_sql
from herder.store.deliveries import NewDelivery
from herder.store.messages import NewMessage
from herder.store.rows import Each, given
from herder.store.steps import EndedRow, NewOrder, RenewedRow, Subject


def _statements() -> dict[str, Each]:
    found = {}
    for module in pkgutil.iter_modules(herder.store.__path__, "herder.store."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Each):
                found[f"{module.name}.{name}"] = value
    return found


def _given(each: Each) -> set[str]:
    return {name for name in each.statement.compile().params if name.startswith("v_")}


@pytest.mark.parametrize("name", sorted(_statements()))
def test_a_statement_takes_what_its_rows_hold(name):
    each = _statements()[name]
    assert _given(each) == {f"v_{field}" for field in each.kind._fields}


@pytest.mark.parametrize(
    ("row", "table", "left"),
    [
        (NewOrder, orders, {"state"}),
        (Subject, event, {"kind", "at_us"}),
        (NewDelivery, webhook_delivery, set()),
        (NewMessage, message, set()),
    ],
)
def test_a_new_row_fills_every_column_that_has_no_value_of_its_own(row, table, left):
    assert set(row._fields) <= set(table.c.keys())
    wanted = {
        one.name
        for one in table.c
        if not one.nullable and one.server_default is None and one is not table.autoincrement_column
    }
    assert wanted - left <= set(row._fields)


def test_the_names_come_from_the_fields():
    each = Each(RenewedRow, update(orders).where(orders.c.seq == given("seq")))
    assert each.parameters([RenewedRow(7, 60)]) == [{"v_seq": 7, "v_deadline_heard_s": 60}]
    assert _given(each) == {"v_seq"}, "and a statement that forgets one is found"


def test_how_an_order_ended_is_read_as_it_was_stored(house):
    house.fund(100)
    order = replace(house.submit(), state=State.FAILED, ended_us=5, failure={"code": "x"})
    ending = EndedRow.of(order)
    assert ending.applied_to(order) == replace(order, attempt_open=False)
    stored = ending.to_json()
    assert set(stored) <= set(orders.c.keys())
    assert EndedRow.from_json(order.seq, stored | {"of_a_newer_herder": 1}) == ending
    del stored["charged"]
    with pytest.raises(ValueError, match="charged"):
        EndedRow.from_json(order.seq, stored)


@pytest.mark.parametrize("ending", [{"state": "gone"}, [], {}])
def test_an_ending_that_cannot_be_read_keeps_no_other_from_being_shown(house, ending):
    house.fund(1000)
    aside = SetAside(house.database, house.books, clock_us=house.clock)
    first, second = house.submit(), house.submit()
    with house.database.write() as connection:
        for order in (first, second):
            ended = replace(order, state=State.EXPIRED, returned=order.fee)
            set_aside_sql.put(
                connection,
                order,
                instance=None,
                at_us=house.now_us,
                reason="It was tried.",
                ending=EndedRow.of(ended),
            )
        connection.execute(
            update(aside_table).where(aside_table.c.order_id == first.id).values(ending=ending)
        )
    shown = {one.order: one.ends_as for one in aside.list()}
    assert shown == {first.id: None, second.id: "expired"}
    assert aside.retry(second.id).state == "expired"
    assert aside.retry(first.id).state == "queued"
