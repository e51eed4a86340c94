"""Writes small GGUF models with random weights, one for each kind of architecture.

A table says which keys an architecture's file has. Which tensors it needs, and of what shapes, is
asked of llama.cpp: it makes a model of the keys alone and tells of each tensor as it goes, so that
the table holds nothing that llama.cpp knows better. The vocabulary is 256 bytes and a few control
tokens: any text is a prompt.

The weights are drawn so that what an answer is depends on every earlier token: else a cache that
lost some of them would answer as one that has them.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Value = bool | int | float | str | list[int] | list[float] | list[str]
Shape = tuple[int, ...]

_ALIGNMENT = 32
_TYPES: dict[type, tuple[int, str]] = {bool: (7, "<B"), int: (4, "<I"), float: (6, "<f")}
_STRING, _ARRAY = 8, 9
_ODD_TYPES = {
    "tokenizer.ggml.token_type": (5, "<i"),
    "split.no": (2, "<H"),
    "split.count": (2, "<H"),
    "split.tensors.count": (5, "<i"),
}
"""GGUF's numbers of types, and how `struct` writes them."""

_BASE: dict[str, Value] = {
    "context_length": 2048,
    "embedding_length": 64,
    "block_count": 2,
    "feed_forward_length": 96,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
_EXPERTS: dict[str, Value] = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 32,
}
_STATE: dict[str, Value] = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 128,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
}
_WINDOW = 32
_ENCODER: dict[str, Value] = {"attention.causal": False, "attention.head_count_kv": 4}

SHAPES: dict[str, dict[str, Value]] = {
    # attention alone
    "llama": {},
    "qwen2": {},
    "qwen2vl": {"rope.dimension_sections": [2, 3, 3, 0]},
    "deepseek2": _EXPERTS
    | {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": 32,
        "attention.kv_lora_rank": 32,
        "attention.key_length": 40,
        "attention.value_length": 32,
        "attention.key_length_mla": 24,
        "attention.value_length_mla": 16,
        "rope.dimension_count": 8,
        "leading_dense_block_count": 1,
        "expert_shared_count": 1,
    },
    "qwen3": {},
    "qwen3moe": _EXPERTS,
    "olmo2": {},
    "granite": {
        "logit_scale": 4.0,
        "residual_scale": 0.5,
        "embedding_scale": 2.0,
        "attention.scale": 0.25,
    },
    "stablelm": {},
    "starcoder2": {},
    "gptneox": {"use_parallel_residual": True, "attention.head_count_kv": 4},
    "smollm3": {},
    "glm4": {},
    "ernie4_5": {},
    "dots1": _EXPERTS
    | {
        "attention.head_count_kv": 4,
        "leading_dense_block_count": 1,
        "expert_shared_count": 1,
        "expert_gating_func": 2,
    },
    "hunyuan-dense": {},
    "hunyuan-moe": _EXPERTS | {"expert_shared_feed_forward_length": 32},
    # attention alone, with a bias in the place of positions
    "bloom": {"attention.head_count_kv": 4},
    "mpt": {"attention.head_count_kv": 4, "attention.max_alibi_bias": 8.0},
    # attention alone, with rope factors for long contexts
    "minicpm3": {
        "attention.head_count_kv": 4,
        "attention.q_lora_rank": 32,
        "attention.kv_lora_rank": 32,
        "attention.key_length": 24,
        "attention.value_length": 16,
        "rope.dimension_count": 8,
        "rope.scaling.original_context_length": 512,
    },
    "phi3": {"attention.head_count_kv": 4, "rope.scaling.original_context_length": 512},
    "phimoe": _EXPERTS | {"rope.scaling.original_context_length": 512},
    # a sliding window
    "cohere2": {"attention.sliding_window": _WINDOW, "logit_scale": 0.25},
    "exaone4": {"attention.sliding_window": _WINDOW},
    "gemma3n": {"attention.sliding_window": _WINDOW},
    "gemma2": {"attention.sliding_window": _WINDOW},
    "gemma3": {"attention.sliding_window": _WINDOW, "attention.sliding_window_pattern": 2},
    "gpt-oss": _EXPERTS | {"attention.sliding_window": _WINDOW},
    # recurrent
    "mamba": _STATE | {"attention.head_count": 0},
    "mamba2": _STATE | {"attention.head_count": 0},
    "rwkv6": {
        "attention.head_count": 0,
        "wkv.head_size": 32,
        "time_mix_extra_dim": 16,
        "time_decay_extra_dim": 16,
        "rescale_every_n_layers": 0,
        "token_shift_count": 2,
    },
    "rwkv7": {
        "attention.head_count": 0,
        "wkv.head_size": 64,
        "attention.decay_lora_rank": 16,
        "attention.iclr_lora_rank": 16,
        "attention.value_residual_mix_lora_rank": 16,
        "attention.gate_lora_rank": 16,
        "token_shift_count": 2,
    },
    # attention in some layers, a state in the others
    "falcon-h1": _STATE,
    "nemotron_h": _STATE | {"attention.head_count_kv": [2, 0], "feed_forward_length": [0, 0]},
    "lfm2moe": _EXPERTS
    | {"attention.head_count_kv": [2, 0], "shortconv.l_cache": 3, "expert_gating_func": 2},
    "lfm2": {"attention.head_count_kv": [2, 0], "shortconv.l_cache": 3},
    "granitehybrid": _STATE | {"attention.head_count_kv": [2, 0]},
    "jamba": _STATE | {"attention.head_count_kv": [2, 0]},
    "qwen3next": _STATE
    | _EXPERTS
    | {
        "full_attention_interval": 2,
        "ssm.inner_size": 64,
        "expert_shared_feed_forward_length": 32,
    },
    # no generators
    "bert": _ENCODER | {"tokenizer.ggml.token_type_count": 2, "pooling_type": 1},
    "eurobert": {"attention.head_count_kv": 4},
    "gemma-embedding": {"attention.sliding_window": _WINDOW, "pooling_type": 1},
    "t5": {"attention.relative_buckets_count": 8, "attention.head_count_kv": 4},
    "t5encoder": {"attention.relative_buckets_count": 8, "attention.head_count_kv": 4},
    "dream": {},
}
"""The keys of each architecture's file beyond those that all have, without its name before them."""

