"""Prompts are counted before money is held, by a worker that may be busy, slow, false or away."""

from __future__ import annotations

from itertools import count

import pytest
from redis import ConnectionError as RedisAway

from herder.domain.order import Prompt
from herder.errors import HerdUnavailable, InvalidPrompt, ModelNotFound, PromptTooLong
from herder.local import token_counts
from herder.local.token_counts import TokenCounts, most_tokens
from workers.agent.counting import MAX_WAITING, TokenCounter
from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.errors import NotAccepting
from workers.settings import JoinFile
from workers.wire import (
    ChatMessage,
    CountedTokens,
    CountTokens,
    PrivateKey,
    control_stream,
    counted_key,
    prompt_key,
    seal,
    unseal,
)

CONTEXT = 64


class FakeRedis:
    """Carries questions to a worker and answers back, or loses them."""

    def __init__(self):
        self.prompts, self.answers, self.asked = {}, {}, []
        self.counter = None
        self.away = False

    def ask_count(self, instance, request, prompt, control):
        if self.away:
            raise RedisAway("no Redis")
        self.asked.append((instance, control))
        self.prompts[request] = prompt
        if self.counter is not None:
            self.counter.ask(request)
            self.counter.step(0)

    def take_prompt(self, request):
        return self.prompts.pop(request, None)

    def answer_count(self, request, token):
        self.answers[request] = token

    def await_count(self, request, _timeout_s):
        return self.answers.pop(request, None)


class Herd:
    """A herd with one worker, whose control stream is this test's."""

    def __init__(self, house, context=CONTEXT):
        self.house, self.redis = house, FakeRedis()
        self.worker = house.worker(slots=1, context=context)
        self.engine = Engine(StubModel(context=context, slots=1))
        join = JoinFile(self.worker.key, {house.key.kid: house.key.public})
        self.counter = TokenCounter(self.engine, self.redis, join, self.worker.instance)
        self.redis.counter = self.counter
        ids = (f"q-{number}" for number in count())
        self.counts = TokenCounts(house.database, self.redis, house.key, new_id=lambda: next(ids))

    def asks(self, prompt, tokens=10, **call):
        """An order is to be taken."""
        self.counts.require_fit(self.house.call(prompt, tokens, **call))


@pytest.fixture
def herd(house):
    return Herd(house)


def test_what_cannot_fit_is_refused_with_both_counts(herd):
    with pytest.raises(PromptTooLong) as refused:
        herd.asks("word " * 60, 10)
    assert refused.value.data == {"prompt_tokens": 63, "tokens": 10, "context": CONTEXT}
    assert "Nothing was ordered" in str(refused.value)
    herd.asks("word " * 51, 10)
    with pytest.raises(PromptTooLong):
        herd.asks("word " * 52, 10)
    assert herd.redis.prompts == herd.redis.answers == {}


def test_what_fits_by_its_bytes_is_not_asked_about(house):
    herd = Herd(house, context=4096)
    herd.asks("x" * (4096 - token_counts.MAX_TEMPLATE_TOKENS - 10), 10)
    assert herd.redis.asked == []
    herd.asks("x" * (4097 - token_counts.MAX_TEMPLATE_TOKENS - 10), 10)
    ((instance, control),) = herd.redis.asked
    assert instance == herd.worker.instance
    body = unseal(control, {house.key.kid: house.key.public}, audience=control_stream(instance))
    assert body.body == CountTokens(request="q-0"), "the prompt is not in the control stream"


def test_turns_are_counted_as_the_template_renders_them(herd):
    turns = tuple(ChatMessage(role="user", content="one two") for _ in range(3))
    found = herd.counts.count(None, Prompt(None, turns))
    assert (found.prompt_tokens, found.context) == (3 * 4, CONTEXT)
    assert herd.counts.count("stub", Prompt("one two", raw=True)).prompt_tokens == 2
    assert most_tokens(Prompt(None, turns)) > found.prompt_tokens
    with pytest.raises(ModelNotFound):
        herd.counts.count("other", Prompt("one"))


def test_what_the_model_refuses_is_refused_at_once(herd):
    with pytest.raises(InvalidPrompt, match="no tokens"):
        herd.counts.count(None, Prompt("", raw=True))


def test_a_worker_that_says_nothing_costs_one_order_a_moment(herd):
    herd.redis.counter = None
    for _ in range(5):
        herd.asks("word " * 60)
    assert len(herd.redis.asked) == 1
    with pytest.raises(HerdUnavailable, match="No worker with this model answers"):
        herd.counts.count(None, Prompt("word"))
    assert len(herd.redis.asked) == 1 + token_counts.TRIES


def test_a_redis_that_is_away_keeps_no_order(herd):
    herd.redis.away = True
    herd.asks("word " * 60)
    with pytest.raises(HerdUnavailable, match="Redis is out of reach"):
        herd.counts.count(None, Prompt("word"))


def test_a_herd_without_workers_takes_what_it_cannot_count(house):
    herd = Herd(house)
    herd.asks("word " * 40)
    herd.worker.leave()
    herd.asks("word " * 60)
    with pytest.raises(HerdUnavailable, match="No worker"):
        herd.counts.count(None, Prompt("word"))


def test_a_call_that_is_repeated_finds_its_order(herd):
    call = herd.house.call("word " * 60, 10, idempotency_key="key")
    herd.house.intake.submit(call)
    herd.counts.require_fit(call)
    assert herd.redis.asked == []


@pytest.mark.parametrize("false", ["key", "instance", "request", "audience", "kind"])
def test_an_answer_that_is_not_the_asked_workers_counts_for_nothing(house, false):
    herd = Herd(house)
    other = house.worker(context=CONTEXT)
    herd.worker.beat()  # heard last

    def answer(request, _token):
        said = CountedTokens(
            request="q-9" if false == "request" else request, prompt_tokens=1000, context=CONTEXT
        )
        body = CountTokens(request=request) if false == "kind" else said
        token = seal(
            body,
            other.key if false == "key" else herd.worker.key,
            sender=other.instance if false == "instance" else herd.worker.instance,
            audience=prompt_key(request) if false == "audience" else counted_key(request),
        )
        herd.redis.answers[request] = token

    herd.redis.answer_count = answer
    house.now_us += 1_000_000
    herd.worker.beat()
    herd.asks("word " * 60)
    assert herd.redis.asked[0][0] == herd.worker.instance


# The worker's side


def test_a_worker_counts_only_what_a_herder_signed(herd):
    stranger = PrivateKey.generate()
    asked = CountTokens(request="q-1")
    for key, audience, body in (
        (stranger, prompt_key("q-1"), asked),
        (herd.house.key, prompt_key("q-2"), asked),
        (herd.house.key, prompt_key("q-1"), asked),
    ):
        herd.redis.prompts["q-1"] = seal(body, key, sender="herder", audience=audience)
        herd.counter.ask("q-1")
        herd.counter.step(0)
    assert herd.redis.answers == {}


def test_what_piles_up_at_a_worker_is_dropped(herd):
    for number in range(MAX_WAITING + 10):
        herd.counter.ask(f"q-{number}")
    taken = []
    herd.redis.take_prompt = taken.append
    for _ in range(MAX_WAITING + 10):
        herd.counter.step(0)
    assert len(taken) == MAX_WAITING


def test_a_worker_that_has_stopped_counts_nothing(herd):
    herd.engine.stop()
    with pytest.raises(NotAccepting):
        herd.engine.count_tokens(None)
    with pytest.raises(HerdUnavailable):
        herd.counts.count(None, Prompt("word"))
    assert herd.redis.answers == {}
