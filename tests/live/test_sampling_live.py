"""Every sampling parameter has its effect, and grammars hold."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest

from tests.live.live_support import Heard, run, work
from workers.engine.engine import Engine
from workers.engine.work import Completion
from workers.wire import Sampling

pytestmark = pytest.mark.live

STORY = "Once upon a time there was a llama. The llama"


def sampled(engine: Engine, prompt: str = STORY, tokens: int = 24, **sampling: Any) -> Heard:
    return run(engine, work(prompt, tokens, sampling=Sampling(**sampling)))[0]


def text(engine: Engine, **sampling: Any) -> str:
    heard = sampled(engine, **sampling)
    assert heard.end.reason in ("stop", "length"), heard.end.error
    return heard.end.text


def test_a_seed_repeats_and_another_one_differs(engine: Engine) -> None:
    hot = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert text(engine, seed=1, **hot) == text(engine, seed=1, **hot)
    assert text(engine, seed=1, **hot) != text(engine, seed=2, **hot)
    assert text(engine, **hot) != text(engine, **hot), "without a seed each run draws its own"


@pytest.mark.parametrize(
    "narrow",
    [
        {"temperature": 0.001},
        {"temperature": 1e-9},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 1e-6},
        {"temperature": 1.0, "min_p": 1.0},
    ],
    ids=str,
)
def test_what_leaves_one_token_is_greedy(engine: Engine, narrow: dict[str, float]) -> None:
    wide = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 7}
    assert text(engine, **(wide | narrow)) == text(engine, temperature=0)


@pytest.mark.parametrize(
    "penalty",
    [{"repeat_penalty": 1.8}, {"frequency_penalty": 1.5}, {"presence_penalty": 2.0}],
    ids=str,
)
def test_penalties_keep_it_from_saying_the_same_again(
    engine: Engine, penalty: dict[str, float]
) -> None:
    def most_repeated(said: str) -> int:
        words = re.findall(r"\w+", said.lower())
        return max(map(words.count, words))

    loop = "go go go go go go go go go go go go"
    plain = sampled(engine, loop, temperature=0).end.text
    other = sampled(engine, loop, temperature=0, **penalty).end.text
    assert most_repeated(other) < most_repeated(plain)


def test_a_bias_forbids_and_forces(engine: Engine) -> None:
    model: Any = engine._model
    prompt = "The capital of France is"
    (paris,) = model.tokenize(" Paris", template=False)
    (rome,) = model.tokenize(" Rome", template=False)
    assert sampled(engine, prompt, 1, temperature=0).end.text == " Paris"
    forbidden = sampled(engine, prompt, 1, temperature=0, logit_bias={paris: -100.0})
    assert forbidden.end.text != " Paris"
    assert sampled(engine, prompt, 1, temperature=0, logit_bias={rome: 100.0}).end.text == " Rome"
    assert sampled(engine, prompt, 1, logit_bias={rome: 100.0}).end.text == " Rome"


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_it_goes_on_where_it_would_end(engine: Engine, temperature: float) -> None:
    model: Any = engine._model
    ending = dict.fromkeys(model._vocab.ends, 100.0)

    def answered(stop: tuple[str, ...] = (), **sampling: Any) -> Completion:
        chosen = Sampling(temperature=temperature, seed=3, logit_bias=ending, **sampling)
        asked = work("Say hello.", 20, raw=False, stop=stop, sampling=chosen)
        return run(engine, asked)[0].end

    assert (answered().reason, answered().text) == ("stop", "")
    goes_on = answered(ignore_eos=True)
    assert (goes_on.reason, goes_on.generated) == ("length", 20)
    stopped = answered((goes_on.text[4:8],), ignore_eos=True)
    assert (stopped.reason, stopped.generated < 20) == ("stop", True)


@pytest.mark.parametrize("form", [{"grammar": 'root ::= "a"'}, {"json_schema": "{}"}], ids=str)
def test_it_does_not_go_on_behind_a_form(engine: Engine, form: dict[str, Any]) -> None:
    error = sampled(engine, ignore_eos=True, **form).end.error
    assert error is not None
    assert (error.code, error.permanent) == ("bad_sampling", True)
    assert "ignore_eos" in error.message


@pytest.mark.parametrize("token", [49152, 2**31 - 1])
def test_a_bias_of_no_token_fails(engine: Engine, token: int) -> None:
    error = sampled(engine, logit_bias={token: 1.0}).end.error
    assert error is not None
    assert (error.code, error.permanent) == ("bad_sampling", True)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_json_by_a_schema_parses(engine: Engine, temperature: float) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer"},
            "animal": {"enum": ["llama", "alpaca"]},
        },
        "required": ["name", "age", "animal"],
        # Else it may think of more: which, depends on how a CPU rounds.
        "additionalProperties": False,
    }
    works = [
        work(
            "Describe a pet as JSON.",
            200,
            raw=False,
            sampling=Sampling(temperature=temperature, seed=i, json_schema=json.dumps(schema)),
        )
        for i in range(4)
    ]
    for heard in run(engine, *works):
        assert heard.end.reason == "stop"
        answer = json.loads(heard.end.text)
        assert set(answer) == {"name", "age", "animal"}
        assert answer["animal"] in ("llama", "alpaca")


def test_a_grammar_holds_with_multibyte_characters_beside_plain_streams(engine: Engine) -> None:
    plain, bound, poem = run(
        engine,
        work(STORY, 20),
        work(STORY, 20, sampling=Sampling(grammar='root ::= ("水" | "🦙" | "é")+')),
        work(STORY, 30, sampling=Sampling(grammar='root ::= [a-z]{3} "-" [0-9]{2}')),
    )
    assert plain.end.generated == 20
    assert re.fullmatch("[水🦙é]+", bound.end.text)
    assert re.fullmatch("[a-z]{3}-[0-9]{2}", poem.end.text)
    assert poem.end.reason == "stop", "after the grammar's end only an end of generation fits"


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ({"grammar": "root ::= ("}, "does not parse"),
        ({"grammar": "root ::= root"}, "begins with itself"),
        ({"grammar": ""}, "no rule named root"),
        ({"json_schema": "[1]"}, "must be an object"),
        ({"json_schema": '{"type": "nonsense"}'}, '"type" at # names a type that is none'),
        (
            {"json_schema": '{"$ref": "https://x.org/s"}'},
            '"$ref" at # refers to another',
        ),
        (
            {"json_schema": '{"type": "string", "pattern": "^(a"}'},
            '"pattern" at # is no regular',
        ),
        ({"json_schema": "{}", "grammar": 'root ::= "a"'}, "contradict"),
        ({"grammar": "root ::= <[99999999]>"}, "no token fits"),
    ],
    ids=str,
)
def test_a_bad_grammar_fails_its_order_alone(
    engine: Engine, sampling: dict[str, Any], words: str
) -> None:
    good, bad = run(engine, work(STORY, 8), work(STORY, 8, sampling=Sampling(**sampling)))
    assert good.end.reason == "length"
    assert bad.end.reason == "failed"
    assert bad.end.error is not None
    assert bad.end.error.permanent
    assert bad.end.error.code == "bad_grammar"
    assert words in bad.end.error.message


def test_a_grammar_that_is_too_slow_fails_its_order_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = engine._model
    now_s = itertools.count()
    monkeypatch.setattr(model._samplers, "_clock", lambda: next(now_s))  # a second each time
    slow = work(STORY, 200, sampling=Sampling(temperature=0, grammar="root ::= [a-z ]+"))
    good, bad = run(engine, work(STORY, 8), slow)
    assert good.end.reason == "length"
    assert bad.end.error is not None
    assert (bad.end.error.code, bad.end.error.permanent) == ("grammar_too_slow", True)
    assert bad.end.text, "what it said before is kept"


def test_a_grammar_with_ever_more_ways_to_go_on_is_refused(engine: Engine) -> None:
    ambiguous = 'root ::= " " root "b" | " " root "c" | "e"'
    (bad,) = run(engine, work(STORY, 20, sampling=Sampling(grammar=ambiguous)))
    assert bad.end.error is not None
    assert "ambiguous" in bad.end.error.message
