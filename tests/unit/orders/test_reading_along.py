"""What a program beside the herder that reads an order's text along says that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import Mock

import pytest
from redis import ConnectionError as RedisConnectionError

from herder.orders.reader import OrderReader
from workers.transport.delivery import Delivery, Reach
from workers.transport.streams import TextPiece

PIECES = [TextPiece("1-1", 0, "Once upon ", 3, False), TextPiece("1-2", 10, "a time", 5, False)]


class FakeStreams:
    """The text of one attempt, a piece for each read, and what its reader says; `on_note` is done
    once it has said something."""

    def __init__(self) -> None:
        self.pieces = list(PIECES)
        self.at_once = 1
        self.readers: dict[str, Reach] = {}
        self.left = Reach()
        self.on_note = lambda: None

    @property
    def reach(self) -> Reach:
        return max([self.left, *self.readers.values()])

    def read_text(self, _order: str, _attempt: int, after: str, **_: int) -> list[TextPiece]:
        return [one for one in self.pieces if one.id > after][: self.at_once]

    def note_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        for one in deliveries:
            if one.has_left:
                self.readers.pop(one.reader, None)
                self.left = max(self.left, one.reach)
            else:
                self.readers[one.reader] = max(one.reach, self.readers.get(one.reader, Reach()))
                self.on_note()


@pytest.fixture
def streams():
    return FakeStreams()


@pytest.fixture
def order_id(house):
    """An order that runs."""
    worker = house.worker()
    order = house.submit()
    worker.claim(house.dispatched())
    return order.id


def test_what_was_noted_and_not_handed_out_was_not_given(house, streams, order_id):
    """It was cancelled between the two."""
    reader = OrderReader(house.database, streams, Mock(wait=Mock(side_effect=KeyboardInterrupt)))
    stream = reader.stream(order_id)
    assert next(stream) == "Once upon "
    streams.on_note = lambda: house.cancellation.cancel(order_id)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert streams.reach == Reach(10, 3)


def test_who_leaves_while_a_piece_is_handed_out_was_given_it(house, streams, order_id):
    stream = OrderReader(house.database, streams, Mock()).stream(order_id)
    assert next(stream) == "Once upon "
    assert next(stream) == "a time"
    stream.close()
    assert streams.reach == Reach(16, 5)


def test_a_note_of_which_nothing_is_known_is_taken_back(house, streams, order_id):
    def fail() -> None:
        house.cancellation.cancel(order_id)
        raise RedisConnectionError("it was written down, and nobody was told")

    streams.on_note = fail
    reader = OrderReader(house.database, streams, Mock(wait=Mock(side_effect=KeyboardInterrupt)))
    with pytest.raises(KeyboardInterrupt):
        next(reader.stream(order_id))
    assert streams.reach == Reach()


THOUGHT = [
    TextPiece("1-1", 0, "hm", 1, False, 2),
    TextPiece("1-2", 2, ", hmOnce ", 3, False, 4),
    TextPiece("1-3", 11, "upon ", 4, False),
    TextPiece("1-4", 16, "a time", 6, False),
]
"""Six characters of reasoning, and the answer behind them."""


@pytest.mark.parametrize("at_once", [1, 2, 3, 4])
def test_the_answer_alone_is_handed_out_however_it_is_read(house, streams, order_id, at_once):
    streams.pieces, streams.at_once = THOUGHT, at_once
    reader = OrderReader(house.database, streams, Mock(wait=Mock(side_effect=KeyboardInterrupt)))
    stream = reader.stream(order_id)
    said = ""
    while said != "Once upon a time":
        said += next(stream)
        assert "Once upon a time".startswith(said)
    stream.close()
    assert streams.reach == Reach(22, 6)


def test_a_thought_is_given_with_the_first_of_its_answer(house, streams, order_id, monkeypatch):
    """Who cancels before, or leaves, was given nothing of what he pays for."""
    reader = OrderReader(house.database, streams, Mock())
    reads = Mock(side_effect=[THOUGHT[:1], KeyboardInterrupt])
    monkeypatch.setattr(streams, "read_text", reads)
    with pytest.raises(KeyboardInterrupt):
        next(reader.stream(order_id))
    monkeypatch.undo()
    assert streams.reach == Reach()
    streams.pieces, streams.at_once = THOUGHT[:2], 2
    stream = reader.stream(order_id)
    assert next(stream) == "Once "
    stream.close()
    assert streams.reach == Reach(11, 3)


def test_pieces_without_reasoning_that_come_at_once_are_all_answer(house, streams, order_id):
    streams.at_once = 2
    stream = OrderReader(house.database, streams, Mock()).stream(order_id)
    assert next(stream) == "Once upon a time"
