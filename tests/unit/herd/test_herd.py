"""The herd as the herder hears it: announcements, claims, beats, and the listening clock."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from herder.db.tables import orders
from herder.domain.pricing import Rates
from herder.errors import ModelNotFound
from herder.market.policy import set_herd_model, set_rates
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from tests.support.house import MODEL, FakeWorker, confirms, stops
from workers.wire import Announcement, Beat, Claim, Outcomes, Reject


@pytest.fixture
def worker(house) -> FakeWorker:
    return house.worker()


@pytest.fixture
def order(house, worker):
    return house.submit(fee=26)


@pytest.fixture
def job(house, order):
    return house.dispatched()


def refusals(heard):
    return [(instance, body.reason) for instance, body in heard.control if type(body) is Reject]


# Joining


def test_a_worker_joins_by_its_first_beat(house):
    worker = house.worker("ada", slots=3, context=2048, tokens_per_s=50, announced=False)
    heard = worker.beat()
    assert heard.models == {MODEL}
    known = house.worker_state(worker)
    assert (known.name, known.slots, known.context, known.tokens_per_s) == ("ada", 3, 2048, 50)
    assert (known.state, known.reached, known.free) == ("alive", False, 0)
    assert worker.answer_hello().models == {MODEL}
    assert house.worker_state(worker).free == 1, "until it claims something"
    assert house.model().context == 2048


def test_a_worker_of_another_model_is_refused_and_told_why(house, worker):
    other = house.worker(model="llama-9b", announced=False)
    ((instance, reason),) = refusals(other.beat())
    assert instance == other.instance
    assert "llama-9b" in reason
    assert MODEL in reason
    with house.database.read() as connection:
        assert herd_sql.get_worker(connection, other.instance) is None


def test_a_worker_with_a_smaller_context_is_refused_and_a_larger_one_joins(house):
    house.worker(context=2048)
    assert "2048" in refusals(house.worker(context=1024, announced=False).beat())[0][1]
    house.worker(context=8192)
    assert house.model().context == 2048


def test_a_worker_that_was_lost_cannot_come_back_to_a_herd_that_changed(house, worker):
    house.pass_s(house.settings.lease_s + 1)
    house.herd.sweep()
    set_herd_model(house.database, "llama-9b")
    house.worker(model="llama-9b")
    assert refusals(worker.beat())
    assert house.worker_state(worker).state == "lost"


def test_a_worker_cannot_change_into_another_model_once_it_joined(house, worker):
    house.worker()
    worker.model = "llama-9b"
    assert refusals(worker.beat())
    assert house.worker_state(worker).model == MODEL


def test_an_empty_herd_does_not_become_what_joins_it_first(house):
    """A typo in HERD_MODEL had every right worker sent away, and orders wait."""
    typo = house.worker(model="stubb", announced=False)
    ((instance, reason),) = refusals(typo.beat())
    assert instance == typo.instance
    assert "This herd serves stub, but the worker announced stubb" in reason
    assert "herd model set stubb --default" in reason
    right = house.worker(announced=False)
    assert not refusals(right.beat())
    with house.database.read() as connection:
        assert [one.name for one in model_sql.list_models(connection)] == [MODEL]
    with pytest.raises(ModelNotFound):
        house.submit(fee=26, model="stubb")


def test_a_herd_serves_another_model_once_an_operator_says_so(house, worker):
    set_rates(house.database, MODEL, prompt_fee=3, fee_per_token=4)
    assert set_herd_model(house.database, "llama-9b") == MODEL
    assert house.model("llama-9b").rates == Rates(3, 4)
    assert not refusals(worker.beat()), "who is here stays until it ends"
    assert "llama-9b" in refusals(house.worker(announced=False).beat())[0][1]
    assert not refusals(house.worker(model="llama-9b", context=512, announced=False).beat())
    assert house.model("llama-9b").context == 512
    assert set_herd_model(house.database, "llama-9b") == "llama-9b"


def test_a_worker_that_was_lost_joins_again_with_its_next_beat(house, worker):
    house.pass_s(house.settings.lease_s + 1)
    house.herd.sweep()
    assert house.worker_state(worker).state == "lost"
    worker.beat()
    assert house.worker_state(worker).state == "alive"


def test_a_revoked_worker_is_told_to_end(house, worker, job):
    with house.database.write() as connection:
        assert herd_sql.revoke_key(connection, worker.key.kid, house.now_us)
        assert not herd_sql.revoke_key(connection, worker.key.kid, house.now_us)
    assert refusals(worker.claim(job))
    assert refusals(worker.beat())
    assert house.order(job.order).state == "dispatched"


def test_a_revoked_key_cannot_have_another_worker_sent_away(house, worker):
    revoked = house.worker("gone")
    with house.database.write() as connection:
        herd_sql.revoke_key(connection, revoked.key.kid, house.now_us)
    posing = FakeWorker(house, "gone", revoked.key, worker.instance)
    assert posing.beat().control == []


def test_an_instance_belongs_to_the_key_that_announced_it(house, worker, job):
    other = house.worker("other")
    posing = FakeWorker(house, "other", other.key, worker.instance, number=99)
    heard = posing.beat(running=[job.held])
    assert (heard.control, heard.models) == ([], set())
    assert house.worker_state(worker).beat == 1
    assert house.order(job.order).state == "dispatched"


def test_what_only_herders_or_queues_may_hear_changes_nothing(house, worker, job):
    envelope = worker.envelope(Outcomes(outcomes=(worker.outcome(job),)))
    assert house.herd.hear([envelope]).control == []
    assert house.order(job.order).state == "dispatched"


# Beats


def test_an_old_beat_says_nothing_of_now(house, worker, job):
    worker.claim(job)
    worker.beat()
    worker.slots = 9
    assert worker.beat(number=2).models == set()
    assert house.worker_state(worker).slots == 1
    worker.beat(number=3)
    assert house.worker_state(worker).slots == 9


def test_a_worker_that_drains_gives_no_slots(house, worker):
    worker.beat(draining=True)
    known = house.worker_state(worker)
    assert (known.state, known.free) == ("draining", 0)


def test_a_farewell_is_the_end_of_an_instance(house, worker):
    worker.leave()
    assert house.worker_state(worker).state == "gone"


def test_a_beat_and_a_claim_of_an_unannounced_worker_in_one_batch_are_both_heard(house, order):
    newcomer = house.worker(announced=False)
    job = house.dispatched()
    sent_to_anybody(house, order)
    first = Beat(number=1, worker=announcement(newcomer))
    heard = newcomer.says(first, Claim(held=(job.held,)))
    assert heard.control == []
    assert house.order(order.id).instance == newcomer.instance


def sent_to_anybody(house, order):
    """As a herder of an earlier version sent it."""
    with house.database.write() as connection:
        connection.execute(update(orders).where(orders.c.id == order.id).values(instance=None))


def announcement(worker):
    return Announcement(
        name=worker.name, model=worker.model, slots=worker.slots, context=worker.context
    )


# Claims


def test_a_claim_binds_the_attempt(house, worker, order, job):
    heard = worker.claim(job)
    assert heard.control == []
    now = house.order(order.id)
    assert (now.state, now.instance, now.worker) == ("running", worker.instance, worker.name)
    assert (now.tries, now.started_us) == (1, house.now_us)
    assert house.events(order.id)[-1] == "started"


def test_a_second_worker_that_shows_up_with_it_is_told_to_stop(house, worker, order, job):
    second = house.worker()
    worker.claim(job)
    assert stops(second.claim(job), second) == [job.held]
    assert stops(second.beat(), second) == [job.held]
    assert house.order(order.id).instance == worker.instance
    assert house.worker_state(second).strays == 1


def test_of_two_claims_in_one_batch_the_first_counts(house, worker, order, job):
    second = house.worker()
    sent_to_anybody(house, order)
    claims = [one.envelope(Claim(held=(job.held,))) for one in (second, worker)]
    heard = house.herd.hear(claims)
    assert house.order(order.id).instance == second.instance
    assert stops(heard, worker) == [job.held]
    assert house.order(order.id).tries == 1


def test_claims_of_several_attempts_travel_together(house):
    worker = house.worker(slots=3)
    orders = [house.submit() for _ in range(3)]
    jobs = house.dispatch()
    worker.says(Claim(held=tuple(job.held for job in jobs)))
    assert {house.order(order.id).state for order in orders} == {"running"}


@pytest.mark.parametrize("change", [{"nonce": "guessed"}, {"attempt": 2}, {"order": "x"}], ids=str)
def test_who_does_not_know_the_nonce_binds_nothing(house, worker, order, job, change):
    forged = job.held.model_copy(update=change)
    assert stops(worker.says(Claim(held=(forged,))), worker) == [forged]
    assert house.order(order.id).state == "dispatched"


def test_a_beat_claims_as_well_as_a_claim(house, worker, order, job):
    worker.beat(running=[job.held])
    assert house.order(order.id).instance == worker.instance
    worker.beat(running=[job.held])
    assert house.order(order.id).tries == 1


def test_a_claim_that_its_outcome_overtook_changes_nothing(house, worker, order, job):
    worker.finish(job)
    before = house.order(order.id)
    assert worker.claim(job).control == []
    assert worker.beat().control == []
    assert house.order(order.id) == before
    assert house.worker_state(worker).strays == 0


def test_an_attempt_of_an_order_that_ended_is_to_be_stopped(house, worker, order, job):
    other = house.worker()
    worker.finish(job)
    assert stops(other.claim(job), other) == [job.held]


# Confirmations


def test_an_outcome_that_waits_is_confirmed_once_it_is_settled(house, worker, order, job):
    assert worker.beat(running=[], unconfirmed=[job.held]).control == []
    assert house.order(order.id).instance == worker.instance, "it shows up with it"
    worker.finish(job)
    assert confirms(worker.beat(unconfirmed=[job.held]), worker) == [job.held]


def test_an_outcome_that_is_void_is_called_off(house, worker, order, job):
    worker.claim(job)
    house.lapse(house.settings.lease_s + 1)
    house.worker()
    house.dispatched()
    assert stops(worker.beat(running=[], unconfirmed=[job.held]), worker) == [job.held]
