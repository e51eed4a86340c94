"""Answers that follow JSON schemas, by the demo's model: those that end by themselves are valid."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from tests.live.live_support import run, work
from tests.support.schemas import CASES, SHAPES
from workers.engine.engine import Engine
from workers.wire import Sampling
from workers.wire.schema_errors import SchemaRefused
from workers.wire.schemas import compile_schema

pytestmark = pytest.mark.live

TOKENS = 64
AT_ONCE = 16


def test_of_the_answers_that_end_by_themselves_none_is_invalid(engine: Engine) -> None:
    wanted = []
    for name, schema in [*((case["name"], case["schema"]) for case in CASES), *SHAPES.items()]:
        try:
            compile_schema(json.dumps(schema))
        except SchemaRefused:
            continue
        wanted += [(name, schema, temperature) for temperature in (0.0, 1.2)]
    ended = 0
    for begin in range(0, len(wanted), AT_ONCE):
        some = wanted[begin : begin + AT_ONCE]
        works = [
            work(
                f"Answer with JSON for: {name}",
                TOKENS,
                raw=False,
                sampling=Sampling(temperature=heat, seed=5, json_schema=json.dumps(schema)),
            )
            for name, schema, heat in some
        ]
        for (name, schema, _), heard in zip(some, run(engine, *works), strict=True):
            assert heard.end.error is None, (name, heard.end.error)
            if heard.end.reason == "stop":
                ended += 1
                jsonschema.validate(json.loads(heard.end.text), schema)
    assert ended > 0


FORMS: list[dict[str, Any]] = [
    {"regex": r"(Monday|Tuesday), \d{1,2} (May|June)"},
    {"regex": "[a-z]{3,9}( [a-z]{3,9}){0,2}"},
    {"regex": "^-?[0-9]{1,4}$"},
    {"choice": ("llama", "alpaca", "guanaco (wild)", "vicuña")},
    {"choice": ("yes", "yes, sir")},
]


def test_an_answer_matches_an_expression_or_is_one_of_the_choices(engine: Engine) -> None:
    works = [
        work("What is it?", 32, raw=False, sampling=Sampling(temperature=heat, seed=3, **form))
        for form in FORMS
        for heat in (0.0, 1.3)
    ]
    forms = [form for form in FORMS for _ in range(2)]
    for form, heard in zip(forms, run(engine, *works), strict=True):
        assert (heard.end.error, heard.end.reason) == (None, "stop")
        if "choice" in form:
            assert heard.end.text in form["choice"]
        else:
            assert re.fullmatch(form["regex"], heard.end.text), heard.end.text
