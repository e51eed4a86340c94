"""An upgrade in place: a herd of a released version, with orders queued and running, goes on.

What each release left behind stands in `cases/releases`; `support/release.py` wrote it then, and
makes a herd of it again.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select
from standardwebhooks import Webhook

from herder.db.tables import orders
from herder.domain.order import State
from herder.domain.signed_tokens import from_jwks, read_receipt, to_jwks
from herder.errors import IdempotencyKeyReused, QuoteExpired, Unauthorized
from herder.orders.settlement import ReceivedOutcome
from herder.store import deliveries as delivery_sql
from herder.store import models as model_sql
from tests.support.house import FakeReceiver, FakeWorker
from tests.support.release import INSTANCE, RELEASES, freeze, frozen, parsed, thaw
from workers.wire import Beat, Outcomes, PrivateKey, unseal

QUEUED = {
    "plain", "chat", "raw", "everything", "schema", "defaults said", "quoted", "rebid"
}  # fmt: skip


@pytest.fixture(params=sorted(one.name for one in RELEASES.iterdir()))
def release(request):
    return RELEASES / request.param


@pytest.fixture
def told(release):
    return frozen(release)


@pytest.fixture
def house(release, tmp_path, clean_environment, new_database):
    made = thaw(release, tmp_path / "herd", new_database(bare=True))
    yield made
    made.check()
    made.close()


@pytest.fixture
def worker(house, told):
    """The worker that had the orders, with the key that it had."""
    key = PrivateKey.from_jwk(told["keys"]["worker"])
    one = FakeWorker(house, "worker", key, INSTANCE, slots=6, number=100)
    house.workers.append(one)
    return one


def opened(house, told, name):
    """A message that was sealed before, as a herder or worker of today reads it."""
    sent = told["signed"]["envelopes"][name]
    keys = [PrivateKey.from_jwk(jwk) for jwk in told["keys"].values()]
    return unseal(
        sent["token"],
        {key.kid: key.public for key in keys},
        audience=sent["audience"],
        now_s=house.now_us / 1_000_000,
    )


def settle(house, told, name):
    envelope = opened(house, told, name)
    assert isinstance(envelope.body, Outcomes)
    given = [ReceivedOutcome(one, envelope.sender, envelope.kid) for one in envelope.body.outcomes]
    return house.settlement.settle(given)


def state(house, told, name):
    return house.order(told["orders"][name]["order"]).state


def count(house):
    with house.database.read() as connection:
        return connection.execute(select(func.count()).select_from(orders)).scalar_one()


def test_nothing_is_lost(house, told):
    assert {one.account: asdict(one) for one in house.accounts.balances()} == told["balances"]
    for name, one in told["orders"].items():
        assert state(house, told, name).value == one["state"], name
    assert house.inbox("alice") == told["inbox"]
    with house.database.read() as connection:
        assert house.books.audit(connection).clean


def test_a_call_that_is_repeated_is_its_order(house, told):
    before = count(house)
    for name, one in told["orders"].items():
        # The key of what was cancelled and cost nothing buys again: see the next test.
        if "call" in one and one["state"] != "cancelled":
            again = house.intake.submit(parsed(one["call"], house, idempotency_key=name))
            assert again.id == one["order"], name
    for name, sent in told["messages"].items():
        taken = house.messages.send(sent["tags"], account="alice", idempotency_key=name)
        assert (taken.id, taken.order) == (sent["id"], sent["order"]), name
    assert count(house) == before
    assert len(house.inbox("alice")) == len(told["inbox"])


def test_the_key_of_what_was_cancelled_and_cost_nothing_buys_again(house, told):
    name, before = "cancelled", told["orders"]["cancelled"]
    was = house.order(before["order"])
    assert (was.state.value, was.charged) == ("cancelled", 0)
    call = parsed(before["call"], house, idempotency_key=name)
    bought = house.intake.submit(call)
    assert (bought.id == was.id, bought.state.value) == (False, "queued")
    assert house.intake.submit(call).id == bought.id, "once"
    assert house.order(was.id).state.value == "cancelled"


CHANGES = {
    "prompt": {"prompt": "other words"},
    "messages": {"prompt": None, "messages": [{"role": "user", "content": "Ünïcödé, a llama"}]},
    "tokens": {"tokens": 19},
    "fee": {"fee": 41},
    "multiplier": {"multiplier": "1.25"},
    "max_fee": {"max_fee": 91},
    "model": {"model": None},
    "stop": {"stop": ["###"]},
    "reference": {"reference": None},
    "start_by_us": {"start_by": "2100-01-31T18:00:01+00:00"},
    "run_limit_s": {"run_limit_s": None},
    "sampling": {"sampling": {"temperature": 0.0}},
}


def test_another_call_under_its_key_is_refused(house, told):
    for field, change in CHANGES.items():
        call = {**told["orders"]["everything"]["call"], **change}
        with pytest.raises(IdempotencyKeyReused) as caught:
            house.intake.submit(parsed(call, house, idempotency_key="everything"))
        assert caught.value.data["field"] == ("prompt" if field == "messages" else field)


def test_money_that_moved_under_an_id_moves_once(house, told):
    house.accounts.deposit("alice", 50_000, "00000000-0000-4000-8000-000000000000", "for alice ⚖")
    house.accounts.withdraw("bob", 50, "00000000-0000-4000-8000-000000000010", "cash")
    house.accounts.transfer("bob", "alice", 40, "00000000-0000-4000-8000-000000000011")
    completed = told["orders"]["completed"]["order"]
    refund_id = "00000000-0000-4000-8000-000000000030"
    assert house.intake.refund(completed, 100, "was slow", refund_id=refund_id) == 100
    house.grants.create(
        "bob", 100, "day", note="each day", grant_id="00000000-0000-4000-8000-000000000020"
    )
    assert {one.account: asdict(one) for one in house.accounts.balances()} == told["balances"]
    with pytest.raises(IdempotencyKeyReused):
        house.accounts.deposit("alice", 49, "00000000-0000-4000-8000-000000000000", "for alice ⚖")


def test_what_was_queued_is_dispatched_and_answered(house, told, worker):
    worker.beat([])
    seen = {}
    while jobs := house.dispatch():
        for job in jobs:
            worker.claim(job)
            worker.finish(job)
            seen[job.order] = job
    for name in sorted(QUEUED):
        assert state(house, told, name) is State.COMPLETED, name
    by_message = told["messages"]["prompt"]["order"]
    assert house.order(by_message).state is State.COMPLETED
    assert house.inbox("alice")[-1]["X-Reference"] == "by message"
    job = seen[told["orders"]["everything"]["order"]]
    assert job.sampling.logit_bias == {5: 1.5, 70: -100.0}
    assert (job.stop, job.run_limit_s, job.sampling.seed) == (("###", "\n"), 90, 7)
    ranks = [house.order(one).rank for one in seen]
    assert ranks == sorted(ranks, reverse=True)


def test_what_ran_is_settled_by_what_was_sealed_before(house, told):
    held = house.held("alice")
    settle(house, told, "outcomes")
    assert state(house, told, "answered") is State.COMPLETED
    assert state(house, told, "called off") is State.CANCELLED
    answered = house.order(told["orders"]["answered"]["order"])
    assert house.answer(answered.id) == "sealed before"
    assert answered.charged == -(-490 * (1 + 3 + 6) // (1 + 3 + 10))
    settle(house, told, "outcome of the running one")
    running = house.order(told["orders"]["running"]["order"])
    assert (running.state, running.charged) == (State.COMPLETED, 500)
    assert house.held("alice") == held - 490 - 480 - 500
    # It came again, as outcomes do.
    settle(house, told, "outcomes")
    settle(house, told, "outcome of the running one")


def test_what_was_on_its_way_is_claimed_or_sent(house, told, worker):
    house.herd.hear([opened(house, told, "claim")])
    assert state(house, told, "dispatched") is State.RUNNING
    heard = house.herd.hear([opened(house, told, "beat")])
    assert not heard.control
    assert isinstance(opened(house, told, "beat").body, Beat)
    job = opened(house, told, "job").body
    assert job.order == told["orders"]["dispatched"]["order"]
    worker.finish(job)
    assert state(house, told, "dispatched") is State.COMPLETED

    house.now_us += 5_000_000
    house.dispatcher.sweep()
    (unsent,) = house.jobs(house.publisher.tokens)
    assert unsent.order == told["orders"]["unsent"]["order"]
    worker.claim(unsent)
    worker.finish(unsent)
    assert state(house, told, "unsent") is State.COMPLETED
    assert house.outbox_rows() == 0


def test_what_its_worker_lost_lapses_and_runs_again(house, told):
    house.lapse(house.settings.lease_s + 1)
    assert state(house, told, "running") is State.QUEUED
    assert state(house, told, "called off") is State.CANCELLED
    other = house.worker(slots=20)
    done = 0
    while jobs := house.dispatch():
        for job in jobs:
            other.claim(job)
            other.finish(job)
            done += 1
    assert done >= len(QUEUED)
    assert state(house, told, "running") is State.COMPLETED
    assert house.held("alice") == 0


def test_signed_receipts_are_still_proof(house, told):
    keys = from_jwks(json.dumps(to_jwks([house.key.public])))
    for name, signed in told["signed"]["receipts"].items():
        claims = read_receipt(signed["token"], keys)
        assert claims["receipt"] == signed["receipt"]
        assert claims["sub"] == told["orders"][name]["order"]


def test_a_quote_holds_for_its_minute(house, told):
    call = {"prompt": "ask first", "tokens": 9, "quote": told["signed"]["quotes"]["plain"]}
    taken = house.intake.submit(parsed(call, house))
    assert (taken.needed, taken.automatic) == (12, True)
    house.now_us += 120_000_000
    with pytest.raises(QuoteExpired):
        house.intake.submit(parsed(call, house))


def test_api_keys_open_what_they_opened(house, told):
    known = house.api_keys.recognise(told["api_keys"]["good"])
    assert (known.account, known.max_fee, known.spending_limit) == ("alice", 10_000, 40_000)
    with pytest.raises(Unauthorized):
        house.api_keys.recognise(told["api_keys"]["revoked"])


def test_webhooks_are_sent_and_signed_as_before(house, told):
    secrets = told["signed"]["webhook"]["secrets"]
    receiver = FakeReceiver()
    house.now_us += 100_000_000
    deliverer = house.new_deliverer(receiver)
    while deliverer.step(0):
        pass
    assert [json.loads(one.body)["type"] for one in receiver.requests] == ["order.failed"]
    for which in secrets:
        house.webhooks.deliveries.replay(which)
    while deliverer.step(0):
        pass
    deliverer.stop()
    with house.database.read() as connection:
        for request in receiver.requests:
            found = delivery_sql.get_delivery(connection, request.headers["webhook-id"])
            assert found is not None
            assert found.state == "delivered"
            # The clock of the test is not that of the machine, which the library asks.
            hook = Webhook(secrets[found.endpoint])
            at = int(request.headers["webhook-timestamp"])
            sent_at = datetime.fromtimestamp(at, UTC)
            signed = hook.sign(request.headers["webhook-id"], sent_at, request.body.decode())
            assert signed in request.headers["webhook-signature"].split()


def test_grants_go_on(house, told):
    before = told["balances"]["bob"]["available"]
    house.now_us += 86_400_000_000
    assert house.grants.post_due() == 1
    assert house.available("bob") == before + 100


@pytest.mark.parametrize("seen", ["stub", "llama-9b", None])
def test_a_herd_goes_on_with_the_model_that_it_served(
    release, tmp_path, clean_environment, new_database, seen
):
    """Until then a herd served what its first worker announced, whatever its default model was."""
    before = tmp_path / "before"
    shutil.copytree(release, before)
    rows = json.loads((before / "rows.json").read_text())
    (one,) = rows["worker"]
    served = {**one, "instance": "w-later", "seen_us": one["seen_us"] + 1, "model": seen}
    rows["worker"] = [] if seen is None else [one, served]
    rows["model"].append({**rows["model"][0], "name": "llama-9b"})
    (before / "rows.json").write_text(json.dumps(rows))
    house = thaw(before, tmp_path / "herd", new_database(bare=True))
    with house.database.read() as connection:
        assert model_sql.read_policy(connection)[1] == (seen or "stub")
    house.worker(model=seen or "stub", slots=6)
    house.close()


def test_what_this_version_leaves_behind_can_be_frozen_too(tmp_path, clean_environment):
    freeze(tmp_path / "today")
    told = frozen(tmp_path / "today")
    house = thaw(tmp_path / "today", tmp_path / "herd")
    test_nothing_is_lost(house, told)
    test_a_call_that_is_repeated_is_its_order(house, told)
    test_the_key_of_what_was_cancelled_and_cost_nothing_buys_again(house, told)
    house.check()
    house.close()
