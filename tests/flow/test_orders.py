"""From submission to receipt: a herder and workers as people start them."""

from __future__ import annotations

import threading

import pytest

import herder
from herder.client import api as library
from herder.errors import HerdUnavailable, OrderFailed, PromptTooLong, ResultTimeout
from tests.support.wait import wait_for

SECRET = "Zanzibar"
"""A word of the prompts here that no log may hold."""


@pytest.mark.both_brokers
def test_an_order_is_paid_run_and_answered(herd):
    worker = herd.start_worker()
    order = herd.submit(f"What is the meaning of {SECRET}?", 20, fee=54, reference="mine")
    result = order.result(timeout=60)

    assert len(result.text.split()) == 20
    assert (result.finish_reason, result.reference) == ("length", "mine")
    receipt = result.receipt
    assert (receipt.state, receipt.needed, receipt.fee, receipt.charged) == (
        *("completed", 27, 54),
        54,
    )
    assert (receipt.words, receipt.generated, receipt.worker) == (6, 20, worker.name)
    assert receipt.waited_ms is not None
    assert receipt.took_ms is not None
    assert herd.client.accounts.balance("default").available == 1_000_000 - 54

    short = herd.submit(f"{SECRET} [[end:3]]", 20, fee=100).result(timeout=60)
    assert (short.finish_reason, short.receipt.generated) == ("stop", 3)
    assert short.receipt.charged < 100
    assert short.receipt.charged + short.receipt.returned == 100

    stopped = herd.submit(f"{SECRET} [[say:one two STOP three]]", 20, stop="STOP")
    assert stopped.result(timeout=60).text.strip() == "one two"

    failed = herd.submit(f"{SECRET} [[fail]]", 20)
    with pytest.raises(OrderFailed) as caught:
        failed.result(timeout=60)
    assert caught.value.result.receipt.returned == failed.fee
    assert SECRET not in herd.logs
    assert result.text not in herd.logs


def test_a_prompt_that_does_not_fit_is_refused_before_anything_is_held(herd):
    """Though all slots are busy: a worker counts beside what it does."""
    herd.start_worker(HERD_CONTEXT="64", HERD_SLOTS="1", HERD_STUB_STEP_MS="1000")
    busy = herd.submit("Tell me.", 50)
    herd.running(busy)
    with pytest.raises(PromptTooLong) as refused:
        herd.submit(f"{SECRET} " * 80, 10)
    assert refused.value.data["context"] == 64
    assert refused.value.data["prompt_tokens"] > 64
    counted = herd.client.count_tokens(f"{SECRET} " * 80)
    assert counted.prompt_tokens == refused.value.data["prompt_tokens"]
    raw = herd.client.count_tokens("one two three", raw=True)
    turns = herd.client.count_tokens(None, messages=[{"role": "user", "content": "one two three"}])
    assert (raw.prompt_tokens, turns.prompt_tokens) == (3, 5), "the template counts"
    assert herd.client.accounts.balance("default").held == busy.fee
    assert len(herd.client.orders()) == 1
    busy.cancel()
    assert not herd.redis.client().keys("prompt:*"), "no prompt is left anywhere"
    assert SECRET not in herd.logs


def test_a_prompt_that_nobody_could_count_fails_with_both_counts_and_costs_nothing(herd):
    order = herd.submit("word " * 80, 10)
    with pytest.raises(HerdUnavailable, match="No worker"):
        herd.client.count_tokens("word")
    herd.start_worker(HERD_CONTEXT="64")
    with pytest.raises(OrderFailed, match="64") as caught:
        order.result(timeout=60)
    failure = caught.value.result.receipt.failure
    assert failure["code"] == "prompt_too_long"
    assert failure["data"]["context"] == 64
    assert failure["data"]["prompt_tokens"] > 64
    assert herd.client.accounts.balance("default").available == 1_000_000


@pytest.mark.both_brokers
def test_what_is_submitted_while_nobody_is_there_runs_when_they_come(make_herd):
    herd = make_herd()
    order = herd.submit()
    assert order.status() == "queued"
    with pytest.raises(ResultTimeout):
        order.result(timeout=0.2)
    herd.start_herder()
    herd.start_worker()
    assert order.result(timeout=60).receipt.state == "completed"


