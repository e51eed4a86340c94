"""Tells what a GGUF file is that holds no model, such as an adapter or a vocabulary.

Asked only where llama.cpp did not load the file: its reason names a key or a tensor that such a
file has not. The library comes as an argument: only `model` imports it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

_STRING = 8  # gguf.h: GGUF_TYPE_STRING
_ADAPTER = "is an adapter (LoRA), which changes the weights of another model"
_IMATRIX = "is an importance matrix, with which the weights of a model are quantised"
_PROJECTOR = "is a projector, through which another model sees or hears"
_CONTROL = "is a control vector, which steers another model"
_VOCABULARY = "has a vocabulary and no weights"
_TYPES = {"adapter": _ADAPTER, "imatrix": _IMATRIX, "mmproj": _PROJECTOR}
_ARCHITECTURES = {"clip": _PROJECTOR, "controlvector": _CONTROL}
_KEYS = {"adapter.type": _ADAPTER, "imatrix.chunk_count": _IMATRIX}


class _InitParams(ctypes.Structure):
    """gguf.h: `gguf_init_params`."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def content_without_model(ggml: Any, path: Path) -> str | None:
    """Return the content of a file that holds no model, as the end of a sentence about it.

    Args:
        ggml: the library of llama.cpp that reads GGUF files.
        path: a file that could not be loaded.

    Returns:
        None for what may be a model, and for what cannot be read.
    """
    handle = ctypes.c_void_p

    def function(name: str, result: Any, *arguments: Any) -> Any:
        return ctypes.CFUNCTYPE(result, *arguments)((name, ggml))

    find_key = function("gguf_find_key", ctypes.c_int64, handle, ctypes.c_char_p)
    type_of = function("gguf_get_kv_type", ctypes.c_int, handle, ctypes.c_int64)
    text_of = function("gguf_get_val_str", ctypes.c_char_p, handle, ctypes.c_int64)
    tensors = function("gguf_get_n_tensors", ctypes.c_int64, handle)
    free = function("gguf_free", None, handle)
    file = function("gguf_init_from_file", handle, ctypes.c_char_p, _InitParams)(
        os.fsencode(path), _InitParams(True, None)
    )
    if not file:
        return None

    def find(key: str) -> int:
        return int(find_key(file, key.encode()))

    def text(key: str) -> str:
        at = find(key)
        if at < 0 or type_of(file, at) != _STRING:  # else llama.cpp would end the process
            return ""
        return str(text_of(file, at).decode("utf-8", "replace"))

    try:
        found = _TYPES.get(text("general.type")) or _ARCHITECTURES.get(text("general.architecture"))
        found = found or next((what for key, what in _KEYS.items() if find(key) >= 0), None)
        # the first part of a split may have no weights either
        is_bare = not tensors(file) and find("split.count") < 0
        if not found and is_bare and find("tokenizer.ggml.model") >= 0:
            return _VOCABULARY
        return found
    finally:
        free(file)
