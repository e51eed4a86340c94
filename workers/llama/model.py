"""llama.cpp behind the engine's `Model`: the only module that imports llama_cpp.

llama.cpp's asserts end the process, so that every size, id and grammar is checked before it gets
there. Nothing may fork once this module has decoded: the child would hang in its first decode.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from workers.engine.sequences import BatchRow
from workers.engine.work import GenerationRequest, ModelFacts, Prepared, Sampler
from workers.errors import DecodeFailed, EmptyPrompt, ModelError, WorkerError
from workers.llama.complaints import Complaints
from workers.llama.gguf import load, no_generator
from workers.llama.kinds import Kind, find_kind, metadata, purpose_without_cache, settle
from workers.llama.options import KvType, LlamaOptions, cores
from workers.llama.sampling import Chain, Samplers
from workers.llama.structured import Constraints
from workers.llama.vocabulary import Vocabulary

# OpenMP's threads spin at every barrier of a graph while they wait for each other. Where anything
# else runs on a core, the one is waited for and the other spins in its way: 16 slots fell from 17
# to between 0.5 and 3 tokens/s a slot beside one busy process on two cores, and only to 7 with
# short spins. On an idle machine 1,000, 10,000, 100,000 and libgomp's own 300,000 came to the same
# within the noise (SmolLM2-135M, 2 cores, 3 rounds). libgomp reads this once, when llama_cpp loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
from llama_cpp._ggml import libggml
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

lib: Any = llama_cpp
"""The library's C functions; untyped here, because its own types describe only part of them."""

_GGML_GPUS = (1, 2)  # ggml-backend.h: with memory of their own, and with the host's
_GGML_TYPE_BF16 = 30  # ggml.h; llama_cpp does not name it
_KV_TYPES: dict[KvType, int] = {
    "f32": lib.GGML_TYPE_F32,
    "f16": lib.GGML_TYPE_F16,
    "bf16": _GGML_TYPE_BF16,
    "q8_0": lib.GGML_TYPE_Q8_0,
}
_MAX_CONTEXT = 2**24
"""Tokens of an order, as a worker may announce them (`wire.messages.Announcement`)."""
_MAX_CELLS = 2**30
"""Cells of a recurrent model, which are but a number; llama.cpp counts them in 32 bits."""
_FLASH = {"auto": -1, "off": 0, "on": 1}
# Set after the import above, which sets a callback of its own that prints.
_complaints = Complaints(lib)


