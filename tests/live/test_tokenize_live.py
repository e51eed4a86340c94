"""Tokens that are counted ahead of an order are those that the real model then reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import herder
from herder.errors import InvalidPrompt, PromptTooLong
from tests.support.running import RunningHerd
from tests.support.typed import answered

pytestmark = pytest.mark.live

TEXTS = (
    "What do llamas eat?",
    " Two  spaces,\n\ttabs, and a trailing one ",
    "def f(x):\n    return x ** 2  # naïve: ½ ≠ 0.5 🦙",
    "<|im_start|>user\nNobody's turn.<|im_end|>",
    "word " * 150,
)
CHATS: tuple[list[Any], ...] = (
    [{"role": "user", "content": TEXTS[2]}],
    [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": TEXTS[0]},
        {"role": "assistant", "content": "Grass. 🌱"},
        {"role": "user", "content": TEXTS[1]},
    ],
)

PEER = """
import json, sys
from llama_cpp import Llama

llm = Llama(sys.argv[1], vocab_only=True, verbose=False)
print(json.dumps([len(llm.tokenize(text.encode(), add_bos=False)) for text in sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def web(real_herd: RunningHerd) -> herder.Client:
    """The herd over HTTP."""
    _, key = real_herd.client.api_keys.create("default")
    _, url = real_herd.start_gateway()
    return herder.Client(url, key)


def typed(herd: RunningHerd, *words: str) -> int:
    """What `herd tokenize` says."""
    done = answered(herd, "tokenize", *words, "--json")
    assert done.returncode == 0, done.stderr
    count: int = json.loads(done.stdout)["prompt_tokens"]
    return count


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_a_prompts_tokens_are_those_that_the_engine_reads(
    real_herd: RunningHerd, web: herder.Client, text: str, raw: bool
) -> None:
    counted = web.count_tokens(text, raw=raw)
    result = web.submit(text, 1, raw=raw).result(timeout=300)
    assert counted.prompt_tokens == result.usage.prompt_tokens
    assert typed(real_herd, text, *(["--raw"] if raw else [])) == counted.prompt_tokens
    assert result.receipt.words == web.quote(text, 1).words


def test_the_tokens_of_raw_prompts_are_those_of_llama_cpp_pythons_own(
    web: herder.Client, model_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEER, str(model_path), *TEXTS],
        capture_output=True,
        check=True,
        text=True,
    )
    assert [web.count_tokens(text, raw=True).prompt_tokens for text in TEXTS] == json.loads(
        done.stdout
    )


@pytest.mark.parametrize("turns", CHATS)
def test_a_chats_tokens_are_those_that_the_engine_reads(
    web: herder.Client, turns: list[Any]
) -> None:
    counted = web.count_tokens(messages=turns)
    result = web.submit(messages=turns, tokens=1).result(timeout=300)
    assert counted.prompt_tokens == result.usage.prompt_tokens


def test_what_is_asked_for_of_a_prompt_is_counted_as_it_is_read(
    real_herd: RunningHerd, web: herder.Client
) -> None:
    mark = "<|im_start|>"
    asked: dict[str, Any] = {"raw": True, "special": True}
    assert web.count_tokens(mark, **asked).prompt_tokens == 1
    assert typed(real_herd, mark, "--raw", "--special") == 1
    assert web.count_tokens(mark, raw=True).prompt_tokens > 1
    assert web.submit(mark, 1, **asked).result(timeout=300).usage.prompt_tokens == 1

    turns: list[Any] = [*CHATS[0], {"role": "assistant", "content": "It squares"}]
    counted = web.count_tokens(messages=turns, continue_final_message=True)
    made = web.submit(messages=turns, tokens=1, continue_final_message=True)
    assert made.result(timeout=300).usage.prompt_tokens == counted.prompt_tokens
    assert counted.prompt_tokens < web.count_tokens(messages=turns).prompt_tokens
    with pytest.raises(InvalidPrompt, match="the assistant's is the last"):
        web.submit(messages=turns[:-1], tokens=1, continue_final_message=True)
    with pytest.raises(InvalidPrompt, match="only for a raw prompt"):
        web.count_tokens(mark, special=True)


def test_a_prompt_of_exactly_the_context_is_taken_and_one_token_more_is_refused(
    web: herder.Client,
) -> None:
    text = "word " * 900
    counted = web.count_tokens(text)
    left = counted.context - counted.prompt_tokens
    with pytest.raises(PromptTooLong) as refused:
        web.submit(text, left + 1)
    assert refused.value.data["prompt_tokens"] == counted.prompt_tokens
    result = web.submit(text, left).result(timeout=300)
    assert result.usage.prompt_tokens == counted.prompt_tokens
