"""Short digests of a call's arguments, which tell a repeated call from a different one.

What is digested is what was given, and nothing that was not: neither the names of our classes nor
the defaults of this version, so that a call that is repeated after an upgrade is still the same.
An argument that is given as what it is by default is as good as one that is not given.

A fingerprint is stored for ever beside its idempotency key. Its form is marked, and what was stored
in an older form is compared in that form: `tests/cases/releases` holds some of each release's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from herder.domain.order import DEFAULT_SAMPLING, OrderRequest
from herder.domain.quote_terms import Terms
from herder.errors import IdempotencyKeyReused
from workers.wire import Sampling

_FORM = 2
_SAMPLING = "sampling."
_FORMER_DEFAULT_TOKENS = 256
_AS_ASKED = "as_asked"
"""Marks that the tokens are those that were asked for, and no default that stood for none."""

_FORM_1_SAMPLING: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": None,
    "logit_bias": {},
    "grammar": None,
    "json_schema": None,
}
"""The sampling parameters of release 0.1.0, with its defaults: never changed."""


def of_call(call: OrderRequest) -> str:
    """Return the fingerprint of a call, as it is stored."""
    return json.dumps({"form": _FORM, _AS_ASKED: True, "given": _digests(_given(call))})


def require_same(key: str, call: OrderRequest, stored: str) -> None:
    """Accept a call as the one that was stored under its idempotency key.

    Args:
        key: the idempotency key.
        call: the call that comes under it now.
        stored: the fingerprint of the call that came under it first, in any form.

    Raises:
        IdempotencyKeyReused: it asks for something else; the error names the argument.
    """
    before: dict[str, Any] = json.loads(stored)
    if "form" not in before:
        _require_equal(key, before, _as_then(call, _digests(_form_1(call)), before))
    elif before["form"] != _FORM:
        raise IdempotencyKeyReused(key, "the version of the herd that it was sent to")
    else:
        given: Mapping[str, str] = _digests(_given(call))
        if not before.get(_AS_ASKED):
            given = _as_then(call, given, before["given"])
        _require_equal(key, _filled(before["given"]), _filled(given))


def of_tags(tags: Mapping[str, str]) -> str:
    """Return the fingerprint of a message: of its tags, as they were sent."""
    return hashlib.sha256(json.dumps(tags, sort_keys=True).encode()).hexdigest()[:32]


def _given(call: OrderRequest) -> dict[str, Any]:
    """Return the arguments that were given, in a form of their own; the others are left out."""
    given: dict[str, Any] = {
        "prompt": call.prompt.text,
        "raw": call.prompt.raw or None,
        "special": call.prompt.special or None,
        "continue_final_message": call.prompt.continues or None,
        "chat_template_kwargs": dict(call.prompt.template_args) or None,
        "messages": [
            turn.model_dump(mode="json", exclude_unset=True) for turn in call.prompt.messages or ()
        ]
        or None,
        "tokens": _asked_tokens(call),
        "fee": call.fee,
        "multiplier": None if call.bid_factor == 1 else str(call.bid_factor),
        "max_fee": call.max_fee,
        "model": call.model,
        "stop": list(call.stop) or None,
        "reference": call.reference,
        "start_by_us": call.start_by_us,
        "run_limit_s": call.run_limit_s,
        "quote": None if call.quote is None else _quoted(call.quote),
        "metadata": dict(call.notes.metadata) or None,
    }
    sampling = _named(call.sampling.model_dump(mode="json", exclude_unset=True))
    return {name: value for name, value in given.items() if value is not None} | sampling


def _asked_tokens(call: OrderRequest) -> int | None:
    """Return the tokens that were asked for: what fits of them differs from moment to moment."""
    return call.tokens if call.wish is None else call.wish.named


def _as_then(
    call: OrderRequest, now: Mapping[str, str], before: Mapping[str, str]
) -> Mapping[str, str]:
    """Return a call's digests; one that names no number may stand there with a default's.

    Calls of OpenAI's routes were given a number before what fits was found for them.
    """
    if call.wish is None or call.wish.named is not None:
        return now
    defaults = (_FORMER_DEFAULT_TOKENS, call.wish.default)
    stood = [_digests({"tokens": one})["tokens"] for one in defaults if one is not None]
    return {**now, "tokens": before["tokens"]} if before.get("tokens") in stood else now


def _quoted(terms: Terms) -> list[Any]:
    return [
        terms.account,
        terms.model,
        terms.words,
        terms.tokens,
        terms.rates.prompt_fee,
        terms.rates.fee_per_token,
        str(terms.base),
        str(terms.bid_factor),
        terms.automatic,
        terms.charge_unused,
        terms.expires_s,
    ]


def _named(sampling: Mapping[str, Any]) -> dict[str, Any]:
    return {_SAMPLING + name: value for name, value in sampling.items()}


def _filled(digests: Mapping[str, str]) -> dict[str, str]:
    """Digests, with those of this version's defaults where a sampling parameter was not given."""
    return _digests(_named(DEFAULT_SAMPLING.model_dump(mode="json"))) | dict(digests)


def _digests(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in values.items()
    }


def _require_equal(key: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name in (*before, *(name for name in now if name not in before)):
        if before.get(name) != now.get(name):
            raise IdempotencyKeyReused(key, name.partition(".")[0])


# The form of release 0.1.0. It digested every argument, given or not, all sampling parameters
# together, and a quote by what Python writes for a dataclass: written out here, so that it stays
# as it was whatever becomes of those classes.


def _form_1(call: OrderRequest) -> dict[str, Any]:
    given: dict[str, Any] = {
        "prompt": [call.prompt.text, call.prompt.raw],
        "messages": [
            turn.model_dump(mode="json", exclude_unset=True) for turn in call.prompt.messages or ()
        ],
        "tokens": _asked_tokens(call),
        "fee": call.fee,
        "multiplier": str(call.bid_factor),
        "max_fee": call.max_fee,
        "model": call.model,
        "stop": call.stop,
        "sampling": _form_1_sampling(call.sampling),
        "reference": call.reference,
        "start_by_us": call.start_by_us,
        "run_limit_s": call.run_limit_s,
    }
    if call.quote is not None:
        given["quote"] = _form_1_quote(call.quote)
    # It knew none of these: a call with one of them is another.
    if call.prompt.special:
        given["special"] = True
    if call.prompt.continues:
        given["continue_final_message"] = True
    if call.prompt.template_args:
        given["chat_template_kwargs"] = dict(call.prompt.template_args)
    return given


def _form_1_sampling(sampling: Sampling) -> dict[str, Any]:
    """Return the parameters of 0.1.0, and later ones that differ from their defaults."""
    defaults = DEFAULT_SAMPLING.model_dump(mode="json")
    given = sampling.model_dump(mode="json", exclude_unset=True)
    return _FORM_1_SAMPLING | {
        name: value
        for name, value in given.items()
        if name in _FORM_1_SAMPLING or value != defaults[name]
    }


def _form_1_quote(terms: Terms) -> str:
    return (
        f"Terms(account={terms.account!r}, model={terms.model!r}, words={terms.words}, "
        f"tokens={terms.tokens}, rates=Rates(prompt_fee={terms.rates.prompt_fee}, "
        f"fee_per_token={terms.rates.fee_per_token}), base={_fraction(terms.base)}, "
        f"bid_factor={_fraction(terms.bid_factor)}, automatic={terms.automatic}, "
        f"charge_unused={terms.charge_unused}, expires_s={terms.expires_s})"
    )


def _fraction(value: Fraction) -> str:
    return f"Fraction({value.numerator}, {value.denominator})"
