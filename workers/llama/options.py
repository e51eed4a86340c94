"""Options for loading a model and laying out its cache, from a worker's settings.

Apart from `workers/llama/model.py`, so that whoever only chooses loads no llama.cpp.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workers.settings import WorkerSettings

KvType = Literal["f16", "bf16", "q8_0", "f32"]
Weights = Literal["q8_0", "q4_0"]


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """Options for loading a model and laying out its cache.

    Attributes:
        path: the GGUF file.
        slots: orders decoded at once. 16 is the best on CPUs; above, attention over everybody's
            cells costs more than the fuller batch gives.
        context: tokens of one order, at most; None: what the model was trained for.
        cells: tokens of all orders together; more if one of `context` would not fit.
        prefixes: sequences more, for shared prefixes that outlive their order; as many of them as
            llama.cpp has beside the slots.
        unified: one cache for all sequences, whose cells can be shared, or a part for each, of
            `context` tokens if that is given, else its part of `cells`.
        threads: CPU threads; None: as many as this process may use.
        gpu_layers: layers on the accelerator; None: all, where llama.cpp was built with one.
        share: whether a prompt may take over what another one that begins alike has computed.
        kv_type: the type of the cache's numbers.
        flash_attention: `auto` leaves it to llama.cpp.
        batch_tokens: the most tokens in one decode call.
        step_tokens: the most prompt tokens computed beside running streams in one step.
        check_tensors: refuse weights that are not numbers; takes a moment.
        requantize: convert the weights at load to a type that may be faster here. It is no longer
            bit for bit the same model, and `facts.weights` says so.
        one_a_batch: compute each sequence in a batch of its own: some architectures are computed
            wrong otherwise (`trial`).
        trial: whether it is tried out before it is used (`trial`).
        off_by: what a trial found it to be off by, in standard deviations of its logits; 0 where
            that is no more than rounding.
        chat_template: the file of a Jinja chat template; None: the model's own.
        system: what becomes of a system message that the chat template does not show.
    """

    path: Path
    slots: int = 16
    context: int | None = None
    cells: int = 32768
    prefixes: int = 4
    unified: bool = False
    threads: int | None = None
    gpu_layers: int | None = None
    share: bool = True
    kv_type: KvType = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    batch_tokens: int = 512
    step_tokens: int = 512
    check_tensors: bool = True
    requantize: Weights | None = None
    one_a_batch: bool = False
    trial: bool = True
    off_by: float = 0.0
    chat_template: Path | None = None
    system: Literal["merge", "refuse"] = "merge"


def llama_options(settings: WorkerSettings) -> LlamaOptions:
    """Return the options with which a worker's settings have its model loaded."""
    return LlamaOptions(
        path=Path(settings.model_path),
        slots=settings.slots,
        context=settings.context or None,
        cells=settings.cells,
        prefixes=settings.prefixes,
        unified=settings.kv_layout == "unified",
        threads=settings.threads or None,
        gpu_layers=None if settings.gpu_layers < 0 else settings.gpu_layers,
        share=settings.share_prefixes,
        kv_type=settings.kv_type,
        flash_attention=settings.flash_attention,
        batch_tokens=settings.batch_tokens,
        step_tokens=settings.step_tokens,
        requantize=settings.requantize or None,
        trial=settings.model_trial,
        chat_template=Path(settings.chat_template) if settings.chat_template else None,
        system=settings.system,
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
