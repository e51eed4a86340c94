"""Prompts are counted before money is held, by a worker that may be busy, slow, false or away."""

from __future__ import annotations

from itertools import count

import pytest
from redis import ConnectionError as RedisAway

from herder.domain.fitting import ORDINARY_TOKENS, TokenWish
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


# What fits


def fits(herd, prompt, wish=None, **call):
    """The tokens that an order gets which wishes for what fits."""
    wish = TokenWish() if wish is None else wish
    asked = herd.house.call(prompt, wish.most, wish=wish, **call)
    return herd.counts.fit(asked).tokens


def test_an_answer_gets_what_its_prompt_leaves_of_the_context(herd):
    used = herd.counts.count(None, Prompt("word " * 20)).prompt_tokens
    assert fits(herd, "word " * 20) == CONTEXT - used
    assert fits(herd, "word " * 20, TokenWish(32_000)) == CONTEXT - used
    assert fits(herd, "word " * 20, TokenWish(5)) == 5
    assert fits(herd, "word " * 20, TokenWish(None, 6)) == 6
    with pytest.raises(PromptTooLong) as refused:
        fits(herd, "word " * 90)
    assert refused.value.data["tokens"] == 1


def test_a_number_that_fits_by_bytes_is_not_counted(house):
    herd = Herd(house, context=4096)
    assert fits(herd, "x" * 100, TokenWish(700)) == 700
    assert fits(herd, "x" * 100, TokenWish(None, 700)) == 700
    assert herd.redis.asked == []
    assert fits(herd, "x" * 100) == 4096 - herd.counts.count(None, Prompt("x" * 100)).prompt_tokens


def test_where_nobody_counts_an_answer_gets_what_fits_for_certain_or_an_ordinary_one(house):
    herd = Herd(house, context=4096)
    herd.redis.counter = None
    assert fits(herd, "x" * 100) == 4096 - most_tokens(Prompt("x" * 100))
    assert fits(herd, "x" * 4000) == ORDINARY_TOKENS
    assert len(herd.redis.asked) == 1


def test_where_nobody_counts_a_named_number_below_the_context_stays_as_it_is(house):
    herd = Herd(house, context=4096)
    herd.redis.counter = None
    for length in (1000, 4000):
        for named in (256, 1000, 3000, 4095):
            assert fits(herd, "x" * length, TokenWish(named)) == named
    assert fits(herd, "x" * 4000, TokenWish(4096)) == ORDINARY_TOKENS
    assert fits(herd, "x" * 4000, TokenWish(32_000)) == ORDINARY_TOKENS
    herd.worker.leave()
    assert fits(herd, "x" * 4000, TokenWish(1000)) == 1000
    herd.redis.away = True
    assert fits(herd, "x" * 4000, TokenWish(1000)) == 1000


def test_where_nobody_counts_half_of_a_short_context_is_kept_for_the_prompt(herd):
    herd.redis.away = True
    assert fits(herd, "x" * 4000) == CONTEXT // 2


def test_before_a_context_is_known_nothing_is_cut(make_house):
    house = make_house()
    house.fund(1000)
    ids = (f"q-{number}" for number in count())
    counts = TokenCounts(house.database, FakeRedis(), house.key, new_id=lambda: next(ids))
    call = house.call("word", 500, wish=TokenWish(500))
    assert counts.fit(call) == call


def test_in_a_cache_that_all_share_an_order_without_a_number_leaves_the_others_their_part(house):
    herd = Herd(house, context=4096)
    herd.counter = TokenCounter(
        Engine(StubModel(context=4096, slots=8, cells=8192)),
        herd.redis,
        JoinFile(herd.worker.key, {house.key.kid: house.key.public}),
        herd.worker.instance,
    )
    herd.redis.counter = herd.counter
    used = herd.counts.count(None, Prompt("word")).prompt_tokens
    assert fits(herd, "word") == 1024 - used
    assert fits(herd, "word", TokenWish(4000)) == 4000, "its caller asked for them"
    assert fits(herd, "word", TokenWish(4096 - used)) == 4096 - used
    assert fits(herd, "word", TokenWish(4097 - used)) == 1024 - used, "it is cut anyway"
    assert fits(herd, "word", TokenWish(32_000)) == 1024 - used
    assert fits(herd, "word", TokenWish(32_000, 3900)) == 1024 - used
    assert fits(herd, "word", TokenWish(None, 3900)) == 3900, "the operator did"
    assert fits(herd, "word " * 1000) == ORDINARY_TOKENS
    assert fits(herd, "word " * 1000, TokenWish(32_000)) == ORDINARY_TOKENS


def test_a_key_that_may_buy_again_is_counted_again(herd):
    house, wish = herd.house, TokenWish()
    call = house.call("word " * 20, wish.most, wish=wish, idempotency_key="k")
    order = house.intake.submit(herd.counts.fit(call))
    asked = len(herd.redis.asked)
    herd.counts.fit(call)
    assert len(herd.redis.asked) == asked, "its order is there"
    house.cancellation.cancel(order.id)
    again = herd.counts.fit(call)
    assert (len(herd.redis.asked), again.tokens) == (asked + 1, order.tokens)
    assert house.intake.submit(again).id != order.id


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