def test_a_stream_gives_the_text_as_it_comes_and_may_be_joined_late(herd):
    herd.start_worker(HERD_STUB_STEP_MS="100")
    order = herd.submit("Tell me more.", 60)
    pieces, late = [], []
    reading = order.stream()
    pieces.append(next(reading))
    # Claims are read ten times a second: text may be here before the herder knows who has it.
    assert order.status() in ("dispatched", "running"), "the first piece came before the end"

    joined = threading.Thread(target=lambda: late.extend(order.stream()))
    pieces.append(next(reading))
    joined.start()
    pieces.extend(reading)
    joined.join(timeout=60)

    text = order.result(timeout=60).text
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert "".join(late) == text
    assert "".join(order.stream()) == text, "and once more after the end"


def test_characters_cut_across_tokens_are_never_shown_in_part(herd):
    herd.start_worker(HERD_STUB_STEP_MS="5")
    order = herd.submit("[[utf8]]", 40)
    pieces = list(order.stream())
    assert "".join(pieces) == order.result(timeout=60).text
    assert not any("\ufffd" in piece for piece in pieces[:-1])


@pytest.fixture
def program(herd, monkeypatch):
    """The library as a program with the herd's settings imports it."""
    monkeypatch.setenv("HERD_HOME", str(herd.folder))
    monkeypatch.setenv("HERD_REDIS_URL", herd.redis.url)
    monkeypatch.setattr(library, "_connected", None)
    yield herder
    library.connect().close()


def test_callbacks_are_called_once_with_the_answer_or_the_error(herd, program):
    herd.start_worker()
    answers, errors = [], []
    order = program.submit("What is it?", 10, callback=answers.append, on_error=errors.append)
    wait_for(lambda: answers, "the callback is called")
    assert answers == [order.result(timeout=60).text]
    assert errors == []

    program.submit("[[fail]]", 10, callback=answers.append, on_error=errors.append)
    wait_for(lambda: errors, "the error is told")
    assert isinstance(errors[0], OrderFailed)
    assert len(answers) == 1


def test_a_program_asks_for_quotes_and_for_how_the_herd_stands(herd, program):
    herd.start_worker()
    quote = program.quote("What is the meaning of life?", 20)
    assert (quote.needed, quote.fee, quote.place) == (27, 27, 1)
    assert not quote.waiting_for_workers
    model = program.info().model
    assert (model.name, model.workers, model.slots) == ("stub", 1, 2)


@pytest.mark.both_brokers
def test_two_workers_share_the_orders(herd):
    # Each runs for a second: as long as a busy machine takes to submit the next few.
    workers = [herd.start_worker(HERD_STUB_STEP_MS="100") for _ in range(2)]
    orders = [herd.submit(f"Number {number}", 10) for number in range(16)]
    ran_by = {order.result(timeout=60).receipt.worker for order in orders}
    assert ran_by == {worker.name for worker in workers}


@pytest.mark.both_brokers
def test_the_best_paid_is_served_first(herd):
    herd.start_worker(HERD_SLOTS="1", HERD_STUB_STEP_MS="20")
    first = herd.submit("[[hang]]", 20)
    herd.running(first)
    orders = [herd.submit("Next", 5, fee=fee) for fee in (10, 40, 20, 30)]
    first.cancel()
    results = [order.result(timeout=60).receipt for order in orders]
    begun = sorted(results, key=lambda one: one.submitted_us + one.waited_ms * 1000)
    assert [one.fee for one in begun] == [40, 30, 20, 10]


@pytest.mark.both_brokers
def test_many_orders_of_several_threads_are_all_answered(herd):
    herd.start_worker(HERD_SLOTS="8")
    herd.start_worker(HERD_SLOTS="8")
    orders = []

    def submit():
        orders.extend(herd.submit(f"[[say:{place}]]", 5) for place in range(20))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results = [order.result(timeout=60) for order in orders]
    assert len(results) == 80
    assert {result.receipt.state for result in results} == {"completed"}
    balance = herd.client.accounts.balance("default")
    assert balance.available == 1_000_000 - sum(result.receipt.charged for result in results)
