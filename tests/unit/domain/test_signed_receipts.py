"""Signed receipts: what was signed is read again, and nothing else passes for one."""

from __future__ import annotations

import json

import jwt
import pytest

from herder.domain.receipts import receipt_of
from herder.domain.signed_tokens import from_jwks, read_receipt, sign_receipt, to_jwks
from herder.errors import InvalidReceipt
from workers.wire import PrivateKey

KEY = PrivateKey.generate()
KEYS = {KEY.kid: KEY.public}


@pytest.fixture
def receipt(house):
    return receipt_of(house.submit(fee=50, reference="mine 🦙"))


def test_what_was_signed_is_read_again(receipt):
    token = sign_receipt(receipt, KEY, 1_700_000_000)
    claims = read_receipt(token, from_jwks(json.dumps(to_jwks([KEY.public]))))
    assert claims["receipt"] == receipt.to_dict()
    assert (claims["iat"], claims["sub"]) == (1_700_000_000, receipt.order)


def test_nothing_else_passes(receipt):
    token = sign_receipt(receipt, KEY, 1)
    other = PrivateKey.generate()
    head, claims, signature = token.split(".")
    claims_of = jwt.decode(token, options={"verify_signature": False})
    unsigned = jwt.encode(claims_of, None, "none", {"kid": KEY.kid, "typ": "receipt+jwt"})
    other_type = jwt.encode(claims_of, KEY.key, "EdDSA", {"kid": KEY.kid})
    no_receipt = jwt.encode(
        {"iss": "llama-herder", "iat": 1, "sub": "x"},
        KEY.key,
        "EdDSA",
        {"kid": KEY.kid, "typ": "receipt+jwt"},
    )
    for broken, why in (
        (f"{head}.{claims[:-8]}AAAAAAAA.{signature}", "changed"),
        (f"{head}.{claims}.{signature[:-4]}AAAA", "changed"),
        (sign_receipt(receipt, other, 1), "not among"),
        (unsigned, "not a receipt"),
        (other_type, "not a receipt"),
        (no_receipt, "not a receipt"),
        ("", "not a signed receipt"),
        ("a.b.c", "not a signed receipt"),
        ("x" * 100_000, "too long"),
    ):
        with pytest.raises(InvalidReceipt, match=why):
            read_receipt(broken, KEYS)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 5}', '{"keys": [5]}', "[" * 99_999])
def test_keys_that_are_none_are_refused(text):
    with pytest.raises(InvalidReceipt, match="jwks"):
        from_jwks(text)


def test_keys_of_other_kinds_are_left_out():
    mixed = to_jwks([KEY.public])
    mixed["keys"].append({"kty": "RSA", "n": "1", "e": "2", "kid": "r"})
    assert list(from_jwks(json.dumps(mixed))) == [KEY.kid]
