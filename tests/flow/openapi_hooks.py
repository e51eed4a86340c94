"""Hooks of Schemathesis: calls name a model that is there, and every answer is written down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import schemathesis

ANSWERS = Path(os.environ["ANSWERS"])
MODEL = os.environ["MODEL"]
SUITED = {"special", "continue_final_message", "add_generation_prompt"}
"""Parameters that go with some prompts only."""


@schemathesis.hook
def map_body(context, body):
    """What no document can say: which models are there, and what they hold.

    Every other body, so that those that name none are asked too.
    """
    if isinstance(body, dict) and len(json.dumps(body, default=str)) % 2:
        changed = {
            "model": MODEL if isinstance(body.get("model"), str) else None,
            "fee": body.get("fee"),
        }
        for name in ("tokens", "max_tokens", "max_completion_tokens"):
            if isinstance(body.get(name), int) and body[name] > 100:
                changed[name] = 100
        body = {**body, **{name: value for name, value in changed.items() if name in body}}
        body = {name: value for name, value in body.items() if name not in SUITED}
    return body


@schemathesis.hook
def after_call(context, case, response):
    """Write it down."""
    line = [f"{case.operation.method.upper()} {case.operation.path}", response.status_code]
    with ANSWERS.open("a") as file:
        file.write(json.dumps(line) + "\n")
