"""Fingerprints: a call that is repeated after an upgrade is the same, and another one is not."""

from __future__ import annotations

import json
from dataclasses import make_dataclass, replace
from fractions import Fraction

import pytest
from pydantic import create_model

from herder.domain import fingerprint
from herder.domain.fitting import TokenWish
from herder.domain.order import OrderRequest, Prompt
from herder.domain.parsing import parse_submission
from herder.domain.pricing import Rates
from herder.domain.quote_terms import Terms
from herder.errors import IdempotencyKeyReused
from workers.wire import Sampling

TERMS = Terms(
    account="default",
    model="stub",
    words=2,
    tokens=10,
    rates=Rates(1, 1),
    base=Fraction(131, 10),
    bid_factor=Fraction(5, 4),
    automatic=True,
    charge_unused=False,
    expires_s=1_795_176_060,
)
CALL = OrderRequest("default", Prompt("two words"), 10)

# As release 0.1.0 stored them (at its commit ae425eb); see also `tests/unit/test_upgrade.py`.
FORM_1 = {
    "prompt": "e339ab6a40cea630",
    "quote": "a156f2d960c93111",
    "sampling": "40c84969fbebbbce",
}


def form_1(call, **changed):
    """A call's fingerprint as 0.1.0 stored it."""
    return json.dumps(fingerprint._digests(fingerprint._form_1(call)) | changed)


def unmarked(call):
    """A call's fingerprint in form 2 as it was stored before what fits was found."""
    stored = json.loads(fingerprint.of_call(call))
    del stored["as_asked"]
    return json.dumps(stored)


def same(call, stored):
    fingerprint.require_same("k", call, stored)


def differs(call, stored):
    with pytest.raises(IdempotencyKeyReused) as caught:
        same(call, stored)
    return caught.value.data["field"]


def test_the_old_form_is_pinned():
    marks = json.loads(form_1(replace(CALL, quote=TERMS)))
    assert {name: marks[name] for name in FORM_1} == FORM_1


def test_what_is_stored_now_is_pinned():
    call = replace(CALL, quote=TERMS, sampling=Sampling(top_k=1), bid_factor=Fraction(5, 4))
    assert json.loads(fingerprint.of_call(call)) == NEW


NEW = {
    "form": 2,
    "as_asked": True,
    "given": {
        "prompt": "30b0c53cc188ba49",
        "tokens": "4a44dc15364204a8",
        "multiplier": "a138fd778e2972b3",
        "quote": "b6d1b0f35470cb22",
        "sampling.top_k": "6b86b273ff34fce1",
    },
}


@pytest.mark.parametrize("form", [form_1, fingerprint.of_call], ids=["form 1", "form 2"])
def test_what_is_said_as_it_is_by_default_is_as_good_as_unsaid(form):
    said = parse_submission(
        "two words",
        10,
        account="default",
        max_prompt_bytes=100,
        multiplier=1,
        stop=[],
        raw=False,
        sampling={"temperature": 0.8, "logit_bias": {}, "seed": None},
    )
    same(said, form(CALL))
    same(CALL, form(said))
    assert differs(CALL, form(replace(said, sampling=Sampling(temperature=0.0)))) == "sampling"
    assert differs(replace(said, sampling=Sampling(temperature=0.0)), form(CALL)) == "sampling"


@pytest.mark.parametrize("form", [form_1, fingerprint.of_call], ids=["form 1", "form 2"])
def test_classes_of_another_name_and_new_fields_with_defaults_change_nothing(form, monkeypatch):
    call = replace(CALL, quote=TERMS, sampling=Sampling(top_k=1))
    stored = form(call)
    renamed = make_dataclass(
        "QuoteTerms",
        [*((name, object) for name in Terms.__slots__), ("more", object, None)],
        frozen=True,
    )
    terms = renamed(*(getattr(TERMS, name) for name in Terms.__slots__))
    wider = create_model("SamplingOptions", __base__=Sampling, dry_penalty=(float, 1.0))
    monkeypatch.setattr(fingerprint, "DEFAULT_SAMPLING", wider())
    later = replace(CALL, quote=terms, sampling=wider(top_k=1))
    same(later, stored)
    same(replace(later, sampling=wider(top_k=1, dry_penalty=1.0)), stored)
    assert differs(replace(later, sampling=wider(top_k=1, dry_penalty=2.0)), stored) == "sampling"


def test_a_default_that_a_later_version_has_otherwise_changes_nothing(monkeypatch):
    said, unsaid = replace(CALL, sampling=Sampling(top_k=40)), CALL
    stored = {form: [form(one) for one in (said, unsaid)] for form in (form_1, fingerprint.of_call)}
    other = create_model("Sampling", __base__=Sampling, top_k=(int, 50))
    monkeypatch.setattr(fingerprint, "DEFAULT_SAMPLING", other())
    for form_said, form_unsaid in stored.values():
        same(replace(CALL, sampling=other(top_k=40)), form_said)
        same(replace(CALL, sampling=other()), form_unsaid)


