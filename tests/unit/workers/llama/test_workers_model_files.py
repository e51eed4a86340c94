"""Files that are no model, or none that generates text, are told what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.small_models import SHAPES, Value, gguf, keys_of, random_weights, tensors_of
from workers.errors import ModelError, ModelFileError
from workers.tuning import check


def load(path: Path, **options: Any) -> Any:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    return LlamaModel(
        LlamaOptions(path=path, **{"slots": 2, "threads": 1, "cells": 1024} | options)
    )


@pytest.fixture(scope="session")
def parts(tmp_path_factory):
    """Keys and weights of a sound file."""
    keys = keys_of("llama")
    shapes = tensors_of(tmp_path_factory.mktemp("parts") / "keys.gguf", keys)
    return keys, random_weights(shapes, 1)


@pytest.fixture
def refused(tmp_path, parts):
    """Writes a file and says why it is not loaded."""

    def ask(change: Any = bytes, keys: dict[str, Value] | None = None, name="a.gguf") -> str:
        path = tmp_path / name
        path.write_bytes(change(gguf(parts[0] | (keys or {}), parts[1])))
        with pytest.raises(ModelFileError) as refusal:
            load(path)
        return refusal.value.message

    return ask


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_small_models_are_small(small_model, name):
    assert small_model(name).stat().st_size < 2_000_000


# What is loaded, and is no generator


@pytest.mark.parametrize(
    ("name", "changes", "purpose"),
    [
        ("bert", {}, "embeddings"),
        ("bert", {"pooling_type": 4}, "ranks"),
        ("gemma-embedding", {}, "embeddings"),
        ("qwen2", {"pooling_type": 3}, "embeddings"),
        ("llama", {"attention__causal": False}, "embeddings"),
        ("t5", {}, "turns one whole text into another"),
        ("t5encoder", {}, "only encodes"),
        ("dream", {}, "diffusion"),
    ],
)
def test_no_generator_is_refused_with_what_it_is_for(small_model, name, changes, purpose):
    path = small_model(name, **changes)
    with pytest.raises(ModelFileError, match=purpose) as refusal:
        load(path)
    assert f"({name}) does not generate text" in refusal.value.message
    assert str(path) in refusal.value.message


def test_without_a_cache_nothing_can_be_continued(small_model):
    """What its keys do not tell, llama.cpp does, when it makes no cache for it."""
    path = small_model("eurobert")
    with pytest.raises(ModelFileError, match=r"\(eurobert\) does not generate text: .*embeddings"):
        load(path)


def test_without_a_vocabulary_there_is_no_text(small_model):
    path = small_model("llama", tokenizer__ggml__model="no_vocab", vocab_size=260)
    with pytest.raises(ModelFileError, match="it has no vocabulary"):
        load(path)


def test_no_pooling_by_its_key_is_none(small_model):
    load(small_model("llama", pooling_type=0)).close()


def test_attention_that_is_causal_by_its_key_is_taken(small_model):
    load(small_model("llama", attention__causal=True)).close()


def test_the_check_refuses_what_is_no_generator(small_model, clean_environment, capsys):
    assert check.main(["--model-path", str(small_model("bert"))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "(bert) does not generate text: it makes embeddings of texts." in said


# What is not loaded


def test_unknown_architecture(refused):
    assert "unknown model architecture: 'wurzel'" in refused(
        keys={"general.architecture": "wurzel"}
    )


def test_second_part_of_a_split(refused, parts):
    keys: dict[str, Value] = {"split.no": 1, "split.count": 2, "split.tensors.count": len(parts[1])}
    said = refused(keys=keys, name="a-00002-of-00002.gguf")
    assert "model must be loaded with the first split" in said


def test_first_part_without_the_second(refused, parts):
    keys: dict[str, Value] = {"split.no": 0, "split.count": 2, "split.tensors.count": len(parts[1])}
    assert "a-00002-of-00002.gguf" in refused(keys=keys, name="a-00001-of-00002.gguf")


def test_incomplete(refused):
    assert "corrupted or incomplete" in refused(lambda data: data[:-50_000])
    assert "failed to read key-value pairs" in refused(lambda data: data[:500])


def test_of_a_later_version(refused):
    said = refused(lambda data: data[:4] + b"\x09\0\0\0" + data[8:])
    assert "version 9" in said
    assert "up to version 3" in said


def test_damaged_weights(refused):
    said = refused(lambda data: data[:-40_000] + b"\xff" * 4096 + data[-35_904:])
    assert "tensor 'blk.1.ffn_down.weight' has invalid data" in said


def test_a_vision_projector(refused):
    said = refused(keys={"general.architecture": "clip", "clip.has_vision_encoder": True})
    assert "CLIP cannot be used as main model" in said
    assert said.endswith("): it is a projector, through which another model sees or hears.")


SOME = np.ones((4, 64), np.float32)
VOCABULARY = {
    key: value
    for key, value in keys_of("llama").items()
    if key.startswith(("general", "tokenizer"))
}
NO_MODELS: list[tuple[dict[str, Value], dict[str, Any], str]] = [
    (
        {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"},
        {"blk.0.attn_q.weight.lora_a": SOME, "blk.0.attn_q.weight.lora_b": SOME.T},
        r"is an adapter \(LoRA\), which changes the weights of another model",
    ),
    (  # of a version that wrote no type
        keys_of("llama") | {"adapter.type": "lora"},
        {"blk.0.attn_q.weight.lora_a": SOME},
        r"is an adapter \(LoRA\), which",
    ),
    (
        {"general.type": "imatrix", "imatrix.chunk_count": 3, "imatrix.chunk_size": 512},
        {"blk.0.attn_q.weight.in_sum2": SOME},
        "is an importance matrix, with which the weights of a model are quantised",
    ),
    (
        {"general.architecture": "controlvector", "controlvector.model_hint": "llama"},
        {"direction.1": SOME[0]},
        "is a control vector, which steers another model",
    ),
    (
        {"general.architecture": "clip", "general.type": "mmproj"},
        {"v.patch_embd.weight": SOME},
        "is a projector, through which another model sees or hears",
    ),
    (VOCABULARY, {}, "has a vocabulary and no weights"),
    (keys_of("llama"), {}, "has a vocabulary and no weights"),
]


@pytest.mark.parametrize(("keys", "weights", "content"), NO_MODELS)
def test_what_holds_no_model_is_told_by_what_it_holds(
    tmp_path, clean_environment, capsys, keys, weights, content
):
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(keys, weights))
    said = rf"The model file {path} cannot be loaded \(.+\): it {content}.*\."
    with pytest.raises(ModelFileError, match=said):
        load(path)
    assert check.main(["--model-path", str(path)]) == 2
    assert re.fullmatch(f"{said}\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "keys",
    [
        {"general.name": "nothing else"},
        {"general.type": 7, "general.architecture": "wurzel"},
        {"general.type": ["adapter"], "general.architecture": "wurzel"},
        {"general.type": "dataset", "general.architecture": "wurzel"},
        VOCABULARY | {"split.count": 2, "split.no": 0},
    ],
)
def test_of_what_nobody_knows_llama_cpp_has_the_last_word(tmp_path, keys):
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf(keys, {}))
    with pytest.raises(ModelFileError, match=r"cannot be loaded \(.+\)\.$"):
        load(path)


def test_a_reason_is_not_that_of_the_file_before(refused, tmp_path, small_model):
    refused(lambda data: data[:-50_000])
    load(small_model("llama")).close()
    assert "incomplete" not in refused(keys={"general.architecture": "wurzel"})


# What is loaded and cannot be run as the settings have it


def test_a_head_size_that_q8_0_does_not_divide(small_model):
    path = small_model(
        "llama", embedding_length=160, attention__head_count=2, attention__head_count_kv=2
    )
    with pytest.raises(ModelError, match="does not divide n_embd_head_k=80") as refusal:
        load(path, kv_type="q8_0")
    assert "HERD_SLOTS" not in refusal.value.message
    assert "HERD_KV_TYPE is q8_0" in refusal.value.message


def test_q8_0_without_flash_attention(small_model):
    path = small_model("llama", embedding_length=128)
    with pytest.raises(ModelError, match="requires flash_attn") as refusal:
        load(path, kv_type="q8_0", flash_attention="off")
    assert "HERD_SLOTS" not in refusal.value.message
    assert "HERD_FLASH_ATTENTION off" in refusal.value.message
    load(path, kv_type="q8_0").close()


def test_no_memory_asks_for_fewer_cells(small_model, monkeypatch):
    from workers.llama import model

    def refuse(*_):
        model._complaints._on_log(4, b"f: failed to allocate buffer for kv cache", None)
        return

    path = small_model("llama")
    monkeypatch.setattr(model.lib, "llama_init_from_model", refuse)
    with pytest.raises(ModelError, match="smaller HERD_SLOTS or HERD_CELLS needs less memory"):
        load(path)
