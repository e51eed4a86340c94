"""llama.cpp behind the engine's `Model`: the only module that imports llama_cpp.

llama.cpp's asserts end the process, so that every size, id and grammar is checked before it gets
there. Nothing may fork once this module has decoded: the child would hang in its first decode.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from workers import chat
from workers.errors import (
    DecodeFailed,
    EmptyPrompt,
    ModelError,
    ModelFileError,
    TemplateError,
    WorkerError,
)
from workers.sampling import Chain, Samplers
from workers.scheduler import Row
from workers.settings import WorkerSettings
from workers.work import ModelFacts, Prepared, Sampler, Work

# OpenMP's threads spin at every barrier of a graph while they wait for each other. Where anything
# else runs on a core, the one is waited for and the other spins in its way: 16 slots fell from 17
# to between 0.5 and 3 tokens/s a slot beside one busy process on two cores, and only to 7 with
# short spins. On an idle machine 1,000, 10,000, 100,000 and libgomp's own 300,000 came to the same
# within the noise (SmolLM2-135M, 2 cores, 3 rounds). libgomp reads this once, when llama_cpp loads.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp
from llama_cpp._ggml import libggml
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from llama_cpp.llama_grammar import json_schema_to_gbnf

lib: Any = llama_cpp
"""The library's C functions; untyped here, because its own types describe only part of them."""

KvType = Literal["f16", "bf16", "q8_0", "f32"]
_GGML_GPUS = (1, 2)  # ggml-backend.h: with memory of their own, and with the host's
_GGML_TYPE_BF16 = 30  # ggml.h; llama_cpp does not name it
_KV_TYPES: dict[KvType, tuple[int, float]] = {
    "f32": (lib.GGML_TYPE_F32, 4.0),
    "f16": (lib.GGML_TYPE_F16, 2.0),
    "bf16": (_GGML_TYPE_BF16, 2.0),
    "q8_0": (lib.GGML_TYPE_Q8_0, 34 / 32),
}
Weights = Literal["q8_0", "q4_0"]
_FTYPES: dict[Weights, int] = {
    "q8_0": lib.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": lib.LLAMA_FTYPE_MOSTLY_Q4_0,
}
_FLASH = {"auto": -1, "off": 0, "on": 1}
_reasons = threading.local()


def _on_log(level: int, text: bytes, _user: object) -> None:
    """Keep what llama.cpp complained about last, for the sentence of an error.

    It must never raise.
    """
    if level in (3, 4):
        lines: list[str] = _reasons.__dict__.setdefault("lines", [])
        lines.append(text.decode("utf-8", "replace").strip())
        del lines[:-8]


# A global for as long as the process lives: the library calls it at any time. Set after the import
# above, which sets one of its own that prints.
_LOG_CALLBACK = lib.llama_log_callback(_on_log)
lib.llama_log_set(_LOG_CALLBACK, ctypes.c_void_p(0))