class LlamaModel:
    """A GGUF model and the one context that decodes on it.

    Raises:
        ModelFileError: the file is not a sound GGUF model.
        ModelError: there is no memory for it, or it cannot be used with these options.
        SettingsError: the file of its chat template cannot be used.
    """

    def __init__(self, options: LlamaOptions) -> None:
        self._ctx: Any = None
        self._model = load(lib, libggml, options, _complaints)
        try:
            kind = find_kind(lib, self._model)
            options, notes = settle(options, kind)
            self._vocab = Vocabulary(lib, self._model, Jinja2ChatFormatter, options)
            self._ctx = self._open(options, kind)
            cache_bytes = _complaints.cache_bytes
            self._memory = self._find_memory(options, kind)
            self._facts = self._find_facts(options, kind, cache_bytes, notes)
        except BaseException:
            self.close()
            raise
        self._unified = options.unified
        self._sequences = int(lib.llama_n_seq_max(self._ctx))
        self._past = [0] * self._sequences
        self._make_batch(self._facts.batch_tokens)
        guides = Constraints(lib, self._vocab.handle, self._vocab.size, self._vocab.ends)
        self._samplers = Samplers(
            lib, self._vocab.handle, self._vocab.size, self._vocab.ends, guides
        )
        self._outputs = 0
        self._kept: Any = None
        self.one_a_batch = options.one_a_batch
        """True to compute each sequence in a batch of its own."""

    @property
    def facts(self) -> ModelFacts:
        """What was loaded."""
        return self._facts

    # -- loading -----------------------------------------------------------------------------

    def _open(self, options: LlamaOptions, kind: Kind) -> Any:
        context = min(options.context or 0, kind.trained)
        most = int(lib.llama_max_parallel_sequences())
        if not 1 <= options.slots <= most:
            raise ModelError(f"llama.cpp supports at most {most} slots, not {options.slots}.")
        sequences = options.slots + _prefixes(options)
        params = lib.llama_context_default_params()
        # in a unified cache an order may be as long as all cells together, but no longer
        if options.unified:
            params.n_ctx = max(options.cells, context, 256)
        elif kind.recurrent:  # whose cells cost nothing
            params.n_ctx = min(context or kind.trained, _MAX_CELLS // sequences) * sequences
        else:
            params.n_ctx = (context or min(options.cells // sequences, kind.trained)) * sequences
        params.n_batch = params.n_ubatch = max(options.batch_tokens, sequences)
        params.n_seq_max = sequences
        params.n_outputs_max = sequences  # a row of logits for each, not for each prompt token
        params.n_threads = params.n_threads_batch = options.threads or cores()
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = _KV_TYPES[options.kv_type]
        params.kv_unified = options.unified
        # cells that left a window are needed only by who goes back, and by who shares
        params.swa_full = options.share
        _complaints.forget()
        ctx = lib.llama_init_from_model(self._model, params)
        if not ctx:
            reason = _complaints.first()
            if _complaints.of_memory:
                raise ModelError(
                    f"A cache of {params.n_ctx} cells cannot be allocated ({reason}); a smaller "
                    "HERD_SLOTS or HERD_CELLS needs less memory."
                )
            raise ModelError(
                f"{kind.architecture} cannot be run with these settings ({reason}); "
                f"HERD_KV_TYPE is {options.kv_type}, HERD_FLASH_ATTENTION "
                f"{options.flash_attention}."
            )
        return ctx

    def _find_memory(self, options: LlamaOptions, kind: Kind) -> Any:
        memory = lib.llama_get_memory(self._ctx)
        if not memory:
            raise no_generator(options.path, kind.architecture, purpose_without_cache(kind))
        return memory

    def _find_facts(
        self, options: LlamaOptions, kind: Kind, cache_bytes: int, notes: Sequence[str]
    ) -> ModelFacts:
        model = self._model
        context = min(int(lib.llama_n_ctx_seq(self._ctx)), kind.trained, _MAX_CONTEXT)
        return ModelFacts(
            name=metadata(lib, model, "general.name") or options.path.stem,
            context=min(context, options.context or context),
            slots=options.slots,
            vocab=self._vocab.size,
            cells=int(lib.llama_n_ctx(self._ctx)),
            prefixes=_prefixes(options),
            batch_tokens=int(lib.llama_n_batch(self._ctx)),  # llama.cpp cuts it to the context
            step_tokens=options.step_tokens,
            can_share=options.share,
            separate=not options.unified,
            weights=options.requantize or "as in the file",
            size_bytes=int(lib.llama_model_size(model)),
            kv_bytes=cache_bytes,
            threads=int(lib.llama_n_threads_batch(self._ctx)),
            gpu=gpu_name() if options.gpu_layers != 0 else None,
            system=lib.llama_print_system_info().decode("utf-8", "replace").strip(" |"),
            template=self._vocab.template,
            notes=tuple(notes),
        )

    def _make_batch(self, size: int) -> None:
        """Arrays that llama.cpp reads in place: no Python object for each token."""
        self._token = np.zeros(size, np.int32)
        self._pos = np.zeros(size, np.int32)
        self._out = np.zeros(size, np.int8)
        self._seq = np.zeros(size, np.int32)
        self._n_seq = np.ones(size, np.int32)
        # one sequence a token: a pointer to its place in _seq
        self._seq_ptr = self._seq.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        batch = lib.llama_batch()
        kinds = dict(lib.llama_batch._fields_)
        for name, values in (
            ("token", self._token),
            ("pos", self._pos),
            ("n_seq_id", self._n_seq),
            ("seq_id", self._seq_ptr),
            ("logits", self._out),
        ):
            setattr(batch, name, ctypes.cast(values.ctypes.data, kinds[name]))
        self._batch = batch

    # -- prompts -----------------------------------------------------------------------------

    def prepare(self, work: GenerationRequest) -> Prepared:
        """Format and tokenise a prompt and make its sampler; any thread may call this."""
        tokens, thinking = self._vocab.encode(work)
        if not tokens:
            raise EmptyPrompt("The prompt has no tokens.")
        return Prepared(tokens, self._samplers.make(work.sampling, tokens), thinking)

    def count_tokens(self, work: GenerationRequest) -> int:
        """Return the number of tokens of a prompt; any thread may call this."""
        count = len(self._vocab.encode(work).tokens)
        if not count:
            raise EmptyPrompt("The prompt has no tokens.")
        return count

    def tokenize(self, text: str, *, template: bool, begin: bool = False) -> list[int]:
        """See `Vocabulary.tokenize`."""
        return self._vocab.tokenize(text, template=template, begin=begin)

    # -- the step ----------------------------------------------------------------------------

    def decode(self, rows: Sequence[BatchRow]) -> bool:
        """Compute the cells of these rows; False if the cache has no room for them."""
        self._kept = None
        if not self.one_a_batch or len(rows) < 2:
            return self._compute(rows)
        kept = []
        for number, row in enumerate(rows):
            if not self._compute([row]):
                if number == 0:
                    return False
                raise DecodeFailed("A part of the cache is full: a bug here.")
            if row.output:
                kept.append(self.logits(1).copy())
        self._outputs = len(kept)
        self._kept = np.concatenate(kept) if kept else None
        return True

    def _compute(self, rows: Sequence[BatchRow]) -> bool:
        count = 0
        outputs = 0
        for slot, start, tokens, output, _ in rows:
            length = len(tokens)
            end = count + length
            if end > len(self._token) or not 0 <= slot < self._sequences or length < 1:
                raise DecodeFailed(f"A batch has {end} tokens with sequence {slot}: a bug here.")
            if self._past[slot] != start:
                raise DecodeFailed(f"Position {start} follows {self._past[slot]}: a bug here.")
            if length == 1:
                self._token[count] = tokens[0]
                self._pos[count] = start
            else:
                self._token[count:end] = tokens
                self._pos[count:end] = np.arange(start, start + length)
            self._seq[count:end] = slot
            self._out[count:end] = 0
            if output:
                self._out[end - 1] = 1
                outputs += 1
            count = end
        batch = self._token[:count]
        if count == 0 or batch.min() < 0 or batch.max() >= self._vocab.size:
            raise DecodeFailed(
                "The batch is empty, or a token is outside the vocabulary: a bug here."
            )
        self._batch.n_tokens = count
        code = lib.llama_decode(self._ctx, self._batch)
        if code == 1:
            return False
        if code != 0:
            raise DecodeFailed(f"llama_decode returned {code} ({_complaints.last()}).", code=code)
        for row in rows:
            self._past[row.slot] = row.start + len(row.tokens)
        self._outputs = outputs
        return True

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int | WorkerError | None]:
        """Return the next token for each row with output of the last decode."""
        if len(samplers) != self._outputs:
            raise DecodeFailed(
                f"There are {len(samplers)} samplers for {self._outputs} rows: a bug here."
            )
        logits = self.logits(len(samplers))
        best: list[int] = logits.argmax(axis=1).tolist()
        if not np.isfinite(logits[range(len(best)), best]).all():
            raise DecodeFailed("The model's logits are not numbers.")
        return [
            self._samplers.choose(logits[row], sampler) if isinstance(sampler, Chain) else best[row]
            for row, sampler in enumerate(samplers)
        ]

    def logits(self, rows: int) -> Any:
        """Return the logits of the last decode's rows with output: a view, good until the next."""
        if self._kept is not None:
            return self._kept
        pointer = lib.llama_get_logits(self._ctx)
        if not pointer:
            raise DecodeFailed("llama.cpp returned no logits.")
        return np.ctypeslib.as_array(pointer, (rows, self._vocab.size))

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; control tokens have none."""
        return self._vocab.piece(token)

    def is_end(self, token: int) -> bool:
        """Return whether the token ends the generation."""
        return token in self._vocab.ends

    # -- the cache ---------------------------------------------------------------------------

    def keep(self, slot: int, length: int) -> None:
        """Drop the cells of a sequence from position `length` on."""
        if not 0 <= slot < self._sequences:
            raise DecodeFailed(f"There is no sequence {slot}: a bug here.")
        if length >= self._past[slot]:
            return
        if not lib.llama_memory_seq_rm(self._memory, slot, length or -1, -1):
            raise DecodeFailed(f"Sequence {slot} cannot be cut to {length} cells.")
        self._past[slot] = length

    def copy(self, source: int, target: int, length: int) -> None:
        """Give the first `length` cells of a sequence to another, which must be empty."""
        sound = 0 <= source < self._sequences and 0 <= target < self._sequences
        if not sound or self._past[target] or not 0 < length <= self._past[source]:
            raise DecodeFailed(
                f"{length} cells cannot be copied from {source} to {target}: a bug here."
            )
        if self._unified:
            lib.llama_memory_seq_cp(self._memory, source, target, 0, length)
        else:  # between separate streams llama.cpp copies the whole or aborts
            lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self._past[target] = self._past[source]
            self.keep(target, length)
        self._past[target] = length

    def close(self) -> None:
        """Free the context, then the model; samplers were closed before."""
        ctx, self._ctx = self._ctx, None
        model, self._model = self._model, None
        if ctx:
            lib.llama_free(ctx)
        if model:
            lib.llama_model_free(model)


def _prefixes(options: LlamaOptions) -> int:
    """Sequences of the cache beside the slots."""
    if not (options.unified and options.share):
        return 0
    return max(0, min(options.prefixes, int(lib.llama_max_parallel_sequences()) - options.slots))


def gpu_name() -> str | None:
    """Return llama.cpp's name of the first GPU that it would use; None if built without."""
    if not lib.llama_supports_gpu_offload():
        return None
    ggml: Any = libggml
    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    ggml.ggml_backend_dev_description.restype = ctypes.c_char_p
    for number in range(ggml.ggml_backend_dev_count()):
        device = ctypes.c_void_p(ggml.ggml_backend_dev_get(ctypes.c_size_t(number)))
        if ggml.ggml_backend_dev_type(device) in _GGML_GPUS:
            return str(ggml.ggml_backend_dev_description(device).decode("utf-8", "replace"))
    return None
