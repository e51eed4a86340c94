"""The judge of calls can fail: each wrong that is planted is reported."""

from __future__ import annotations

import pytest

from tests.chaos.buyers import Asked
from tests.chaos.judge_calls import judge_calls
from tests.support.house import House


@pytest.fixture
def house(tmp_path, clean_environment):
    house = House(tmp_path / "house")
    house.fund(100_000)
    yield house
    house.close()


@pytest.fixture
def calls(house):
    """A call that was answered, one that was refused, and one whose order was given up."""
    worker = house.worker()
    answered = house.submit("The first of all.", tokens=2, fee=40)
    job = house.dispatched()
    worker.claim(job)
    house.now_us += 10
    worker.finish(job, text="so is")
    gone = house.submit("The second of all.", tokens=2, fee=40)
    house.now_us += 10
    house.cancellation.cancel(gone.id)
    return [
        Asked("The first of all.", answered.id, house.now_us, text="so is"),
        Asked("The second of all.", error="it went away"),
        Asked("The third of all.", error="it was away"),
    ]


def judged(house, calls):
    return judge_calls(house.database, calls, max_attempts=3)


def test_calls_that_are_right_are_found_right(house, calls):
    assert judged(house, calls) == {"completed": 1, "cancelled": 1}


@pytest.mark.parametrize(
    ("which", "wrong", "reported"),
    [
        (0, {"text": None, "error": "it went away"}, "ended with an error and was charged 40"),
        (0, {"text": "so was"}, "was given another text"),
        (0, {"text": None}, "has neither an answer nor an error"),
        (1, {"order": "another"}, "which is none of its orders"),
        (2, {"text": "so is", "error": None}, "was given another text"),
        (2, {"prompt": "of all."}, "made 2 orders"),
        (0, {"prompt": "The fourth of all."}, "is none of its orders"),
    ],
)
def test_a_wrong_is_reported(which, wrong, reported, house, calls):
    for name, value in wrong.items():
        setattr(calls[which], name, value)
    with pytest.raises(AssertionError) as error:
        judged(house, calls)
    assert reported in str(error.value)
