"""Envelopes: whatever is not signed by who it should be, for here, in bounds, is refused."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from workers.wire import (
    BEATS_STREAM,
    CLOCK_LEEWAY_S,
    HERDER_QUEUE,
    INFERENCE_QUEUE,
    MAX_ENVELOPE_BYTES,
    MAX_OUTCOMES,
    MAX_PROMPT_BYTES,
    MAX_TEXT_CHARS,
    MAX_TOKENS,
    Announcement,
    AttemptRef,
    Beat,
    CancelAttempt,
    ChatMessage,
    Claim,
    Confirm,
    Drain,
    Failure,
    InferenceJob,
    Marker,
    Nudge,
    Outcome,
    Outcomes,
    PrivateKey,
    PublicKey,
    Reject,
    Sampling,
    WireError,
    WorkerStopped,
    attempt_id,
    control_stream,
    seal,
    signer,
    unseal,
)

KEY = PrivateKey.generate()
KEYS = {KEY.kid: KEY.public}
SECRET = "the prompt of a client"
HELD = AttemptRef(order="o-1", attempt=1, nonce="n-1")


def job(**fields):
    return InferenceJob(
        **{
            "order": "o-1",
            "attempt": 1,
            "nonce": "n-1",
            "rank": 5,
            "model": "stub",
            "prompt": SECRET,
            "tokens": 10,
            "run_limit_s": 60,
            **fields,
        }
    )


def sealed(body=None, **arguments):
    given_arguments = {"sender": "herder", "audience": INFERENCE_QUEUE, **arguments}
    return seal(body or job(), KEY, **given_arguments)


def signed(claims, key=KEY):
    """A token of any claims, signed by a key that is believed."""
    payload = json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, key.key, algorithm="EdDSA", headers={"kid": key.kid})


def claims_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def refused(token, code, *, audience=INFERENCE_QUEUE, keys=KEYS):
    with pytest.raises(WireError) as caught:
        unseal(token, keys, audience=audience)
    assert caught.value.code == code
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert len(str(caught.value)) < 200
    assert caught.value.__cause__ is None or SECRET not in str(caught.value.__cause__)


BODIES = [
    job(),
    job(prompt=None, messages=(ChatMessage(role="user", content="Hi 🦙"),), stop=("a", "b")),
    job(sampling=Sampling(temperature=0, seed=2**32 - 1, logit_bias={7: -1.5})),
    Outcomes(
        outcomes=(
            Outcome(
                order="o-1",
                attempt=2,
                nonce="n",
                result="failed",
                failure=Failure(code="bad", message="No.", permanent=True, data={"n": 5}),
            ),
        )
    ),
    Beat(
        number=3,
        worker=Announcement(name="ada", model="stub", slots=2, context=512),
        running=(HELD,),
        unconfirmed=(HELD,),
    ),
    *(Claim(held=(HELD,)), WorkerStopped(), Marker(number=9), Nudge(model="stub"), Drain()),
    *(CancelAttempt(held=HELD, reason="void"), Confirm(held=(HELD,)), Reject(reason="No.")),
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.kind)
def test_a_message_arrives_as_it_was_sent(body):
    token = sealed(body, sender="w-1", audience="somewhere")
    envelope = unseal(token, KEYS, audience="somewhere")
    assert (envelope.kid, envelope.sender, envelope.body) == (KEY.kid, "w-1", body)
    assert signer(token) == KEY.kid


def test_keys_go_through_a_file_and_back():
    again = PrivateKey.from_jwk(json.loads(json.dumps(KEY.to_jwk())))
    public = PublicKey.from_jwk(json.loads(json.dumps(KEY.public.to_jwk())))
    assert again.kid == public.kid == KEY.kid
    assert "d" not in public.to_jwk()
    assert unseal(seal(job(), again, sender="h", audience="q"), {KEY.kid: public}, audience="q")


@pytest.mark.parametrize(
    "jwk",
    [{}, {"kty": "OKP"}, {"kty": "oct", "k": "AAAA"}, {"kty": "OKP", "crv": "Ed448", "x": "A"}],
    ids=str,
)
def test_what_is_no_ed25519_key_is_none(jwk):
    for kind in (PublicKey, PrivateKey):
        with pytest.raises(WireError, match="bad_key"):
            kind.from_jwk(jwk)
    with pytest.raises(WireError, match="bad_key"):
        PublicKey.from_jwk(KEY.to_jwk())
    with pytest.raises(WireError, match="bad_key"):
        PrivateKey.from_jwk(KEY.public.to_jwk())


# Forgery


def _encoded(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_a_change_in_any_part_is_noticed():
    header, payload, signature = sealed().split(".")
    other = claims_of(sealed())
    other["body"]["tokens"] = 11
    refused(f"{header}.{_encoded(other)}.{signature}", "bad_signature")
    refused(f"{_encoded({'alg': 'EdDSA', 'kid': KEY.kid})}.{payload}.{signature}", "bad_signature")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    refused(f"{header}.{payload}.{flipped}", "bad_signature")
    with pytest.raises(WireError):
        unseal(f"{header}.{payload}.{signature[:-4]}", KEYS, audience=INFERENCE_QUEUE)
    refused(f"{header}.{payload}.", "bad_signature")
    refused(f"{header}.{payload}", "malformed")


@given(st.integers(0), st.characters(codec="ascii"))
def test_a_change_of_any_character_is_noticed(place, other):
    token = sealed(now_s=time.time())
    place %= len(token) - 1  # the last character holds bits that stand for nothing
    if token[place] == other:
        return
    with pytest.raises(WireError):
        unseal(token[:place] + other + token[place + 1 :], KEYS, audience=INFERENCE_QUEUE)


@given(st.text() | st.binary() | st.none() | st.integers() | st.lists(st.text()))
def test_what_is_no_envelope_is_refused(token):
    with pytest.raises(WireError):
        unseal(token, KEYS, audience=INFERENCE_QUEUE)


def test_a_signature_of_somebody_else_is_refused():
    stranger = PrivateKey.generate()
    refused(seal(job(), stranger, sender="herder", audience=INFERENCE_QUEUE), "unknown_key")
    claims = claims_of(sealed())
    posing = jwt.encode(claims, stranger.key, algorithm="EdDSA", headers={"kid": KEY.kid})
    refused(posing, "bad_signature")


def test_weaker_algorithms_are_refused():
    claims = claims_of(sealed())
    header = {"kid": KEY.kid}
    refused(jwt.encode(claims, None, algorithm="none", headers=header), "malformed")
    public = KEY.public.to_jwk()["x"].encode() * 2
    refused(jwt.encode(claims, public, algorithm="HS256", headers=header), "malformed")
    rsa = generate_private_key(65537, 2048)
    refused(jwt.encode(claims, rsa, algorithm="RS256", headers=header), "malformed")


def test_a_message_for_another_place_is_refused():
    token = sealed(audience=HERDER_QUEUE)
    refused(token, "wrong_audience")
    refused(sealed(audience=control_stream("w-1")), "wrong_audience", audience="control:w-2")
    claims = claims_of(sealed())
    del claims["aud"]
    refused(signed(claims), "malformed")


def test_a_job_expires_and_a_beat_does_not():
    late = time.time() - 100 - CLOCK_LEEWAY_S
    refused(sealed(now_s=late, ttl_s=15), "expired")
    assert unseal(sealed(now_s=late + 95, ttl_s=15), KEYS, audience=INFERENCE_QUEUE)
    beat = sealed(WorkerStopped(), audience=BEATS_STREAM, now_s=5)
    assert unseal(beat, KEYS, audience=BEATS_STREAM)
    assert unseal(sealed(now_s=time.time() + 9999), KEYS, audience=INFERENCE_QUEUE)


def test_a_job_that_never_expires_is_refused():
    claims = claims_of(sealed())
    del claims["exp"]
    refused(signed(claims), "malformed")


@pytest.mark.parametrize("sender", ["", "a b", "x" * 65, "a\n", 5, None, ["w"], {}], ids=repr)
def test_a_sender_has_a_name(sender):
    claims = {**claims_of(sealed()), "iss": sender}
    with pytest.raises(WireError):
        unseal(signed(claims), KEYS, audience=INFERENCE_QUEUE)


# Bounds


@pytest.mark.parametrize("kind", ["unknown", None, 5, "InferenceJob", ""])
def test_a_message_of_no_known_kind_is_refused(kind):
    refused(signed({**claims_of(sealed()), "kind": kind}), "unknown_kind")


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": -1},
        {"tokens": MAX_TOKENS + 1},
        {"tokens": 1.5},
        {"tokens": SECRET},
        {"attempt": 0},
        {"rank": 2**63},
        {"order": ""},
        {"order": "a/b"},
        {"order": "a\n"},
        {"order": "x" * 65},
        {"nonce": "x" * 65},
        {"run_limit_s": 0},
        {"run_limit_s": 10**9},
        {"stop": ["x"] * 17},
        {"stop": [""]},
        {"stop": ["x" * 257]},
        {"messages": [{"role": "user", "content": SECRET}]},
        {"prompt": None},
        {"prompt": "x" * (MAX_PROMPT_BYTES + 1)},
        {"prompt": None, "messages": [{"role": "user", "content": SECRET, "name": "x"}]},
        {"sampling": {"temperature": -1}},
        {"sampling": {"unknown": 1}},
        {"model": ""},
        {"callback": SECRET},
        {SECRET * 20: 1},
    ],
    ids=lambda change: f"{next(iter(change))[:20]}",
)
def test_fields_out_of_bounds_or_unknown_are_refused_without_quoting_them(change):
    claims = claims_of(sealed())
    claims["body"] = {**claims["body"], **change}
    token = signed(claims)
    if SECRET * 20 in change:
        with pytest.raises(WireError, match="out_of_bounds") as caught:
            unseal(token, KEYS, audience=INFERENCE_QUEUE)
        assert len(str(caught.value)) < 200
    else:
        refused(token, "out_of_bounds")


@pytest.mark.parametrize("body", [None, 5, [], "x", [1] * 10], ids=repr)
def test_a_body_that_is_no_object_is_refused(body):
    refused(signed({**claims_of(sealed()), "body": body}), "out_of_bounds")


@pytest.mark.timeout(60)
def test_huge_and_deep_messages_are_refused():
    refused("x" * (MAX_ENVELOPE_BYTES + 1), "too_large")
    deep = base64.urlsafe_b64encode(b"[" * 500_000).decode().rstrip("=")
    header = sealed().split(".")[0]
    refused(f"{deep}.{deep}.{deep}", "malformed")
    with pytest.raises(WireError):
        unseal(f"{header}.{deep}.AAAA", KEYS, audience=INFERENCE_QUEUE)
    raw = jwt.PyJWS().encode(b"[" * 100_000, KEY.key, algorithm="EdDSA", headers={"kid": KEY.kid})
    refused(raw, "malformed")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("character", ["x", "\0", "ж", "水", "🦙"], ids=ascii)
def test_whatever_is_within_its_bounds_can_be_sent(character):
    """Else an order would be accepted, held, and never sent, or its answer never come home."""
    prompt = character * (MAX_PROMPT_BYTES // len(character.encode()))
    token = sealed(job(prompt=prompt))
    assert unseal(token, KEYS, audience=INFERENCE_QUEUE).body.prompt == prompt

    text = character * MAX_TEXT_CHARS
    outcome = Outcome(order="o", attempt=1, nonce="n", result="completed", text=text)
    token = sealed(Outcomes(outcomes=(outcome,)))
    assert unseal(token, KEYS, audience=INFERENCE_QUEUE).body.outcomes == (outcome,)


def test_outcomes_of_one_message_are_bounded():
    outcome = {"order": "o", "attempt": 1, "nonce": "n", "result": "completed"}
    claims = claims_of(sealed())
    claims |= {"kind": "outcomes", "body": {"outcomes": [outcome] * (MAX_OUTCOMES + 1)}}
    refused(signed(claims), "out_of_bounds")
    refused(signed({**claims, "body": {"outcomes": []}}), "out_of_bounds")


def test_an_attempts_task_id_names_order_and_attempt():
    assert attempt_id(HELD) == "o-1.1"
