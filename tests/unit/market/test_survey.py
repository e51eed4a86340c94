"""Places in the book: exact up to a thousand, and from there estimated, and it says so."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.domain.pricing import RANK_SCALE
from herder.market import queue_estimate
from herder.market.queue_estimate import START, QueueSampler, ahead, thinned
from herder.market.quotes import Quotes
from herder.store import book as book_sql
from herder.store import survey as survey_sql
from herder.store.survey import Mark
from herder.types import PLACE_COUNTED, PLACE_UNKNOWN
from tests.unit.cli.herder_cli_support import Cli

LONG = PLACE_COUNTED + 200
"""A book that is too long to be counted."""


def walked(ranks, tokens, step):
    """The marks that a walk down such a book leaves, by the rule and not by SQL."""
    book = sorted(zip(ranks, tokens, strict=True), reverse=True)
    marks = [START]
    while left := [rank for rank, _ in book if rank < marks[-1].rank]:
        reached = left[min(step, len(left)) - 1]
        marks.append(
            Mark(
                reached,
                sum(rank > reached for rank, _ in book),
                sum(rank >= reached for rank, _ in book),
                sum(some for rank, some in book if rank >= reached),
            )
        )
    return marks


few_ranks = st.lists(st.integers(-40, 40), min_size=1, max_size=80)


@given(few_ranks, st.integers(1, 20), st.integers(-41, 41))
def test_an_estimate_is_off_by_less_than_lies_between_two_marks(ranks, step, rank):
    marks = walked(ranks, [7] * len(ranks), step)
    estimate, tokens = ahead(marks, rank)
    truth = sum(other >= rank for other in ranks)
    assert abs(estimate - truth) < step
    assert 0 <= estimate <= len(ranks)
    assert tokens == 7 * estimate


@given(few_ranks, st.integers(1, 20), st.integers(4, 30), st.integers(-41, 41))
def test_fewer_marks_tell_the_same_less_exactly(ranks, step, most, rank):
    marks = walked(ranks, [7] * len(ranks), step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue_estimate, "MAX_MARKS", most)
        kept = thinned(marks)
    assert len(kept) <= most
    assert (kept[0], kept[-1]) == (START, marks[-1])
    truth = sum(other >= rank for other in ranks)
    apart = 2 * len(ranks) // (most - 2)
    assert abs(ahead(kept, rank)[0] - truth) <= max(step - 1, apart)


@pytest.fixture
def long_book(make_house):
    """A house whose book is a little longer than is counted: three fees, mostly the least."""
    house = make_house({"max_open_orders": 0})
    house.fund(10**9)
    for number in range(LONG):
        house.submit(fee=(13, 13, 13, 26, 39 + number)[number % 5])
    return house


def test_a_place_in_a_long_book(long_book, monkeypatch):
    house = long_book
    quotes = Quotes(house.database, house.key, clock_us=house.clock)

    def place(fee):
        found = quotes.quote(house.call(fee=fee))
        return found.place, found.place_exact

    # Nobody has counted yet: it is known that it is far down, and no more.
    assert place(14) == (LONG * 2 // 5 + 1, True)
    assert place(13) == (PLACE_UNKNOWN, False)
    model = quotes.info().model
    assert (model.queue_length, model.queue_length_exact) == (PLACE_COUNTED + 1, False)

    cli = Cli(house, monkeypatch)
    asked = ("quote", "two words", "-n", "10", "--fee", "13")
    assert "beyond 1000" in cli.says(*asked)
    assert "more than 1000 waiting" in cli.says("info")

    # A herder counts, a little at a time.
    monkeypatch.setattr(queue_estimate, "STEP", 50)
    monkeypatch.setattr(queue_estimate, "MAX_STEPS", 3)
    surveyor = QueueSampler(house.database, clock_us=house.clock)
    surveyor.step()
    with house.database.read() as connection:
        assert survey_sql.read(connection, "stub") is None
    for _ in range(10):
        surveyor.step()
    with house.database.read() as connection:
        found = survey_sql.read(connection, "stub")
    assert found is not None
    ranks = [house.order(order_id).rank for order_id in ids_of(house)]
    assert list(found.marks) == walked(ranks, [10] * LONG, 50)

    assert place(13) == (LONG + 1, False)
    assert place(14) == (LONG * 2 // 5 + 1, True)
    model = quotes.info().model
    assert (model.queue_length, model.queue_length_exact) == (LONG, False)
    assert f"about {LONG + 1}" in cli.says(*asked)
    assert f"about {LONG} waiting" in cli.says("info")

    # A count that nobody repeats says nothing in the end.
    house.now_us += queue_estimate.TOO_OLD_US + 1
    assert place(13) == (PLACE_UNKNOWN, False)
    for _ in range(10):
        surveyor.step()
    assert place(13) == (LONG + 1, False)


def test_far_down_a_long_book_nobody_is_counted_anew_for_a_second(long_book, monkeypatch):
    house = long_book
    quotes = Quotes(house.database, house.key, clock_us=house.clock)
    counted = Mock(side_effect=book_sql.ahead_of)
    monkeypatch.setattr(book_sql, "ahead_of", counted)
    ids = ids_of(house)
    near, far, farther = (house.order(ids[number]) for number in (0, 1192, 1197))
    found = quotes.place(far)
    assert (found.place, found.place_exact) == (PLACE_UNKNOWN, False)
    assert quotes.place(far) == quotes.place(farther) == found
    assert counted.call_count == 1
    # One before it is counted, and so is everybody once the second is over.
    assert quotes.place(near).place_exact
    house.now_us += 1_000_000
    quotes.place(farther)
    assert counted.call_count == 3


def test_a_book_that_is_short_again_is_not_judged_by_its_past(house):
    with house.database.write() as connection:
        survey_sql.write(connection, "stub", house.now_us, [START, Mark(1, 9, 10, 5)])
    QueueSampler(house.database, clock_us=house.clock).step()
    with house.database.read() as connection:
        assert survey_sql.read(connection, "stub") is None


def test_a_herder_counts_long_books_in_the_background(house, monkeypatch):
    step = Mock(side_effect=[True, True, False])
    monkeypatch.setattr(QueueSampler, "step", step)
    service = house.new_service()
    service.tick()
    assert step.call_count == 3


def ids_of(house):
    with house.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT id FROM orders WHERE state = 'queued'")
        return [row.id for row in rows]


def test_a_short_book_is_not_surveyed(house):
    for fee in (13, 26):
        house.submit(fee=fee)
    surveyor = QueueSampler(house.database, clock_us=house.clock)
    for _ in range(3):
        surveyor.step()
    with house.database.read() as connection:
        assert survey_sql.read(connection, "stub") is None
    found = Quotes(house.database, house.key, clock_us=house.clock).quote(house.call(fee=13))
    assert (found.place, found.place_exact) == (3, True)


def test_two_herders_may_write_the_same_survey(house):
    marks = [START, Mark(RANK_SCALE, 1, 2, 3)]
    for at_us in (5, 6):
        with house.database.write() as connection:
            survey_sql.write(connection, "stub", at_us, marks)
    with house.database.read() as connection:
        found = survey_sql.read(connection, "stub")
    assert found == survey_sql.Survey(6, tuple(marks))
