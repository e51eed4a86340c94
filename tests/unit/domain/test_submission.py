"""Bad input: refused at the border by its own error, with nothing held and no trace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder import errors
from herder.domain.parsing import (
    MAX_KEY_CHARS,
    MAX_REFERENCE_CHARS,
    parse_account,
    parse_amount,
    parse_model,
    parse_submission,
)
from herder.domain.pricing import MAX_WINSTON
from tests.support.house import MODEL
from workers.wire import MAX_STOP_CHARS, MAX_STOPS, MAX_TOKENS, InferenceJob

HUGE = 10**5000
"""Python itself refuses to print it."""
NAMED = {"ids": lambda value: "huge" if value in (HUGE, -HUGE) else repr(value)[:20]}
SURROGATE = "\ud800"
"""Half a character, as badly cut JSON escapes give it: no encoding can store it."""


def parse(prompt="What is it?", tokens=10, **call):
    return parse_submission(prompt, tokens, account="default", max_prompt_bytes=1000, **call)


def refused(error, **call):
    with pytest.raises(error) as caught:
        parse(**call)
    assert isinstance(caught.value, errors.InvalidRequest)
    assert caught.value.code == error.code
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400
    return caught.value.data


@pytest.mark.parametrize(
    "tokens",
    [0, -1, -(10**9), 1.5, 2.0, float("nan"), "10", None, True, MAX_TOKENS + 1, HUGE, -HUGE, [5]],
    **NAMED,
)
def test_a_token_count_that_is_no_whole_number_from_one_is_refused(tokens):
    data = refused(errors.InvalidTokens, tokens=tokens)
    assert data["most"] == MAX_TOKENS
    assert len(data["tokens"]) <= 40


@pytest.mark.parametrize("name", ["fee", "max_fee"])
@pytest.mark.parametrize(
    "fee", [0, -5, 1.5, "100", float("inf"), True, MAX_WINSTON + 1, HUGE], **NAMED
)
def test_a_fee_that_is_no_whole_number_of_winston_is_refused(name, fee):
    data = refused(errors.InvalidFee, **{name: fee})
    assert data["name"] == name
    assert data["most"] == MAX_WINSTON


@pytest.mark.parametrize(
    "multiplier",
    [float("nan"), float("inf"), float("-inf"), -1, 0, "1e999999", "many", True, HUGE],
    **NAMED,
)
def test_a_multiplier_that_is_no_finite_number_above_zero_is_refused(multiplier):
    refused(errors.InvalidMultiplier, multiplier=multiplier)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": None}, "either a prompt or messages"),
        ({"prompt": 5}, "int"),
        ({"prompt": b"bytes"}, "bytes"),
        ({"prompt": f"cut {SURROGATE}"}, "surrogate"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "not both"),
        ({"prompt": None, "messages": []}, "list"),
        ({"prompt": None, "messages": "Hi"}, "list"),
        ({"prompt": None, "messages": {"role": "user"}}, "list"),
        ({"prompt": None, "messages": [{"role": "user", "content": "x"}] * 257}, "list"),
        ({"prompt": None, "messages": [{"role": "robot", "content": "Hi"}]}, "Message 1"),
        ({"prompt": None, "messages": [{"role": "user"}]}, "Message 1"),
        ({"prompt": None, "messages": [{"role": "user", "content": 3}]}, "Message 1"),
        ({"prompt": None, "messages": [{"role": "user", "content": SURROGATE}]}, "Message 1"),
        (
            {"prompt": None, "messages": [{"role": "user", "content": "Hi", "name": "x"}]},
            "Message 1",
        ),
        ({"prompt": None, "messages": [{"role": "user", "content": ""}]}, "empty"),
        ({"prompt": None, "messages": [{"role": "user", "content": "Hi"}], "raw": True}, "raw"),
        ({"raw": "yes"}, "raw"),
        ({"special": 1}, "special must be true or false"),
        ({"special": True}, "special is only for a raw prompt"),
        ({"prompt": None, "messages": [{"role": "user", "content": "Hi"}], "special": True}, "raw"),
        ({"continue_final_message": None}, "continue_final_message must be true or false"),
        ({"continue_final_message": True}, "of which the assistant's is the last"),
        (
            {
                "prompt": None,
                "messages": [{"role": "user", "content": "Hi"}],
                "continue_final_message": True,
            },
            "of which the assistant's is the last",
        ),
    ],
)
def test_no_prompt_or_one_that_cannot_be_run_is_refused(call, said):
    given_call = {"prompt": "What is it?", **call}
    with pytest.raises(errors.InvalidPrompt, match=said):
        parse(**given_call)


def test_a_fee_is_winston_or_base():
    assert [parse(fee=fee).fee for fee in (None, 26, "base")] == [None, 26, "base"]
    for fee in ("Base", "26", 0, True, 2.0, ["base"]):
        refused(errors.InvalidFee, fee=fee)
    with pytest.raises(
        errors.InvalidFee, match=r'whole number of winston from 1 to [0-9]+, or "base", not all'
    ):
        parse(fee="all")
    with pytest.raises(errors.InvalidFee, match=r"winston from 1 to [0-9]+, not base"):
        parse(max_fee="base")


def test_a_prompt_is_bounded_in_bytes_and_not_in_characters():
    assert parse("x" * 1000).prompt.text == "x" * 1000
    assert refused(errors.InvalidPrompt, prompt="x" * 1001) == {"bytes": 1001, "most": 1000}
    assert refused(errors.InvalidPrompt, prompt="水" * 334) == {"bytes": 1002, "most": 1000}
    turns = [{"role": "user", "content": "x" * 500}] * 2
    assert refused(errors.InvalidPrompt, prompt=None, messages=turns)["bytes"] == 1001


def test_white_space_is_a_prompt():
    assert parse(" ").prompt.text == " "


@pytest.mark.parametrize(
    "stop",
    [
        ["."] * (MAX_STOPS + 1),
        ["x" * (MAX_STOP_CHARS + 1)],
        "x" * (MAX_STOP_CHARS + 1),
        *([""], "", [5], 5, b"bytes", {"a": 1}, {"a"}, [SURROGATE], SURROGATE),
    ],
    ids=repr,
)
def test_a_stop_list_that_is_too_long_or_no_list_of_texts_is_refused(stop):
    data = refused(errors.InvalidStop, stop=stop)
    assert data == {"most": MAX_STOPS, "most_chars": MAX_STOP_CHARS}


def test_a_stop_may_be_one_string_or_several():
    assert parse(stop="END").stop == ("END",)
    assert parse(stop=["a"] * MAX_STOPS).stop == ("a",) * MAX_STOPS
    assert parse(stop=[]).stop == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2),
        ("seed", 2**32),
        ("seed", -1),
        ("logit_bias", {"a": 1.0}),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {2**31: 1.0}),
        ("grammar", "x" * 20_000),
        ("grammar", SURROGATE),
        ("presence_penalty", 3),
        ("colour", "red"),
    ],
)
def test_a_sampling_parameter_out_of_its_range_is_refused(name, value):
    data = refused(errors.InvalidSampling, sampling={name: value})
    assert data["name"].startswith(name)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", 11, "temperature must be at most 10, not 11."),
        ("top_p", 0, "top_p must be more than 0, not 0."),
        ("seed", 1.5, "seed must be a whole number, not 1.5."),
        ("colour", "red", "colour is not a sampling parameter."),
    ],
)
def test_what_sampling_must_be_is_said_in_our_words(name, value, sentence):
    with pytest.raises(errors.InvalidSampling) as caught:
        parse(sampling={name: value})
    assert str(caught.value) == sentence


@pytest.mark.parametrize("reference", [5, "x" * (MAX_REFERENCE_CHARS + 1), SURROGATE])
def test_a_reference_that_cannot_be_given_back_is_refused(reference):
    refused(errors.InvalidReference, reference=reference)


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_CHARS + 1), 5, "a\nb", "\0", SURROGATE])
def test_an_idempotency_key_that_is_none_is_refused(key):
    refused(errors.InvalidIdempotencyKey, idempotency_key=key)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "60", True, 31 * 86_400, HUGE], **NAMED)
def test_a_run_limit_out_of_range_is_refused_and_named(limit):
    with pytest.raises(errors.InvalidRequest, match="run_limit_s"):
        parse(run_limit_s=limit)


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "x" * 64, "a/b", "ä", 5, None, "a\n"])
def test_names_of_accounts(name):
    with pytest.raises(errors.InvalidName):
        parse_account(name)


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 128, 5, "a\n"])
def test_names_of_models(name):
    with pytest.raises(errors.InvalidName):
        parse_model(name)


@pytest.mark.parametrize("amount", [0, -1, 1.0, "5", True, None, MAX_WINSTON + 1, HUGE], **NAMED)
def test_amounts_of_money(amount):
    with pytest.raises(errors.InvalidAmount):
        parse_amount(amount)


values = st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=3)


@given(
    *(st.text() | values, values, values, values, values, values),
    st.dictionaries(st.sampled_from(["temperature", "top_k", "seed", "grammar"]), values),
)
def test_whatever_is_given_is_parsed_or_refused_by_an_error_of_ours(
    prompt, tokens, fee, multiplier, stop, reference, sampling
):
    try:
        call = parse(
            prompt,
            tokens,
            fee=fee,
            multiplier=multiplier,
            stop=stop,
            reference=reference,
            sampling=sampling,
        )
    except errors.InvalidRequest:
        return
    # What passes here, the message to a worker takes as well.
    InferenceJob(
        order="o",
        attempt=1,
        nonce="n",
        rank=0,
        model=MODEL,
        prompt=call.prompt.text,
        tokens=call.tokens,
        stop=call.stop,
        sampling=call.sampling,
        run_limit_s=60,
    )


# At order intake: nothing is held


def no_trace(house, call, error):
    """The call is refused, leaves nothing, and its idempotency key still works."""
    before, available = house.traces(), house.available()
    with pytest.raises(error) as caught:
        house.intake.submit(call)
    assert house.traces() == before
    assert (house.available(), house.held()) == (available, 0)
    house.fund(10**6)
    order = house.submit(idempotency_key=call.idempotency_key)
    assert order.state == "queued"
    return caught.value


def test_a_fee_below_what_is_needed_says_how_much_is(house):
    call = house.call("two words", 10, fee=12, idempotency_key="k")
    error = no_trace(house, call, errors.FeeTooLow)
    assert error.data == {"fee": 12, "needed": 13}
    assert "13" in str(error)


def test_an_empty_balance_has_the_command_that_fills_it_beside_its_sentence(make_house):
    house = make_house()
    error = no_trace(house, house.call(fee=13, idempotency_key="k"), errors.InsufficientBalance)
    assert error.data == {"account": "default", "available": 0, "required": 13}
    assert "`herd account deposit default 1000`" in error.hint
    assert "herd account" not in str(error)


def test_the_command_deposits_enough(make_house):
    house = make_house()
    house.fund(500)
    call = house.call(fee=12_345, idempotency_key="k")
    error = no_trace(house, call, errors.InsufficientBalance)
    assert "`herd account deposit default 20000`" in error.hint


def test_an_unknown_account_is_refused(house):
    with pytest.raises(errors.AccountNotFound) as caught:
        house.submit(account="nobody")
    assert caught.value.data == {"account": "nobody"}
    assert house.traces() == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("account", ["outside", "revenue:0", "client:default"])
def test_the_ledgers_own_accounts_are_no_clients(house, account):
    with pytest.raises(errors.AccountNotFound):
        house.submit(account=account)
    assert house.traces() == (0, 0, 0, 0, 0)


def test_an_unknown_model_is_refused_with_the_known_ones(house):
    call = house.call(model="gpt-9", idempotency_key="k")
    error = no_trace(house, call, errors.ModelNotFound)
    assert error.data["model"] == "gpt-9"
    assert MODEL in str(error)


def test_more_tokens_than_the_context_holds_are_refused(house):
    house.worker(context=100)
    call = house.call(tokens=100, idempotency_key="k")
    error = no_trace(house, call, errors.TooManyTokens)
    assert error.data == {"tokens": 100, "context": 100, "model": MODEL}
    assert house.submit(tokens=99).tokens == 99


def test_a_fee_above_the_callers_own_bound_is_refused_with_both_numbers(house):
    call = house.call(max_fee=12, idempotency_key="k")
    error = no_trace(house, call, errors.FeeAboveMax)
    assert error.data == {"fee": 13, "max_fee": 12}


def test_a_fee_beyond_all_money_is_refused(house):
    call = house.call(fee=MAX_WINSTON, bid_factor=parse_multiplier_of(2), idempotency_key="k")
    no_trace(house, call, errors.InvalidFee)


def parse_multiplier_of(value):
    return parse(multiplier=value).bid_factor