def test_what_a_newer_version_stored_is_another_call_where_it_cannot_be_compared():
    assert "version" in differs(CALL, json.dumps({"form": 3, "asked": "?"}))


def test_the_base_fee_is_digested_as_it_was_given():
    base = replace(CALL, fee="base")
    stored = fingerprint.of_call(base)
    assert json.loads(stored)["given"]["fee"] == "751bbc009e4ccaff"
    same(base, stored)
    assert differs(CALL, stored) == differs(replace(CALL, fee=12), stored) == "fee"
    for form in (form_1, fingerprint.of_call):
        assert differs(base, form(CALL)) == differs(base, form(replace(CALL, fee=12))) == "fee"


def test_each_argument_is_told():
    stored = fingerprint.of_call(replace(CALL, quote=TERMS))
    for name in ("words", "tokens", "automatic", "expires_s", "account"):
        value = getattr(TERMS, name)
        changed = replace(TERMS, **{name: value + 1 if isinstance(value, int) else "ada"})
        assert differs(replace(CALL, quote=changed), stored) == "quote"
    raw = replace(CALL, quote=TERMS, prompt=Prompt("two words", raw=True))
    assert differs(raw, stored) == "raw"
    for name, asked in (("special", "special"), ("continues", "continue_final_message")):
        prompt = Prompt("two words", **{name: True})
        assert differs(replace(CALL, quote=TERMS, prompt=prompt), stored) == asked
        assert differs(replace(CALL, prompt=prompt), form_1(CALL)) == asked
        assert fingerprint.of_call(replace(CALL, prompt=Prompt("two words", **{name: False}))) == (
            fingerprint.of_call(CALL)
        )
    told = Prompt("two words", template_args={"enable_thinking": False})
    assert differs(replace(CALL, prompt=told), fingerprint.of_call(CALL)) == "chat_template_kwargs"
    assert differs(replace(CALL, prompt=told), form_1(CALL)) == "chat_template_kwargs"
    other = replace(CALL, prompt=replace(told, template_args={"enable_thinking": True}))
    assert differs(other, fingerprint.of_call(replace(CALL, prompt=told))) == "chat_template_kwargs"
    assert differs(CALL, stored) == "quote"


# The number of tokens that fits is none that was asked for.


@pytest.mark.parametrize("form", [form_1, fingerprint.of_call], ids=["form 1", "form 2"])
def test_what_fits_is_not_what_was_asked(form):
    for wish in (TokenWish(), TokenWish(5000), TokenWish(None, 700)):
        first = form(replace(CALL, tokens=100, wish=wish))
        same(replace(CALL, tokens=2000, wish=wish), first)
        assert differs(replace(CALL, tokens=100, wish=TokenWish(100)), first) == "tokens"
        assert differs(replace(CALL, tokens=100), first) == "tokens"
    named = form(replace(CALL, tokens=100, wish=TokenWish(5000)))
    assert differs(replace(CALL, tokens=100, wish=TokenWish()), named) == "tokens"
    same(CALL, form(replace(CALL, wish=TokenWish(10))))


def test_another_default_is_the_same_call():
    same(
        replace(CALL, wish=TokenWish(None, 7)), fingerprint.of_call(replace(CALL, wish=TokenWish()))
    )


@pytest.mark.parametrize("form", [form_1, unmarked], ids=["form 1", "form 2"])
def test_a_call_that_was_given_a_default_before_what_fits_was_found_is_the_same(form):
    same(replace(CALL, tokens=2000, wish=TokenWish()), form(replace(CALL, tokens=256)))
    same(replace(CALL, tokens=700, wish=TokenWish(None, 700)), form(replace(CALL, tokens=700)))
    other = form(replace(CALL, tokens=700))
    assert differs(replace(CALL, tokens=2000, wish=TokenWish()), other) == "tokens"


def test_a_number_that_was_named_is_not_the_same_as_none_though_it_was_a_default_once():
    for named in (replace(CALL, tokens=256), replace(CALL, tokens=256, wish=TokenWish(256))):
        stored = fingerprint.of_call(named)
        assert differs(replace(CALL, tokens=2000, wish=TokenWish()), stored) == "tokens"
        same(replace(named, tokens=256), stored)
    stored = fingerprint.of_call(replace(CALL, tokens=700, wish=TokenWish(700)))
    assert differs(replace(CALL, wish=TokenWish(None, 700)), stored) == "tokens"
    none = fingerprint.of_call(replace(CALL, wish=TokenWish()))
    assert differs(replace(CALL, tokens=256, wish=TokenWish(256)), none) == "tokens"
