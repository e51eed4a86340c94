"""One worker instance, with the deterministic model and a herder of the test's own."""

from __future__ import annotations

import threading

import pytest
from redis import ConnectionError as RedisDown

from tests.support.wait import wait_for
from workers.agent.agent import Agent
from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.settings import JoinFile, WorkerSettings
from workers.wire import (
    BEATS_STREAM,
    HERDER_QUEUE,
    Beat,
    CancelAttempt,
    Claim,
    Confirm,
    Drain,
    InferenceJob,
    Outcomes,
    PrivateKey,
    Reject,
    WorkerStopped,
    control_stream,
    seal,
    unseal,
)

HERDER, WORKER = PrivateKey.generate(), PrivateKey.generate()


class FakeStreams:
    """Redis as the agent uses it: what it said, and what it is to hear."""

    def __init__(self):
        self.beats, self.texts, self.down = [], [], False
        self.on_beat = lambda _body: None

    def add_beat(self, token):
        if self.down:
            raise RedisDown("no Redis")
        self.beats.append(unseal(token, {WORKER.kid: WORKER.public}, audience=BEATS_STREAM))
        self.on_beat(self.beats[-1].body)

    def add_texts(self, pieces):
        self.texts += pieces

    def read_control(self, _instance, _after, *, block_ms):
        threading.Event().wait(min(block_ms, 20) / 1000)
        return []

    def said(self, kind):
        return [one.body for one in self.beats if isinstance(one.body, kind)]


class FakeSender:
    """Celery as the agent uses it."""

    def __init__(self):
        self.outcomes, self.down = [], False

    def publish_many(self, tasks):
        if self.down:
            raise ConnectionError("no broker")
        for task in tasks:
            body = unseal(task.token, {WORKER.kid: WORKER.public}, audience=HERDER_QUEUE).body
            assert isinstance(body, Outcomes)
            self.outcomes += body.outcomes


class Bench:
    """An agent with all that it needs."""

    def __init__(self, tmp_path, **settings):
        self.streams, self.sender = FakeStreams(), FakeSender()
        self.refused, self.drained, self.stuck = [], [], []
        self.engine = Engine(StubModel(context=64, slots=2))
        self.engine.start()
        given = {"home": tmp_path, "model": "stub", "worker_name": "ada", "resend_s": 1, **settings}
        self.agent = Agent(
            self.engine,
            self.streams,
            self.sender,
            JoinFile(WORKER, {HERDER.kid: HERDER.public}),
            WorkerSettings(**given),
            instance="w-1",
            on_refused=self.refused.append,
            on_drain=lambda: self.drained.append(True),
            on_stuck=lambda: self.stuck.append(True),
        )
        self.agent.start()

    def tell(self, body, *, key=HERDER, audience=None):
        where = audience or control_stream("w-1")
        self.agent.hear(seal(body, key, sender="herder", audience=where))

    def run(self, job):
        """Run a job on a thread, as Celery would."""
        thread = threading.Thread(target=self.agent.run, args=(job,))
        thread.start()
        return thread

    def outcome(self, job):
        """Wait for an attempt's outcome."""

        def found():
            return [one for one in self.sender.outcomes if one.held == job.held]

        return wait_for(found, "its outcome is sent")[-1]

    def held(self, kind):
        self.agent.beat()
        return getattr(self.streams.said(Beat)[-1], kind)


@pytest.fixture
def bench(tmp_path, clean_environment):
    made = Bench(tmp_path)
    yield made
    made.agent.drain(grace_s=0)
    made.agent.close(timeout_s=0)


def job(prompt="What is it?", tokens=5, **fields):
    given = {"order": "o-1", "attempt": 1, "nonce": "n-1", "rank": 0, "model": "stub"}
    return InferenceJob(
        **{**given, "prompt": prompt, "tokens": tokens, "run_limit_s": 600, **fields}
    )


def test_an_attempt_is_claimed_run_and_answered(bench):
    one = job()
    assert bench.agent.run(one) == {"status": "completed", "tokens": 5}
    assert bench.streams.said(Claim) == [Claim(held=(one.held,))]
    outcome = bench.outcome(one)
    assert (outcome.result, outcome.finish_reason, outcome.generated) == ("completed", "length", 5)
    wait_for(lambda: any(piece.end for piece in bench.streams.texts), "its text is streamed")
    assert "".join(piece.text for piece in bench.streams.texts) == outcome.text


def test_what_it_returns_to_celery_holds_no_text(bench):
    assert set(bench.agent.run(job("[[say:secret]]"))) == {"status", "tokens"}


def test_an_outcome_is_sent_again_until_it_is_confirmed(bench):
    one = job()
    bench.sender.down = True
    bench.agent.run(one)
    assert bench.held("unconfirmed") == (one.held,)
    bench.sender.down = False
    bench.outcome(one)
    wait_for(lambda: len(bench.sender.outcomes) > 1, "it is sent again")
    bench.tell(Confirm(held=(one.held,)))
    assert bench.held("unconfirmed") == ()


def test_a_message_that_comes_twice_runs_once(bench):
    one = job("[[hang:0]]")
    thread = bench.run(one)
    wait_for(lambda: bench.held("running"), "it runs")
    assert bench.agent.run(one)["status"] == "repeated"
    bench.tell(CancelAttempt(held=one.held, reason="cancelled"))
    thread.join(timeout=60)
    assert not thread.is_alive()
    bench.outcome(one)
    assert bench.agent.run(one)["status"] == "repeated", "not confirmed yet"
    bench.tell(Confirm(held=(one.held,)))
    assert bench.agent.run(one)["status"] == "repeated", "ended"