NO_GENERATORS = frozenset({"bert", "eurobert", "gemma-embedding", "t5", "t5encoder", "dream"})
"""Those that generate no text."""


def keys_of(name: str, **changes: Value) -> dict[str, Value]:
    """All keys of the file of a small model.

    Args:
        name: the architecture, as llama.cpp calls it.
        changes: keys that replace those of the table, with `__` for each dot.
    """
    changed = {_full(name, key.replace("__", ".")): value for key, value in changes.items()}
    own = {_full(name, key): value for key, value in (_BASE | SHAPES[name]).items()}
    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "<|endoftext|>",
        "▁",
    ]
    kinds = [2, 3, 3, *[6] * 256, 3, 1]  # unknown, control, control, bytes, control, a space
    return {
        "general.architecture": name,
        "general.name": f"small {name}",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": False,
        **own,
        **changed,
    }


def _full(name: str, key: str) -> str:
    return key if key.startswith(("general.", "tokenizer.")) else f"{name}.{key}"


def write_model(
    path: Path, name: str, *, seed: int = 1, without: Iterable[str] = (), **changes: Value
) -> Path:
    """Write a small model with random weights.

    Args:
        path: the file.
        name: the architecture.
        seed: of the weights.
        without: words of names of tensors that are left out.
        changes: see `keys_of`.
    """
    keys = keys_of(name, **changes)
    shapes = {
        tensor: shape
        for tensor, shape in tensors_of(path, keys).items()
        if not tensor.endswith((".scale", ".input_scale"))
        and not any(word in tensor for word in without)
    }
    path.write_bytes(gguf(keys, random_weights(shapes, seed)))
    return path


def random_weights(shapes: Mapping[str, Shape], seed: int) -> dict[str, Any]:
    """Weights by name, each drawn by its role."""
    chance = np.random.default_rng(seed)
    return {name: _draw(chance, name, shape) for name, shape in shapes.items()}


