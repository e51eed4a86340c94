"""The kind of a model decides how its cache is laid out, shared and told of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.small_models import NO_GENERATORS, SHAPES
from workers.errors import ModelError
from workers.llama.kinds import Kind, settle
from workers.llama.options import LlamaOptions
from workers.wire import Announcement

MIB = 2**20


@pytest.fixture
def facts_of(small_model):
    """Loads a small model with some options, and says what became of them."""

    def load(name: str, changes: dict[str, Any] | None = None, **options: Any) -> Any:
        from workers.llama.model import LlamaModel

        given: dict[str, Any] = {"slots": 4, "threads": 1, "cells": 8192} | options
        model = LlamaModel(LlamaOptions(path=small_model(name, **changes or {}), **given))
        model.close()
        return model.facts

    return load


def test_attention_alone_is_laid_out_as_asked_for(facts_of):
    for unified in (False, True):
        facts = facts_of("llama", unified=unified)
        assert (facts.can_share, facts.separate, facts.notes) == (True, not unified, ())


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gpt-oss", "cohere2", "exaone4"])
def test_a_window_shares_nothing_in_a_unified_cache(facts_of, name):
    facts = facts_of(name, unified=True)
    assert (facts.can_share, facts.prefixes, facts.separate) == (False, 0, False)
    assert "window of 32 tokens" in facts.notes[0]
    assert facts_of(name, unified=True, share=False).notes == ()
    facts = facts_of(name)
    assert (facts.can_share, facts.separate, facts.notes) == (True, True, ())


@pytest.mark.parametrize("name", ["phi3", "phimoe", "minicpm3"])
def test_long_rope_factors_are_not_used_for_what_others_need(facts_of, name):
    facts = facts_of(name, unified=True)
    assert (facts.separate, facts.context) == (True, 512)
    assert "contexts above 512 tokens" in facts.notes[0]
    facts = facts_of(name, unified=True, context=1024)
    assert (facts.separate, facts.context, facts.notes) == (False, 1024, ())
    facts = facts_of(name, unified=True, cells=512)
    assert (facts.separate, facts.context, facts.notes) == (False, 512, ())


@pytest.mark.parametrize(
    ("architecture", "window", "original"), [("phi3", 0, 4096), ("deepseek4", 128, 0)]
)
def test_an_order_as_long_as_was_asked_for_or_none(tmp_path, architecture, window, original):
    hybrid = architecture == "deepseek4"
    kind = Kind(architecture, 131072, False, hybrid, window, original)
    options = LlamaOptions(tmp_path, slots=16, cells=32768, unified=True, context=2048)
    changed, (note,) = settle(options, kind)
    assert not changed.unified
    assert changed.context == 2048
    assert architecture in note
    with pytest.raises(ModelError, match="HERD_CONTEXT=4096: set HERD_KV_LAYOUT=separate"):
        settle(LlamaOptions(tmp_path, cells=32768, unified=True, context=4096), kind)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "rwkv6", "rwkv7"])
@pytest.mark.parametrize("unified", [False, True])
def test_a_recurrent_models_context_is_what_it_was_trained_for(facts_of, name, unified):
    facts = facts_of(name, {"context_length": 100_000}, unified=unified, cells=1024)
    assert facts.context == 100_000
    assert facts.cells >= 4 * 100_000
    assert not facts.can_share
    assert facts.kv_bytes < MIB / 4, "cells cost it nothing"


def test_a_context_is_one_that_may_be_announced(facts_of):
    facts = facts_of("mamba2", {"context_length": 2**31 - 1}, slots=32)
    (bound,) = (
        one.le for one in Announcement.model_fields["context"].metadata if hasattr(one, "le")
    )
    assert facts.context == bound


@pytest.mark.parametrize(
    "name", ["granitehybrid", "jamba", "lfm2", "qwen3next", "falcon-h1", "nemotron_h"]
)
@pytest.mark.parametrize("unified", [False, True])
def test_a_state_is_not_shared(facts_of, name, unified):
    facts = facts_of(name, unified=unified)
    assert (facts.can_share, facts.prefixes, facts.separate) == (False, 0, not unified)
    assert facts.context == 2048


def test_the_cache_is_as_large_as_it_is_told(facts_of):
    # 8192 cells of 2 heads of 16 numbers, keys and values, 2 bytes each, in each layer
    layer = 8192 * 2 * 16 * 2 * 2
    assert facts_of("llama").kv_bytes == 2 * layer
    assert facts_of("llama", unified=True, kv_type="f32").kv_bytes == 4 * layer
    assert facts_of("jamba").kv_bytes == pytest.approx(layer, rel=0.1), "one layer of two"
    latent = 8192 * 40 * 2  # no values: they are made of the keys
    assert facts_of("deepseek2").kv_bytes == pytest.approx(2 * latent, rel=0.01)


def test_a_window_that_nobody_shares_keeps_no_more_than_itself(facts_of):
    shared = facts_of("gemma3").kv_bytes
    assert facts_of("gemma3", share=False).kv_bytes < shared * 3 / 4
    assert facts_of("gemma3", unified=True).kv_bytes < shared * 3 / 4


@pytest.mark.parametrize("name", ["mamba2", "rwkv7", "jamba", "falcon-h1"])
def test_a_state_is_kept_for_each_slot_and_for_no_beginning(facts_of, name):
    def states(slots: int) -> int:
        """Bytes beside those of the cells."""
        few, many = (
            facts_of(name, slots=slots, cells=cells, context=128, unified=True).kv_bytes
            for cells in (1024, 2048)
        )
        return int(few - (many - few))

    for unified in (False, True):
        given = facts_of(name, unified=unified, prefixes=4, cells=1024)
        assert given.kv_bytes == facts_of(name, unified=unified, prefixes=0, cells=1024).kv_bytes
    # llama.cpp tells of sizes in hundredths of a MiB
    assert states(slots=16) == pytest.approx(4 * states(slots=4), abs=0.05 * MIB)
    assert states(slots=16) > 0.1 * MIB


@pytest.mark.parametrize("name", sorted(set(SHAPES) - NO_GENERATORS))
@pytest.mark.parametrize("share", [False, True])
def test_one_cache_for_all_is_no_larger_than_parts_of_as_many_cells(facts_of, name, share):
    separate, unified = (
        facts_of(name, slots=8, share=share, unified=unified) for unified in (False, True)
    )
    assert 0 < unified.kv_bytes <= separate.kv_bytes
    assert unified.context >= min(512, separate.context)
