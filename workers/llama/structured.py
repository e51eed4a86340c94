"""Answers of a form: a mask, by llguidance, of the tokens that may come next.

The library comes as an argument: only `model` imports llama_cpp. A mask of all tokens takes
microseconds as a rule, and milliseconds where an object has very many properties.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from typing import Any, Final

import llguidance
import numpy as np

from workers.errors import GrammarError
from workers.wire.guidance import limits
from workers.wire.regex_answers import RegexRefused, compile_choice, compile_regex
from workers.wire.schema_errors import SchemaRefused
from workers.wire.schemas import compile_schema

MAX_PIECE_BYTES: Final = 64 * 1024
"""Longer tokens are never chosen under a schema."""
_SPECIAL: Final = b"\xff"
"""Before a token that is no text: llguidance lets none of them into an answer."""


class GuidedConstraint:
    """A limit on the tokens of a sequence: its text follows a grammar of llguidance's.

    Args:
        tokenizer: llguidance's, of the model's vocabulary.
        size: how many tokens it has.
        ends: those that end the generation, which may come where the text is whole.
        grammar: as `compile_schema` or `compile_regex` returns it.

    Raises:
        GrammarError: llguidance refuses it with this vocabulary.
    """

    __slots__ = ("_ends", "_matcher", "_size")

    def __init__(self, tokenizer: Any, size: int, ends: frozenset[int], grammar: str) -> None:
        self._size = size
        self._ends = ends
        self._matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits())
        self._check()

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""
        if token in self._ends:
            return bool(self._matcher.is_accepting())
        return token >= 0 and bool(self._matcher.validate_tokens([token]))

    def apply(self, candidates: Any) -> bool:
        """Forbid all tokens that may not come next; False if none is left.

        Args:
            candidates: all tokens in the order of their numbers, with `logit`.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.zeros(self._size, bool)
        bits = np.unpackbits(mask, count=min(self._size, 8 * len(mask)), bitorder="little")
        allowed[: len(bits)] = bits
        allowed[list(self._ends)] = self._matcher.is_accepting()
        candidates["logit"][~allowed] = -np.inf
        return bool(np.isfinite(candidates["logit"]).any())

    def accept(self, token: int) -> None:
        """Go on behind a token that is allowed."""
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()

    def close(self) -> None:
        """Free it; Python does."""
        self._matcher = None

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError("What was asked of the answer is too complex to go on with.")


class Constraints:
    """Makes constraints for one vocabulary, which is read when the first is made.

    Safe among threads.

    Args:
        lib: the llama_cpp module.
        vocab: llama.cpp's vocabulary.
        size: how many tokens it has.
        ends: tokens that end the generation.
    """

    def __init__(self, lib: Any, vocab: Any, size: int, ends: Iterable[int]) -> None:
        self._lib = lib
        self._vocab = vocab
        self._size = size
        self._ends = frozenset(ends)
        self._tokenizer: Any = None
        self._lock = threading.Lock()

    def by_schema(self, schema: str) -> GuidedConstraint:
        """Return a constraint by a JSON schema, for one sequence.

        Raises:
            GrammarError: the schema cannot be followed; with keyword and path.
        """
        try:
            grammar = compile_schema(schema)
        except SchemaRefused as error:
            raise GrammarError(error.message, keyword=error.keyword, path=error.path) from error
        return self._make(grammar)

    def by_regex(self, pattern: str) -> GuidedConstraint:
        """Return a constraint by a regular expression that the whole text matches.

        Raises:
            GrammarError: it cannot be followed.
        """
        try:
            grammar = compile_regex(pattern)
        except RegexRefused as error:
            raise GrammarError(str(error)) from error
        return self._make(grammar)

    def by_choice(self, texts: Iterable[str]) -> GuidedConstraint:
        """Return a constraint by which the text is one of some."""
        return self._make(compile_choice(texts))

    def _make(self, grammar: str) -> GuidedConstraint:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = self._read()
        return GuidedConstraint(self._tokenizer, self._size, self._ends, grammar)

    def _read(self) -> Any:
        """Read the vocabulary: a second or so, and some 50 to 100 MiB, for 150,000 tokens."""
        if not self._ends:
            raise GrammarError(
                "The model has no token that ends an answer, as a form of it needs one."
            )
        lib = self._lib
        tokenize = ctypes.cast(lib.llama_cpp._lib.llama_tokenize, ctypes.c_void_p).value
        # as its own `llamacpp` module does, which marks other tokens
        return llguidance.LLTokenizer.from_llamacpp(
            tokens=[self._text(token) for token in range(self._size)],
            vocab_ptr=self._vocab,
            tokenize_fptr=tokenize,
            eos_token=sorted(self._ends),
        )

    def _text(self, token: int) -> bytes:
        """Return a token's text, marked as special where no answer may hold it."""
        if token in self._ends:
            return _SPECIAL + str(token).encode()
        lib = self._lib
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                break
            if -length > MAX_PIECE_BYTES:
                return _SPECIAL + str(token).encode()
            size = -length
        return bytes(buffer.raw[:length]) or _SPECIAL + str(token).encode()
