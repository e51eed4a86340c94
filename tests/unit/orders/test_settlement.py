"""How orders end, what they are charged, and which outcomes count."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
from sqlalchemy import update

from herder.db.tables import orders
from herder.domain.order import Prompt
from herder.store import herd as herd_sql
from tests.support.house import FakeWorker
from workers.wire import Failure


@pytest.fixture
def worker(house) -> FakeWorker:
    return house.worker(slots=4)


@pytest.fixture
def order(house, worker):
    """needed = 1 + (2 + 10) = 13, offered twice that."""
    return house.submit("two words", 10, fee=26)


@pytest.fixture
def job(house, order):
    return house.dispatched()


def ended(house, order):
    now = house.order(order.id)
    return now.state, now.charged, now.returned


# Ends and charges


def test_a_completed_order_is_charged_for_what_was_generated(house, worker, order, job):
    worker.claim(job)
    settled = worker.finish(job, generated=5, text="so it is", prompt_tokens=4, took_ms=1500)

    assert settled.ended == [order.id]
    assert settled.confirmed == [(worker.instance, job.held)]
    assert ended(house, order) == ("completed", 16, 10)  # ceil(26 * (1 + 2 + 5) / 13)
    assert house.answer(order.id) == "so it is"
    assert house.available() == 100_000 - 16
    assert house.events(order.id) == ["submitted", "dispatched", "started", "completed"]
    now = house.order(order.id)
    assert (now.worker, now.generated, now.prompt_tokens, now.tries) == (worker.name, 5, 4, 1)
    assert now.finish_reason == "length"


def test_what_the_model_thought_is_charged_and_kept_apart(house, worker, order, job):
    worker.claim(job)
    assert job.splits_reasoning
    worker.finish(job, generated=5, text="hm, so it is", reasoning=4, reasoning_tokens=2)
    assert ended(house, order) == ("completed", 16, 10)
    kept = house.kept(order.id)
    assert (kept.answer, kept.reasoning, kept.reasoning_tokens) == ("so it is", "hm, ", 2)
    # No more than all of it, whatever a worker says.
    another = house.submit("two words", 10, fee=26)
    worker.finish(house.dispatched(), generated=9, text="hm", reasoning=99, reasoning_tokens=99)
    kept = house.kept(another.id)
    assert (kept.answer, kept.reasoning, kept.reasoning_tokens) == ("", "hm", 9)
    raw = replace(house.call(fee=26), prompt=Prompt("two words", raw=True))
    house.intake.submit(raw)
    assert not house.dispatched().splits_reasoning


def test_all_tokens_cost_the_whole_fee_and_none_only_the_prompt(house, worker, order, job):
    worker.finish(job, generated=10)
    assert ended(house, order) == ("completed", 26, 0)
    short = house.submit("two words", 10, fee=26)
    worker.finish(house.dispatched(), generated=0, text="", finish_reason="stop")
    assert ended(house, short) == ("completed", 6, 20)  # 26 * 3 / 13


def test_the_originals_rule_charges_the_whole_fee_of_completed_orders(make_house):
    house = make_house(policy={"charge_unused": True})
    house.fund(1000)
    worker = house.worker(slots=2)
    done, cut = house.submit(fee=26), house.submit(fee=26)
    jobs = house.dispatch()
    worker.finish(jobs[0], generated=1)
    worker.finish(jobs[1], generated=1, finish_reason="deadline")
    assert ended(house, done) == ("completed", 26, 0)
    assert ended(house, cut) == ("expired", 8, 18)


@pytest.mark.parametrize(
    ("reason", "generated", "expected"),
    [
        ("deadline", 5, ("expired", 16, 10)),
        ("deadline", 0, ("expired", 0, 26)),
        ("cancelled", 1, ("cancelled", 8, 18)),
        ("cancelled", 0, ("cancelled", 0, 26)),
        ("stop", 10, ("completed", 26, 0)),
    ],
)
def test_what_was_cut_short_is_charged_if_anything_was_delivered(
    house, worker, order, job, reason, generated, expected
):
    worker.claim(job)
    if reason == "cancelled":
        house.cancellation.cancel(order.id)
        house.readers.read(job, 2, generated)
    worker.finish(job, finish_reason=reason, generated=generated, text="so")
    assert ended(house, order) == expected
    assert house.answer(order.id) == "so"


def test_a_worker_cannot_charge_for_more_than_was_asked(house, worker, order, job):
    worker.finish(job, generated=2**40)
    assert ended(house, order) == ("completed", 26, 0)
    assert house.order(order.id).generated == 10


def test_a_permanent_failure_returns_everything_at_once(house, worker, order, job):
    failure = Failure(
        code="prompt_too_long",
        message="The prompt is 5000 tokens long.",
        permanent=True,
        data={"prompt_tokens": 5000, "context": 4096},
    )
    worker.finish(job, result="failed", failure=failure, generated=3, text="par")
    assert ended(house, order) == ("failed", 0, 26)
    assert house.order(order.id).failure == failure.model_dump()
    assert house.available() == 100_000


def test_a_failure_that_says_nothing_returns_everything(house, worker, order, job):
    worker.finish(job, result="failed")
    assert ended(house, order) == ("failed", 0, 26)


def test_a_passing_failure_is_tried_again_and_given_up_in_the_end(house, worker, order, job):
    for attempt in range(1, house.settings.max_attempts + 1):
        assert job.attempt == attempt
        worker.claim(job)
        worker.fail(job, permanent=False)
        if attempt < house.settings.max_attempts:
            assert house.order(order.id).state == "queued"
            assert house.held() == 26
            job = house.dispatched()
    assert ended(house, order) == ("failed", 0, 26)
    assert house.order(order.id).failure["code"] == "stub_trouble"
    assert house.events(order.id).count("attempt_failed") == 2


def test_what_is_handed_back_was_sent_but_not_tried(house, worker, order, job):
    for _ in range(house.settings.max_attempts + 2):
        worker.claim(job)
        worker.hand_back(job)
        assert house.order(order.id).tries == 0
        job = house.dispatched()
    assert job.attempt == house.settings.max_attempts + 3
    worker.finish(job)
    assert ended(house, order) == ("completed", 26, 0)
    assert house.order(order.id).tries == 1


def test_what_is_handed_back_again_and_again_fails_in_the_end(make_house):
    house = make_house(max_dispatches=3)
    house.fund(1000)
    worker = house.worker()
    order = house.submit()
    for _ in range(3):
        assert house.order(order.id).state == "queued"
        worker.hand_back(house.dispatched())
    assert ended(house, order) == ("failed", 0, 13)
    assert house.order(order.id).failure["code"] == "too_many_dispatches"


def test_an_order_that_comes_back_keeps_its_place(house, worker, order, job):
    later = house.submit("two words", 10, fee=26)
    worker.hand_back(job)
    one_slot = [job.order for job in house.dispatch()]
    assert one_slot == [order.id, later.id]


# Which outcomes count


def test_an_outcome_may_come_before_its_claim(house, worker, order, job):
    assert house.order(order.id).worker is None
    worker.finish(job, took_ms=0)
    now = house.order(order.id)
    assert (now.state, now.instance, now.tries) == ("completed", worker.instance, 1)
    assert now.started_us is not None


def test_another_worker_cannot_answer_an_attempt_that_is_bound(house, worker, order, job):
    thief = house.worker()
    worker.claim(job)
    settled = thief.finish(job, text="stolen")
    assert settled.void == [(thief.instance, job.held)]
    assert settled.ended == settled.confirmed == []
    assert house.order(order.id).state == "running"
    worker.finish(job)
    assert house.answer(order.id) == "so it is"


@pytest.mark.parametrize(
    "change", [{"nonce": "guessed"}, {"attempt": 2}, {"order": "unknown"}], ids=str
)
def test_who_does_not_know_the_attempt_answers_nothing(house, worker, order, job, change):
    forged = job.model_copy(update=change)
    settled = worker.finish(forged)
    assert settled.void == [(worker.instance, forged.held)]
    assert house.order(order.id).state == "dispatched"
    assert house.held() == 26


def test_an_outcome_of_an_attempt_before_the_last_is_void(house, worker, order, job):
    worker.claim(job)
    worker.fail(job, permanent=False)
    house.dispatched()
    settled = worker.finish(job, text="late")
    assert settled.void == [(worker.instance, job.held)]
    assert house.order(order.id).state == "dispatched"


def test_an_outcome_of_a_revoked_key_is_neither_settled_nor_confirmed(house, worker, order, job):
    with house.database.write() as connection:
        assert herd_sql.revoke_key(connection, worker.key.kid, house.now_us)
    settled = worker.finish(job)
    assert (settled.confirmed, settled.void, settled.ended) == ([], [], [])
    assert house.held() == 26


def test_an_outcome_signed_by_another_workers_key_counts_for_nothing(house, worker, order, job):
    other = house.worker()
    thief = FakeWorker(house, "thief", other.key, worker.instance)
    settled = thief.finish(job)
    assert (settled.confirmed, settled.void, settled.ended) == ([], [], [])


def test_a_worker_that_did_not_announce_itself_is_not_confirmed(house, order, job):
    stranger = house.worker(announced=False)
    settled = stranger.finish(job)
    assert (settled.confirmed, settled.void, settled.ended) == ([], [], [])
    stranger.beat()
    assert stranger.finish(job).void == [(stranger.instance, job.held)], "it was not sent to it"
    sent_to_anybody(house, order)
    assert stranger.finish(job).ended == [order.id], "its outcome comes again"


def sent_to_anybody(house, order):
    """As a herder of an earlier version sent it."""
    with house.database.write() as connection:
        connection.execute(update(orders).where(orders.c.id == order.id).values(instance=None))


def test_an_outcome_that_comes_again_is_confirmed_again_and_changes_nothing(
    house, worker, order, job
):
    worker.finish(job, generated=5)
    before = house.order(order.id)
    for _ in range(2):
        settled = worker.finish(job, generated=9, text="other")
        assert settled.confirmed == [(worker.instance, job.held)]
        assert settled.ended == []
    assert house.order(order.id) == before
    assert house.answer(order.id) == "so it is"


def test_several_outcomes_of_one_order_in_one_batch_settle_once(house, worker, order, job):
    thief = house.worker()
    settled = house.settlement.settle(
        [
            worker.answer(job, generated=5),
            worker.answer(job, generated=9),
            thief.answer(job, generated=1),
        ]
    )
    assert settled.ended == [order.id]
    assert settled.confirmed == [(worker.instance, job.held)] * 2
    assert settled.void == [(thief.instance, job.held)]
    assert ended(house, order) == ("completed", 16, 10)


def test_an_attempt_handed_back_twice_in_one_batch_goes_back_once(house, worker, order, job):
    worker.claim(job)
    answers = [worker.answer(job, result="handed_back") for _ in range(2)]
    house.settlement.settle([*answers, worker.answer(job)])
    now = house.order(order.id)
    assert (now.state, now.tries, now.attempt_open) == ("queued", 0, False)
    assert house.events(order.id).count("handed_back") == 1


def test_many_outcomes_settle_together(house, worker):
    orders = [house.submit(fee=20 + place) for place in range(4)]
    jobs = house.dispatch()
    results = [{}, {"generated": 0}, {"finish_reason": "deadline"}, {"result": "failed"}]
    house.settlement.settle(
        [worker.answer(job, **fields) for job, fields in zip(jobs, results, strict=True)]
    )
    assert [ended(house, order)[0] for order in orders] == [
        *("failed", "expired", "completed", "completed")
    ]


# One poisoned outcome


def test_an_outcome_that_cannot_be_settled_does_not_hold_up_the_others(house, worker, monkeypatch):
    orders = [house.submit(fee=20 + place) for place in range(3)]
    jobs = {job.order: job for job in house.dispatch()}
    apply = house.settlement._apply

    def poisoned(plan, order, outcome, now_us):
        if order.id == orders[1].id:
            raise ZeroDivisionError("poison")
        return apply(plan, order, outcome, now_us)

    monkeypatch.setattr(house.settlement, "_apply", poisoned)
    streams = Mock()
    service = house.new_service(streams)
    service.answer([worker.answer(jobs[order.id]) for order in orders])
    assert service.work(0)

    states = [house.order(order.id).state for order in orders]
    assert states == ["completed", "set_aside", "completed"]
    (told,) = streams.announce_ended.call_args.args
    assert sorted(told) == sorted([orders[0].id, orders[2].id])
    assert house.held() == 21