@pytest.mark.parametrize(("reason", "said"), [("cancelled", "cancelled"), ("deadline", "deadline")])
def test_what_is_stopped_says_what_it_has(bench, reason, said):
    one = job("[[hang:3]]")
    thread = bench.run(one)
    wait_for(lambda: any(piece.text for piece in bench.streams.texts), "text comes")
    bench.tell(CancelAttempt(held=one.held, reason=reason))
    thread.join(timeout=60)
    assert not thread.is_alive()
    outcome = bench.outcome(one)
    assert (outcome.result, outcome.finish_reason) == ("completed", said)
    assert 1 <= outcome.generated <= 3


def test_what_is_void_is_stopped_and_forgotten(bench):
    one, other = job("[[hang]]"), job(order="o-2")
    thread = bench.run(one)
    wait_for(lambda: bench.held("running"), "it runs")
    bench.tell(CancelAttempt(held=one.held, reason="void"))
    thread.join(timeout=60)
    assert not thread.is_alive()
    bench.agent.run(other)
    bench.outcome(other)
    bench.tell(CancelAttempt(held=other.held, reason="void"))
    assert (bench.held("running"), bench.held("unconfirmed")) == ((), ())
    assert {outcome.order for outcome in bench.sender.outcomes} == {"o-2"}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reason", ["cancelled", "deadline", "void"])
def test_an_order_to_stop_that_overtakes_the_engine_is_obeyed(bench, reason):
    """The herder answers a claim, and the answer may be there before the engine has the prompt."""
    one = job("[[hang]]", run_limit_s=3600)

    def answer(body):
        if isinstance(body, Claim):
            bench.tell(CancelAttempt(held=one.held, reason=reason))

    bench.streams.on_beat = answer
    result = bench.agent.run(one)
    assert result["status"] == reason
    if reason != "void":
        assert bench.outcome(one).finish_reason == reason


@pytest.mark.parametrize(
    ("prompt", "code", "permanent"),
    [
        ("[[fail]]", "stub_failure", True),
        ("[[trouble]]", "stub_trouble", False),
        ("word " * 90, "prompt_too_long", True),
    ],
)
def test_a_failure_says_whether_another_could_do_better(bench, prompt, code, permanent):
    one = job(prompt)
    assert bench.agent.run(one) == {"status": "failed", "code": code, "tokens": 0}
    failure = bench.outcome(one).failure
    assert (failure.code, failure.permanent) == (code, permanent)


def test_another_models_order_is_handed_back_unclaimed(bench):
    one = job(model="other")
    assert bench.agent.run(one)["status"] == "handed_back"
    assert bench.outcome(one).result == "handed_back"
    assert bench.streams.said(Claim) == []


def test_what_cannot_be_claimed_is_not_run(bench):
    bench.streams.down = True
    assert bench.agent.run(job()) == {"status": "failed", "code": "claim_not_sent", "tokens": 0}
    bench.streams.down = False
    assert bench.sender.outcomes == []


def test_a_worker_that_drains_hands_back_what_does_not_end_in_time(bench):
    one, late = job("[[hang]]"), job(order="o-2")
    thread = bench.run(one)
    wait_for(lambda: bench.held("running"), "it runs")
    bench.agent.drain(grace_s=0)
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert bench.outcome(one).result == "handed_back"
    assert bench.agent.run(late)["status"] == "handed_back"
    bench.agent.beat()
    assert bench.streams.said(Beat)[-1].worker.draining


def test_beats_rise_and_name_what_runs(bench):
    for _ in range(3):
        bench.agent.beat()
    numbers = [beat.number for beat in bench.streams.said(Beat)]
    assert numbers == sorted(set(numbers))
    announced = bench.streams.said(Beat)[-1].worker
    assert (announced.name, announced.slots, announced.context) == ("ada", 16, 64)


def test_no_beat_overtakes_another(bench):
    held, go, send = threading.Event(), threading.Event(), bench.streams.add_beat

    def slow(token):
        if not held.is_set():
            held.set()
            go.wait(timeout=60)
        send(token)

    bench.streams.add_beat = slow
    first, second = (threading.Thread(target=bench.agent.beat) for _ in range(2))
    first.start()
    assert held.wait(timeout=60)
    second.start()
    second.join(timeout=0.2)  # where nothing holds it back, it is through by now
    go.set()
    for one in (first, second):
        one.join(timeout=60)
    numbers = [beat.number for beat in bench.streams.said(Beat)]
    assert numbers == sorted(set(numbers))


def test_it_obeys_nobody_but_its_herder(bench):
    stranger = PrivateKey.generate()
    bench.tell(Reject(reason="Go."), key=stranger)
    bench.tell(Reject(reason="Go."), key=WORKER)
    bench.tell(Reject(reason="Go."), audience=control_stream("w-2"))
    bench.tell(Drain(), audience="inference")
    bench.agent.hear("no envelope")
    assert (bench.refused, bench.drained) == ([], [])
    bench.tell(Reject(reason="Go."))
    bench.tell(Reject(reason="Go."))
    bench.tell(Drain())
    assert (bench.refused, bench.drained) == (["Go."], [True])


def test_an_answer_too_long_for_a_message_fails_and_stops_no_other(bench, monkeypatch):
    monkeypatch.setattr("workers.agent.conversion.MAX_TEXT_CHARS", 5)
    one, other = job("[[say:much too long]]", 20), job("[[end:0]]", order="o-2")
    bench.agent.run(one)
    bench.agent.run(other)
    outcome = bench.outcome(one)
    assert (outcome.result, outcome.failure.code) == ("failed", "answer_too_long")
    assert outcome.failure.permanent
    assert bench.outcome(other).result == "completed"


def test_it_says_farewell(tmp_path, clean_environment):
    made = Bench(tmp_path)
    made.agent.close(timeout_s=0)
    assert len(made.streams.said(WorkerStopped)) == 1