_BACK = re.compile(r"attn_output|ssm_out|out_proj|time_mix_output")
_ASKED = re.compile(r"attn_(q|k)")


def _draw(chance: Any, name: str, shape: Shape) -> Any:
    values = chance.standard_normal(tuple(reversed(shape)), dtype=np.float32)
    if "ssm_a" in name:
        return -np.exp(values / 2) / 40  # states decay, slowly
    if "rope_" in name:
        return 1 + np.abs(values)
    if ("norm" in name or "_ln" in name) and name.endswith("weight"):
        return 1 + values / 10
    if name.endswith("bias") or len(shape) < 2:
        return values / 10
    if name.startswith(("token_embd", "position_embd", "token_types")):
        return values / 4
    # what comes of other tokens weighs more than the token itself, and attention is no mere mean
    gain = 4.0 if _BACK.search(name) else 2.5 if _ASKED.search(name) else 1.5
    return values * np.float32(gain / np.sqrt(shape[0]))


def gguf(keys: Mapping[str, Value], tensors: Mapping[str, Any]) -> bytes:
    """The bytes of a GGUF file of version 3, with weights of 32 bits."""
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    for key, value in keys.items():
        head += [_string(key), _value(key, value)]
    data = []
    offset = 0
    for name, values in tensors.items():
        shape = tuple(reversed(values.shape))
        head.append(_string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        head.append(struct.pack("<IQ", 0, offset))
        data.append(_padded(np.ascontiguousarray(values, np.float32).tobytes()))
        offset += len(data[-1])
    return _padded(b"".join(head)) + b"".join(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Value) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if not isinstance(value, list):
        kind, form = _ODD_TYPES.get(key, _TYPES[type(value)])
        return struct.pack("<I", kind) + struct.pack(form, value)
    head = struct.pack("<I", _ARRAY)
    if isinstance(value[0], str):
        items = b"".join(_string(str(item)) for item in value)
        return head + struct.pack("<IQ", _STRING, len(value)) + items
    kind, form = _ODD_TYPES.get(key, _TYPES[type(value[0])])
    items = b"".join(struct.pack(form, item) for item in value)
    return head + struct.pack("<IQ", kind, len(value)) + items


def tensors_of(path: Path, keys: Mapping[str, Value]) -> dict[str, Shape]:
    """The tensors that llama.cpp wants for a file of these keys, with their sizes, as it has them.

    Args:
        path: where a file may be written for it.
        keys: of the file.
    """
    import llama_cpp
    from llama_cpp._ggml import libggml

    from workers.llama.model import _complaints  # with which llama.cpp prints nothing

    base: Any = libggml
    base.gguf_init_from_file.restype = ctypes.c_void_p
    base.gguf_init_from_file.argtypes = [ctypes.c_char_p, _InitParams]
    base.gguf_free.argtypes = [ctypes.c_void_p]
    base.ggml_get_name.restype = ctypes.c_char_p
    base.ggml_get_name.argtypes = [ctypes.c_void_p]
    found: dict[str, Shape] = {}

    def tell(tensor: int, _user: object) -> None:
        sizes = (ctypes.c_int64 * 4).from_address(tensor + _SIZES_AT)
        shape = tuple(sizes)
        while len(shape) > 1 and shape[-1] == 1:
            shape = shape[:-1]
        found[base.ggml_get_name(tensor).decode()] = shape

    path.write_bytes(gguf(keys, {}))
    _complaints.forget()
    metadata = base.gguf_init_from_file(bytes(path), _InitParams(True, None))
    callback = llama_cpp.llama_model_set_tensor_data_t(tell)
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama_cpp.llama_model_init_from_user(metadata, callback, None, params)
    base.gguf_free(metadata)
    if not model:
        raise ValueError(f"llama.cpp makes no model of these keys: {_complaints.first()}")
    llama_cpp.llama_model_free(model)
    return found


class _InitParams(ctypes.Structure):
    """gguf.h: `gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


_SIZES_AT = 16
"""ggml.h: where in a `ggml_tensor` its sizes stand, after its type and buffer."""
