"""One call with OpenAI's Python package as it is released; runs in that package's environment.

Its argument is the call as JSON; what comes of it is JSON, a line each: `sent` with the number of
repetitions that a request is marked with, `begun` when a stream has, and what was answered.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def say_sent(request: Any) -> None:
    say(sent=int(request.headers["x-stainless-retry-count"]))


def call(asked: dict[str, Any]) -> None:
    """Make it with the package's own time-outs and retries, unless others are asked for."""
    given = {name: asked[name] for name in ("timeout", "max_retries") if name in asked}
    headers = {"Idempotency-Key": asked["idempotency_key"]} if "idempotency_key" in asked else {}
    # Only to tell when it sends: the rest is as the package makes it by itself.
    line = openai.DefaultHttpxClient(event_hooks={"request": [say_sent]})
    client = openai.OpenAI(
        base_url=asked["url"] + "/v1", api_key=asked["api_key"], http_client=line, **given
    )
    answer = client.chat.completions.create(
        model="stub",
        messages=[{"role": "user", "content": asked["prompt"]}],
        max_tokens=asked["tokens"],
        stream=asked["stream"],
        extra_headers=headers,
    )
    if not asked["stream"]:
        say(text=answer.choices[0].message.content, finish=answer.choices[0].finish_reason)
        return
    for chunk in answer:
        if not chunk.choices:
            say(alive=True)
        elif chunk.choices[0].delta.role:
            say(begun=True)
        for choice in chunk.choices:
            if choice.delta.content or choice.finish_reason:
                say(text=choice.delta.content or "", finish=choice.finish_reason)


try:
    call(json.loads(sys.argv[1]))
except openai.APIError as error:
    status = getattr(error, "status_code", None)
    say(error=type(error).__name__, code=getattr(error, "code", None), status=status)
