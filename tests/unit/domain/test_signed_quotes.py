"""Signed quotes: what was signed is read again, and nothing else passes for one."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import jwt
import pytest

from herder.domain.pricing import Rates
from herder.domain.quote_terms import QUOTE_S, Terms, expiry_s, require_quoted
from herder.domain.receipts import receipt_of
from herder.domain.signed_tokens import (
    MAX_QUOTE_CHARS,
    read_quote,
    read_receipt,
    sign_quote,
    sign_receipt,
)
from herder.errors import InvalidQuote, InvalidReceipt, QuoteExpired, QuoteMismatch
from workers.wire import HERDER_QUEUE, Nudge, PrivateKey, WireError, seal, unseal

KEY = PrivateKey.generate()
KEYS = {KEY.kid: KEY.public}
NOW_S = 1_700_000_000
TERMS = Terms(
    account="ada",
    model="org/model:7b",
    words=2,
    tokens=10,
    rates=Rates(1, 1),
    base=Fraction(2613, 200),
    bid_factor=Fraction(3, 2),
    automatic=True,
    charge_unused=False,
    expires_s=NOW_S + QUOTE_S,
)


def test_what_was_signed_is_read_again():
    assert read_quote(sign_quote(TERMS, KEY, NOW_S), KEYS) == TERMS
    assert (TERMS.needed, TERMS.fee) == (13, 19)
    assert TERMS.expires == "2023-11-14T22:14:20+00:00"


def test_a_client_can_read_what_it_was_promised():
    claims = jwt.decode(sign_quote(TERMS, KEY, NOW_S), options={"verify_signature": False})
    assert (claims["sub"], claims["iat"], claims["exp"]) == ("ada", NOW_S, NOW_S + QUOTE_S)
    promised = claims["quote"]
    assert (promised["model"], promised["words"], promised["tokens"]) == ("org/model:7b", 2, 10)
    assert (promised["needed"], promised["fee"], promised["multiplier"]) == (13, 19, "3/2")


def test_nothing_else_passes():
    token = sign_quote(TERMS, KEY, NOW_S)
    head, claims, signature = token.split(".")
    claims_of = jwt.decode(token, options={"verify_signature": False})
    kind = {"kid": KEY.kid, "typ": "quote+jwt"}

    def signed(changes, headers=kind):
        return jwt.encode({**claims_of, **changes}, KEY.key, "EdDSA", headers)

    cheaper = {**claims_of["quote"], "fee": 1}
    for broken, why in (
        (f"{head}.{claims[:-8]}AAAAAAAA.{signature}", "changed"),
        (f"{head}.{claims}.{signature[:-4]}AAAA", "changed"),
        (sign_quote(TERMS, PrivateKey.generate(), NOW_S), "not among"),
        (jwt.encode(claims_of, None, "none", kind), "not a quote"),
        (jwt.encode(claims_of, "x" * 32, "HS256", kind), "not a quote"),
        (signed({}, {"kid": KEY.kid}), "not a quote"),
        (signed({}, {**kind, "typ": "receipt+jwt"}), "not a quote"),
        (signed({"aud": "herder"}), "not a signed quote"),
        (signed({"iss": "somebody"}), "not a signed quote"),
        (signed({"quote": None}), "not a quote"),
        (signed({"quote": cheaper | {"tokens": "10"}}), "not a quote"),
        (signed({"quote": cheaper | {"base": "1/0"}}), "not a quote"),
        (signed({"quote": cheaper | {"base": "much"}}), "not a quote"),
        (signed({"quote": cheaper | {"discount": 5}}), "not a quote"),
        ("", "not a signed quote"),
        ("a.b.c", "not a signed quote"),
        ("\udcff.é.🦙", "not a signed quote"),
        ("x" * (MAX_QUOTE_CHARS + 1), "too long"),
        (5, "text"),
        (None, "text"),
    ):
        with pytest.raises(InvalidQuote, match=why):
            read_quote(broken, KEYS)
    without = {name: value for name, value in claims_of.items() if name != "exp"}
    with pytest.raises(InvalidQuote, match="not a signed quote"):
        read_quote(jwt.encode(without, KEY.key, "EdDSA", kind), KEYS)


def test_receipts_quotes_and_messages_never_pass_for_one_another(house):
    quote = sign_quote(TERMS, KEY, NOW_S)
    receipt = sign_receipt(receipt_of(house.submit(fee=50)), KEY, NOW_S)
    message = seal(Nudge(model="stub"), KEY, sender="herder", audience=HERDER_QUEUE, now_s=NOW_S)
    for other in (receipt, message):
        with pytest.raises(InvalidQuote):
            read_quote(other, KEYS)
    for other in (quote, message):
        with pytest.raises(InvalidReceipt):
            read_receipt(other, KEYS)
    for other in (quote, receipt):
        with pytest.raises(WireError):
            unseal(other, KEYS, audience=HERDER_QUEUE, now_s=NOW_S)
    # Nor where only its type is that of another.
    claims = jwt.decode(quote, options={"verify_signature": False})
    disguised = jwt.encode(
        {**claims, "receipt": {}}, KEY.key, "EdDSA", {"kid": KEY.kid, "typ": "receipt+jwt"}
    )
    with pytest.raises(InvalidReceipt):
        read_receipt(disguised, KEYS)


def test_a_quote_holds_for_a_minute_at_least():
    for now_us in (NOW_S * 1_000_000, NOW_S * 1_000_000 + 1, NOW_S * 1_000_000 + 999_999):
        lasts_us = expiry_s(now_us) * 1_000_000 - now_us
        assert 60_000_000 <= lasts_us < 61_000_000


ORDER = {"account": "ada", "model": "org/model:7b", "words": 2, "tokens": 10}


@pytest.mark.parametrize(
    ("field", "other"), [("account", "bob"), ("model", "stub"), ("words", 1), ("tokens", 9)]
)
def test_another_order_may_not_name_it(field, other):
    at_us = TERMS.expires_s * 1_000_000 - 1
    require_quoted(TERMS, **ORDER, now_us=at_us)
    with pytest.raises(QuoteMismatch, match=field) as refused:
        require_quoted(TERMS, **{**ORDER, field: other}, now_us=at_us)
    assert refused.value.data == {"field": field, "quoted": ORDER[field], "ordered": other}
    json.dumps(refused.value.data)


def test_it_does_not_hold_from_the_moment_on_at_which_it_expires():
    with pytest.raises(QuoteExpired, match="expired at 2023-11-14T22:14:20") as refused:
        require_quoted(TERMS, **ORDER, now_us=TERMS.expires_s * 1_000_000)
    assert refused.value.data == {"expires": TERMS.expires}


def test_a_named_fee_is_quoted_as_it_was_named():
    named = replace(TERMS, base=Fraction(100), bid_factor=Fraction(1), automatic=False)
    assert read_quote(sign_quote(named, KEY, NOW_S), KEYS).fee == 100
