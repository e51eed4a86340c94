"""Prompts are counted over HTTP and by the command, and refused there before anything is held."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import httpx
import pytest

import herder
from herder.errors import PromptTooLong
from tests.support.running import HERD

LONG = "word " * 80


@pytest.fixture
def key(herd):
    _, shown = herd.client.api_keys.create("default")
    return shown


@pytest.fixture
def url(herd):
    herd.start_worker(HERD_CONTEXT="64", HERD_SLOTS="1")
    _, found = herd.start_gateway()
    return found


def test_a_prompt_is_counted_and_refused_over_http(herd, url, key):
    with herder.Client(url, key) as web:
        counted = web.count_tokens(LONG)
        assert (counted.model, counted.prompt_tokens, counted.context) == ("stub", 83, 64)
        assert web.count_tokens("one two", raw=True).prompt_tokens == 2
        turns = [{"role": "user", "content": "one two"}]
        assert web.count_tokens(messages=turns).prompt_tokens == 4
        with pytest.raises(PromptTooLong, match="83 tokens long") as refused:
            web.submit(LONG, 10)
        assert refused.value.data == {"prompt_tokens": 83, "tokens": 10, "context": 64}
        with pytest.raises(herder.InvalidPrompt):
            web.count_tokens("")
        with pytest.raises(herder.ModelNotFound):
            web.count_tokens("one", model="other")

    async def count():
        async with herder.AsyncClient(url, key) as web:
            return await web.count_tokens(LONG)

    assert asyncio.run(count()) == counted
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.post(f"{url}/v1/tokenize", json={"prompt": LONG}, headers=headers)
    assert answer.json() == {"model": "stub", "count": 83, "max_model_len": 64}
    balance = herd.client.accounts.balance("default")
    assert (balance.available, balance.held) == (1_000_000, 0)
    assert herd.client.orders() == []


def test_the_command_counts_here_and_elsewhere(herd, url, key):
    here = typed(herd.env, "tokenize", "-", "--json", stdin=LONG)
    assert json.loads(here) == {"model": "stub", "prompt_tokens": 83, "context": 64}
    away = {**herd.env, "HERD_URL": url, "HERD_API_KEY": key}
    shown = typed(away, "tokenize", "one two", "--raw")
    assert "2 tokens" in shown
    assert "of which 62 are left" in shown


def typed(env, *words, stdin=""):
    """What the command answers."""
    done = subprocess.run(
        [sys.executable, *HERD, *words],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
