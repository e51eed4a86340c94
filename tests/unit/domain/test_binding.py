"""The rule that binds an attempt, case by case: one verdict for beats, claims and outcomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from herder.domain.binding import judge_attempt
from herder.domain.order import ENDED, Order, State
from herder.domain.pricing import Rates
from workers.wire import AttemptRef

ORDER = Order(
    id="one",
    seq=1,
    account="ada",
    model="stub",
    state=State.RUNNING,
    rank=1,
    fee=13,
    needed=13,
    rates=Rates(1, 1),
    charge_unused=False,
    bid_factor="1",
    automatic=False,
    words=2,
    tokens=10,
    reference=None,
    hold_id="hold",
    holds=1,
    start_by_us=None,
    run_limit_s=60,
    submitted_us=0,
    attempt=2,
    nonce="secret",
    attempt_open=True,
    dispatched_us=0,
    instance="mine",
    worker="mine",
    weights="w",
    started_us=0,
    begun=True,
    call_off=None,
    deadline_heard_s=5,
    overdue_heard_s=65,
    tries=1,
    dispatches=2,
    ended_us=None,
    finish_reason=None,
    prompt_tokens=0,
    generated=0,
    charged=0,
    returned=0,
    refunded=0,
    failure=None,
)
HELD = AttemptRef(order="one", attempt=2, nonce="secret")
CASES = {
    "bound to this worker": ({}, {}, "current"),
    "bound to nobody yet": ({"instance": None}, {}, "current"),
    "bound to another": ({"instance": "other"}, {}, "void"),
    "lapsed, and not sent out again": ({"state": State.QUEUED}, {}, "current"),
    "an older attempt": ({}, {"attempt": 1}, "void"),
    "one that was never made": ({}, {"attempt": 3}, "void"),
    "a nonce that nobody was given": ({}, {"nonce": "guess"}, "void"),
    "never dispatched": ({"nonce": None, "state": State.QUEUED}, {}, "void"),
    "handed back by this worker": ({"state": State.QUEUED, "attempt_open": False}, {}, "settled"),
    "handed back by another": (
        {"state": State.QUEUED, "attempt_open": False, "instance": "other"},
        {},
        "void",
    ),
    "ended without an outcome": (
        {"state": State.CANCELLED, "attempt_open": False, "instance": None},
        {},
        "void",
    ),
    "over, with a nonce that nobody was given": ({"attempt_open": False}, {"nonce": "x"}, "void"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_its_verdict(case):
    changes, named, verdict = CASES[case]
    order, held = replace(ORDER, **changes), HELD.model_copy(update=named)
    assert judge_attempt(order, held, "mine") == verdict


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_ended_is_settled_for_its_worker_and_void_for_others(state):
    order = replace(ORDER, state=state, attempt_open=False)
    assert judge_attempt(order, HELD, "mine") == "settled"
    assert judge_attempt(order, HELD, "other") == "void"


def test_an_order_that_is_not_there_binds_nobody():
    assert judge_attempt(None, HELD, "mine") == "void"
