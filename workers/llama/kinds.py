"""The kind of a model: whether it generates text, and how its cache may be laid out and shared.

llama.cpp cuts and copies cells without an error where what comes of it is wrong, so that the kind
is asked first. Its rules were found by comparing logits of 148 architectures:

- A recurrent model, or a hybrid one, which has a state in some of its layers, cannot be cut back,
  nor can a beginning of it be given away: nothing is shared.
- Where layers attend to a sliding window, others take the cells that left it in a unified cache.
  So a beginning that was computed may be gone by the time that it is copied: nothing is shared
  there. With a part for each slot all is right, as long as the parts keep all cells (`swa_full`).
- Long rope factors are used for every token of every order where the cache's context, in a unified
  one all cells together, is more than what the model was trained for at first.

The library comes as an argument: only `model` imports it.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

from workers.errors import ModelError
from workers.llama.options import LlamaOptions

_DRAFTS = frozenset({"dflash", "eagle3", "gemma4-assistant"})
_LONG_ROPE = frozenset({"minicpm3", "phi3", "phimoe"})
"""Architectures that take long factors from the file without a key that says so."""
_STREAMS_ONLY = frozenset({"deepseek4"})
"""Architectures whose unified cache has room for all cells once for each sequence."""
_NO_POOLING = {"", "0"}  # no key, or llama.h: LLAMA_POOLING_TYPE_NONE
_RANK = "4"  # llama.h: LLAMA_POOLING_TYPE_RANK


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a loaded model.

    Attributes:
        architecture: as the file names it.
        trained: tokens that it was trained for.
        recurrent: whether it has nothing but a state for each sequence: cells cost nothing.
        hybrid: whether some of its layers have a state.
        window: tokens that its sliding window has; 0 without one.
        original: tokens above which long rope factors are used; 0 without such factors.
    """

    architecture: str
    trained: int
    recurrent: bool
    hybrid: bool
    window: int
    original: int


def metadata(lib: Any, model: Any, key: str) -> str:
    """Return a value of the file's metadata as text; empty without the key."""
    buffer = ctypes.create_string_buffer(256)
    length = lib.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace") if length >= 0 else ""


def find_kind(lib: Any, model: Any) -> Kind:
    """Ask llama.cpp, and the file, what kind of model it is."""
    name = metadata(lib, model, "general.architecture")
    long_rope = (
        name in _LONG_ROPE or metadata(lib, model, f"{name}.rope.scaling.type") == "longrope"
    )
    trained = int(lib.llama_model_n_ctx_train(model))
    original = metadata(lib, model, f"{name}.rope.scaling.original_context_length")
    return Kind(
        architecture=name,
        trained=trained,
        recurrent=bool(lib.llama_model_is_recurrent(model)),
        hybrid=bool(lib.llama_model_is_hybrid(model)),
        window=int(lib.llama_model_n_swa(model)),
        original=int(original or trained) if long_rope else 0,
    )


def other_purpose(lib: Any, model: Any) -> str | None:
    """Return the purpose of a model that is no generator; None for one that continues text.

    Asked of llama.cpp, which however takes models for generators that only embed: those have a
    pooling, or attention in both directions.
    """
    name = metadata(lib, model, "general.architecture")
    pooling = metadata(lib, model, f"{name}.pooling_type")
    if name in _DRAFTS:
        return "guesses tokens ahead for another model"
    if not lib.llama_vocab_type(lib.llama_model_get_vocab(model)):
        return "has no vocabulary"
    if lib.llama_model_is_diffusion(model):
        return "fills in a whole text by diffusion"
    if not lib.llama_model_has_decoder(model):
        return "only encodes texts for other models"
    if lib.llama_model_has_encoder(model):
        return "turns one whole text into another (an encoder and a decoder)"
    if pooling == _RANK or lib.llama_model_n_cls_out(model) > 1:
        return "ranks or classifies texts"
    if pooling not in _NO_POOLING or metadata(lib, model, f"{name}.attention.causal") == "false":
        return "makes embeddings of texts"
    return None


def purpose_without_cache(kind: Kind) -> str:
    """Return the purpose of a model without a cache, which cannot continue text."""
    if kind.architecture.startswith("wavtokenizer"):
        return "turns tokens into sound (a vocoder)"
    return "computes whole texts at once, for embeddings, and keeps nothing to continue from"


def settle(options: LlamaOptions, kind: Kind) -> tuple[LlamaOptions, list[str]]:
    """Return the options with which a model of this kind answers right.

    Returns:
        The options, and a sentence for each thing that is not as it was asked for.

    Raises:
        ModelError: an order could not be as long as `HERD_CONTEXT` says.
    """
    notes: list[str] = []
    if options.one_a_batch:
        notes.append(
            f"llama.cpp computes {kind.architecture} wrong where sequences share a batch, so that "
            "each has one of its own: orders take turns."
        )
    if options.off_by:
        notes.append(
            f"A prompt of {kind.architecture} in one batch gives logits that are off by "
            f"{options.off_by:.2f} standard deviations from those that it gives token by token, "
            "more than rounding was seen to do: look at some answers, and compare them with those "
            "of HERD_KV_TYPE=f32 and HERD_FLASH_ATTENTION=off."
        )
    if kind.recurrent or kind.hybrid:
        options = replace(options, share=False)
    if not options.unified:
        return options, notes
    if kind.recurrent or options.one_a_batch:  # whose cells cost nothing; which may never be full
        return replace(options, unified=False), notes
    if kind.window and not kind.hybrid and options.share:
        notes.append(
            f"{kind.architecture} attends to a window of {kind.window} tokens, so that prompts "
            "that begin alike are not shared with HERD_KV_LAYOUT=unified, where others may have "
            "taken their cells; with HERD_KV_LAYOUT=separate they are."
        )
        options = replace(options, share=False)
    wanted = min(options.context or 0, kind.trained)
    part = min(options.cells // options.slots, kind.trained)
    if kind.original and wanted <= kind.original < min(options.cells, kind.trained):
        why = f"has other rope factors for contexts above {kind.original} tokens"
        part = min(part, kind.original)
    elif kind.architecture in _STREAMS_ONLY:
        why = "needs all cells once for each slot in a unified cache"
    else:
        return options, notes
    if wanted > part:
        raise ModelError(
            f"{kind.architecture} {why}, so that HERD_KV_LAYOUT=unified cannot be used, and a "
            f"part of {part} tokens for each slot is less than HERD_CONTEXT={options.context}: "
            "set HERD_KV_LAYOUT=separate, or a lower HERD_CONTEXT."
        )
    notes.append(
        f"{kind.architecture} {why}, so that each slot has a part of the cache of its own, of "
        f"{wanted or part} tokens, though HERD_KV_LAYOUT is unified."
    )
    return replace(options, unified=False, context=wanted or part), notes