def _take_reason() -> str:
    """The last complaint on this thread, and forget it."""
    lines: list[str] = _reasons.__dict__.pop("lines", [])
    return next((line for line in reversed(lines) if line), "llama.cpp gave no reason")[:500]


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How to load a model and lay out its cache.

    Attributes:
        path: the GGUF file.
        slots: orders decoded at once. 16 is the best on CPUs; above, attention over everybody's
            cells costs more than the fuller batch gives.
        context: tokens of one order, at most; None: what the model was trained for.
        cells: tokens of all orders together; more if one of `context` would not fit.
        donors: sequences more, for shared prefixes that outlive their order; as many of them as
            llama.cpp has beside the slots.
        unified: one cache for all sequences, whose cells can be shared, or a part for each, of
            `context` tokens if that is given, else its part of `cells`.
        threads: CPU threads; None: as many as this process may use.
        gpu_layers: layers on the accelerator; None: all, where llama.cpp was built with one.
        kv_type: the type of the cache's numbers.
        flash_attention: `auto` leaves it to llama.cpp.
        batch_tokens: the most tokens in one decode call.
        step_tokens: the most prompt tokens computed beside running streams in one step.
        check_tensors: refuse weights that are not numbers; takes a moment.
        requantize: convert the weights at load to a type that may be faster here. It is no longer
            bit for bit the same model, and `facts.weights` says so.
    """

    path: Path
    slots: int = 16
    context: int | None = None
    cells: int = 32768
    donors: int = 4
    unified: bool = False
    threads: int | None = None
    gpu_layers: int | None = None
    kv_type: KvType = "f16"
    flash_attention: Literal["auto", "on", "off"] = "auto"
    batch_tokens: int = 512
    step_tokens: int = 512
    check_tensors: bool = True
    requantize: Weights | None = None


def llama_options(settings: WorkerSettings) -> LlamaOptions:
    """How the settings of a worker have its model loaded."""
    return LlamaOptions(
        path=Path(settings.model_path),
        slots=settings.slots,
        context=settings.context or None,
        cells=settings.cells,
        donors=settings.prefixes,
        unified=settings.kv_layout == "unified",
        threads=settings.threads or None,
        gpu_layers=None if settings.gpu_layers < 0 else settings.gpu_layers,
        kv_type=settings.kv_type,
        flash_attention=settings.flash_attention,
        batch_tokens=settings.batch_tokens,
        step_tokens=settings.step_tokens,
        requantize=settings.requantize or None,
    )


class LlamaModel:
    """A GGUF model and the one context that decodes on it.

    Raises:
        ModelFileError: the file is no sound GGUF model.
        ModelError: there is no memory for it, or it cannot be used with these options.
    """

    def __init__(self, options: LlamaOptions) -> None:
        _check_file(options.path)
        self._ctx: Any = None
        self._model = self._load(options)
        try:
            self._vocab = lib.llama_model_get_vocab(self._model)
            self._vocab_size = int(lib.llama_vocab_n_tokens(self._vocab))
            self._ctx = self._open(options)
            self._memory = lib.llama_get_memory(self._ctx)
            self._read_vocab()
            self._template = self._formatter()
            self._facts = self._find_facts(options)
        except BaseException:
            self.close()
            raise
        self._unified = options.unified
        self._sequences = int(lib.llama_n_seq_max(self._ctx))
        self._past = [0] * self._sequences
        self._pieces: dict[int, bytes] = {}
        self._make_batch(self._facts.batch_tokens)
        self._samplers = Samplers(lib, self._vocab, self._vocab_size, json_schema_to_gbnf)
        self._outputs = 0

    @property
    def facts(self) -> ModelFacts:
        """What was loaded."""
        return self._facts

    # -- loading -----------------------------------------------------------------------------

    def _load(self, options: LlamaOptions) -> Any:
        layers = options.gpu_layers
        if layers is None:
            layers = -1 if lib.llama_supports_gpu_offload() else 0
        model = _load_file(options.path, layers, check=options.check_tensors)
        if not lib.llama_model_has_decoder(model) or lib.llama_model_has_encoder(model):
            lib.llama_model_free(model)
            raise ModelFileError(f"{options.path} holds no model that continues text")
        if options.requantize is None:
            return model
        lib.llama_model_free(model)  # it was sound; converting one that is not could end us
        with tempfile.TemporaryDirectory(prefix="llama-herder-") as folder:
            converted = Path(folder) / f"{options.requantize}.gguf"
            params = lib.llama_model_quantize_default_params()
            params.ftype = _FTYPES[options.requantize]
            params.allow_requantize = True
            params.nthread = options.threads or cores()
            _take_reason()
            source, target = os.fsencode(options.path), os.fsencode(converted)
            if lib.llama_model_quantize(source, target, ctypes.byref(params)) != 0:
                raise ModelError(
                    f"cannot convert {options.path} to {options.requantize}: {_take_reason()}"
                )
            # mapped into memory, it stays there when the folder goes
            return _load_file(converted, layers, check=False)

    def _open(self, options: LlamaOptions) -> Any:
        trained = int(lib.llama_model_n_ctx_train(self._model))
        context = min(options.context or 0, trained)
        most = int(lib.llama_max_parallel_sequences())
        if not 1 <= options.slots <= most:
            raise ModelError(f"{options.slots} slots asked for; llama.cpp has at most {most}")
        sequences = options.slots + _donors(options)
        params = lib.llama_context_default_params()
        # in a unified cache an order may be as long as all cells together, but no longer
        if options.unified:
            params.n_ctx = max(options.cells, context, 256)
        else:
            params.n_ctx = (context or min(options.cells // sequences, trained)) * sequences
        params.n_batch = params.n_ubatch = max(options.batch_tokens, sequences)
        params.n_seq_max = sequences
        params.n_outputs_max = sequences  # a row of logits for each, not for each prompt token
        params.n_threads = params.n_threads_batch = options.threads or cores()
        params.flash_attn_type = _FLASH[options.flash_attention]
        params.type_k = params.type_v = _KV_TYPES[options.kv_type][0]
        params.kv_unified = options.unified
        _take_reason()
        ctx = lib.llama_init_from_model(self._model, params)
        if not ctx:
            raise ModelError(
                f"cannot make a cache of {params.n_ctx} cells: {_take_reason()}; smaller "
                f"HERD_SLOTS or HERD_CELLS need less memory"
            )
        return ctx

    def _read_vocab(self) -> None:
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        texts = []
        ends = set()
        for token in range(self._vocab_size):
            if lib.llama_vocab_get_attr(self._vocab, token) & control:
                texts.append(self._token_text(token))
            if lib.llama_vocab_is_eog(self._vocab, token):
                ends.add(token)
        self._control = chat.control_pattern(texts)
        self._ends = frozenset(ends)

    def _formatter(self) -> Jinja2ChatFormatter | None:
        template = lib.llama_model_chat_template(self._model, None)
        if not template:
            return None
        bos = lib.llama_vocab_bos(self._vocab)
        eos = lib.llama_vocab_eos(self._vocab)
        try:
            return Jinja2ChatFormatter(
                template.decode("utf-8", "replace"),
                eos_token=self._token_text(eos),
                bos_token=self._token_text(bos),
            )
        except Exception as error:
            raise ModelError(f"the model's chat template does not parse: {error}") from error

    def _find_facts(self, options: LlamaOptions) -> ModelFacts:
        model = self._model
        cells = int(lib.llama_n_ctx(self._ctx))
        context = min(int(lib.llama_n_ctx_seq(self._ctx)), int(lib.llama_model_n_ctx_train(model)))
        heads = max(1, lib.llama_model_n_head(model))
        values = lib.llama_model_n_embd(model) // heads * lib.llama_model_n_head_kv(model)
        kv_numbers = 2 * values * lib.llama_model_n_layer(model) * cells
        stateful = lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model)
        return ModelFacts(
            name=self._meta("general.name") or options.path.stem,
            context=min(context, options.context or context),
            slots=options.slots,
            vocab=self._vocab_size,
            cells=cells,
            donors=0 if stateful else _donors(options),
            batch_tokens=int(lib.llama_n_batch(self._ctx)),  # llama.cpp cuts it to the context
            step_tokens=options.step_tokens,
            can_share=not stateful,
            separate=not options.unified,
            weights=options.requantize or "as in the file",
            size_bytes=int(lib.llama_model_size(model)),
            kv_bytes=int(kv_numbers * _KV_TYPES[options.kv_type][1]),
            threads=int(lib.llama_n_threads_batch(self._ctx)),
            gpu=gpu_name() if options.gpu_layers != 0 else None,
            system=lib.llama_print_system_info().decode("utf-8", "replace").strip(" |"),
        )

    def _meta(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else ""

    def _token_text(self, token: int) -> str:
        if not 0 <= token < self._vocab_size:
            return ""  # the model has no such token; asking for it would abort
        text = lib.llama_vocab_get_text(self._vocab, token)
        return text.decode("utf-8", "replace") if text else ""

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

    def prepare(self, work: Work) -> Prepared:
        """Format and tokenise a prompt and make its sampler; any thread may call this."""
        tokens = self._encode(work)
        if not tokens:
            raise EmptyPrompt("the prompt has no tokens")
        return Prepared(tokens, self._samplers.make(work.sampling, tokens))

    def _encode(self, work: Work) -> list[int]:
        if work.messages is None and (work.raw or self._template is None):
            return self.tokenize(work.prompt or "", template=False, begin=True)
        if work.messages is None:
            turns = [{"role": "user", "content": work.prompt or ""}]
        else:
            turns = [{"role": m.role, "content": m.content} for m in work.messages]
        tokens: list[int] = []
        known: dict[str, list[int]] = {}  # a prompt may be made of the same few, 100,000 times
        for text, template in chat.render(turns, self._render, self._control):
            if template:
                tokens += self.tokenize(text, template=True)
                continue
            if text not in known:
                known[text] = self.tokenize(text, template=False)
            tokens += known[text]
        # most templates write it themselves; for the others the model's own setting counts
        bos = lib.llama_vocab_bos(self._vocab)
        if lib.llama_vocab_get_add_bos(self._vocab) and bos >= 0 and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _render(self, turns: list[chat.Turn]) -> str:
        if self._template is None:
            raise TemplateError("the model has no chat template; send a prompt instead of messages")
        try:
            return str(self._template(messages=cast(Any, turns)).prompt)
        except Exception as error:
            # the sandbox, the template's own raise_exception, or a bug in the template
            raise TemplateError(f"the model's chat template refused: {error}"[:500]) from error

    def tokenize(self, text: str, *, template: bool, begin: bool = False) -> list[int]:
        """Text to tokens.

        Args:
            text: what a user or the template wrote.
            template: whether control tokens in it are meant as such.
            begin: whether to begin as the model was trained to, with its own first token.
        """
        data = text.encode("utf-8", "replace")
        buffer = np.empty(len(data) + 8, np.int32)
        pointer = buffer.ctypes.data_as(lib.llama_token_p)
        count = lib.llama_tokenize(
            self._vocab, data, len(data), pointer, len(buffer), begin, template
        )
        if not 0 <= count <= len(buffer):
            raise WorkerError(f"the prompt came to {count} tokens of {len(buffer)} expected")
        found: list[int] = buffer[:count].tolist()
        return found

    # -- the step ----------------------------------------------------------------------------

    def decode(self, rows: Sequence[Row]) -> bool:
        """Compute the cells of these rows; False if the cache has no room for them."""
        count = 0
        outputs = 0
        for slot, start, tokens, output, _ in rows:
            length = len(tokens)
            end = count + length
            if end > len(self._token) or not 0 <= slot < self._sequences or length < 1:
                raise DecodeFailed(f"a batch of {end} tokens with sequence {slot}: a bug here")
            if self._past[slot] != start:
                raise DecodeFailed(f"position {start} after {self._past[slot]}: a bug here")
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
        if count == 0 or batch.min() < 0 or batch.max() >= self._vocab_size:
            raise DecodeFailed("an empty batch, or a token outside the vocabulary: a bug here")
        self._batch.n_tokens = count
        code = lib.llama_decode(self._ctx, self._batch)
        if code == 1:
            return False
        if code != 0:
            raise DecodeFailed(f"llama_decode gave {code}: {_take_reason()}", code=code)
        for row in rows:
            self._past[row.slot] = row.start + len(row.tokens)
        self._outputs = outputs
        return True

    def sample(self, samplers: Sequence[Sampler | None]) -> list[int | WorkerError | None]:
        """The next token for each row with output of the last decode."""
        if len(samplers) != self._outputs:
            raise DecodeFailed(f"{len(samplers)} samplers for {self._outputs} rows: a bug here")
        pointer = lib.llama_get_logits(self._ctx)
        if not pointer:
            raise DecodeFailed("llama.cpp has no logits")
        # a view, good until the next decode
        logits = np.ctypeslib.as_array(pointer, (len(samplers), self._vocab_size))
        best: list[int] = logits.argmax(axis=1).tolist()
        if not np.isfinite(logits[range(len(best)), best]).all():
            raise DecodeFailed("the model computes no numbers")
        return [
            self._samplers.choose(logits[row], sampler) if isinstance(sampler, Chain) else best[row]
            for row, sampler in enumerate(samplers)
        ]

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        piece = self._pieces.get(token)
        if piece is None:
            if not 0 <= token < self._vocab_size:
                raise DecodeFailed(f"token {token} outside the vocabulary: a bug here")
            size = 128
            while True:
                buffer = ctypes.create_string_buffer(size)
                length = lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
                if length >= 0:
                    break
                size = -length
            piece = self._pieces[token] = buffer.raw[:length]
        return piece

    def is_end(self, token: int) -> bool:
        """Whether the token ends the generation."""
        return token in self._ends

    # -- the cache ---------------------------------------------------------------------------

    def keep(self, slot: int, length: int) -> None:
        """Drop the cells of a sequence from position `length` on."""
        if not 0 <= slot < self._sequences:
            raise DecodeFailed(f"no sequence {slot}: a bug here")
        if length >= self._past[slot]:
            return
        if not lib.llama_memory_seq_rm(self._memory, slot, length or -1, -1):
            raise DecodeFailed(f"cannot cut sequence {slot} to {length} cells")
        self._past[slot] = length

    def copy(self, source: int, target: int, length: int) -> None:
        """Give the first `length` cells of a sequence to another, which must be empty."""
        sound = 0 <= source < self._sequences and 0 <= target < self._sequences
        if not sound or self._past[target] or not 0 < length <= self._past[source]:
            raise DecodeFailed(f"cannot copy {length} cells from {source} to {target}: a bug here")
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


def _donors(options: LlamaOptions) -> int:
    """Sequences of the cache beside the slots."""
    if not options.unified:
        return 0
    return max(0, min(options.donors, int(lib.llama_max_parallel_sequences()) - options.slots))


def _load_file(path: Path, gpu_layers: int, *, check: bool) -> Any:
    params = lib.llama_model_default_params()
    params.check_tensors = check
    params.n_gpu_layers = gpu_layers
    _take_reason()
    model = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise ModelFileError(f"cannot load {path}: {_take_reason()}")
    return model


def gpu_name() -> str | None:
    """What llama.cpp calls the first GPU that it would use; None if it was built without."""
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_file(path: Path) -> None:
    """Refuse early what llama.cpp would only refuse with a riddle."""
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a GGUF file")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    if magic != b"GGUF":
        raise ModelFileError(f"{path} is not a GGUF file")
