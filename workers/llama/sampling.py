"""llama.cpp's samplers, one chain for each sequence that wants more than the likeliest token.

The library comes as an argument: only `model` imports it. What it takes for granted is checked
before it is called: that a chain has an end and no NULL in it, that a grammar parses within its
bounds, and that a token is one that the grammar allows. Other forms never reach it: `structured`.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from workers.engine.work import Sampler
from workers.errors import GrammarError, GrammarTooSlow, SamplingError, WorkerError
from workers.llama.grammar import check_grammar
from workers.wire import Sampling

PENALTY_TOKENS = 64
"""The last tokens that penalties look at; llama.cpp's own default."""
GRAMMAR_TOKEN_S = 0.25
"""Seconds that a grammar may take for each token, on average, with eight tokens' worth ahead."""
GRAMMAR_AHEAD_TOKENS = 8
RANDOM_SEED = 0xFFFFFFFF
"""Tells llama.cpp to draw a seed (LLAMA_DEFAULT_SEED)."""
MIN_TEMPERATURE = 1e-3
"""Smaller ones would overflow the division by it, and give the likeliest token anyway."""


class Constraint(Protocol):
    """A limit on the tokens that a sequence may choose."""

    def allows(self, token: int) -> bool:
        """Return whether a token may come next."""

    def apply(self, candidates: Any) -> bool:
        """Forbid all candidates that may not come next; False if none is left."""

    def accept(self, token: int) -> None:
        """Go on behind a token that is allowed."""

    def close(self) -> None:
        """Free it, once."""


class Guides(Protocol):
    """Makes what holds a sequence to the form of its answer; raises GrammarError."""

    def by_schema(self, schema: str) -> Constraint:
        """Return a constraint by a JSON schema."""

    def by_regex(self, pattern: str) -> Constraint:
        """Return a constraint by a regular expression."""

    def by_choice(self, texts: Sequence[str]) -> Constraint:
        """Return a constraint by which the text is one of these."""


class Chain(Sampler):
    """llama.cpp's samplers of one sequence, and its grammar or schema apart from them."""

    __slots__ = ("_lib", "chain", "grammar", "grammar_s", "tokens")

    def __init__(self, lib: Any, chain: Any, grammar: Constraint | None) -> None:
        self._lib = lib
        self.chain = chain
        self.grammar = grammar
        self.grammar_s = 0.0
        self.tokens = 0

    def close(self) -> None:
        """Free them, once; the chain frees the samplers that it holds."""
        chain, self.chain = self.chain, None
        grammar, self.grammar = self.grammar, None
        if chain:
            self._lib.llama_sampler_free(chain)
        if grammar is not None:
            grammar.close()


class _Grammar:
    """A GBNF grammar, by llama.cpp."""

    __slots__ = ("_lib", "_sampler")

    def __init__(self, lib: Any, sampler: Any) -> None:
        self._lib = lib
        self._sampler = sampler

    def allows(self, token: int) -> bool:
        if token < 0:
            return False
        lib = self._lib
        one = lib.llama_token_data(token, 1.0, 0.0)
        array = lib.llama_token_data_array(ctypes.pointer(one), 1, -1, False)
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return bool(np.isfinite(one.logit))

    def apply(self, candidates: Any) -> bool:
        lib = self._lib
        array = lib.llama_token_data_array(
            candidates.ctypes.data_as(lib.llama_token_data_p), len(candidates), -1, False
        )
        lib.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return bool(np.isfinite(candidates["logit"]).any())

    def accept(self, token: int) -> None:
        self._lib.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        sampler, self._sampler = self._sampler, None
        if sampler:
            self._lib.llama_sampler_free(sampler)


class Samplers:
    """Makes chains for one vocabulary and samples with them.

    Args:
        lib: the llama_cpp module.
        vocab: llama.cpp's vocabulary.
        size: how many tokens it has.
        ends: those that end a generation.
        guides: make what holds a sequence to a form other than a GBNF grammar.
        clock: seconds that only rise, to measure grammars with.
    """

    def __init__(
        self,
        lib: Any,
        vocab: Any,
        size: int,
        ends: frozenset[int],
        guides: Guides,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._lib = lib
        self._vocab = vocab
        self._size = size
        self._ends = ends
        self._guides = guides
        self._clock = clock
        self._ids = np.arange(size, dtype=np.int32)
        # the layout of llama_token_data
        self._candidates = np.zeros(size, dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])

    def make(self, sampling: Sampling, prompt: Sequence[int]) -> Chain | None:
        """Return the samplers of a sequence.

        None where the likeliest token is all that is asked for.

        Raises:
            SamplingError: a parameter that cannot be used; GrammarError among them.
        """
        bias = self._bias(sampling)
        grammar = self._constraint(sampling)
        penalised = (
            sampling.repeat_penalty != 1
            or sampling.frequency_penalty != 0
            or sampling.presence_penalty != 0
        )
        greedy = sampling.temperature <= 0
        if greedy and grammar is None and not penalised and bias is None:
            return None
        lib = self._lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        result = Chain(lib, chain, grammar)
        parts = []
        if bias is not None:
            parts.append(lib.llama_sampler_init_logit_bias(self._size, len(bias), bias))
        if penalised:
            parts.append(
                lib.llama_sampler_init_penalties(
                    self._size,
                    PENALTY_TOKENS,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            )
        parts += [lib.llama_sampler_init_greedy()] if greedy else self._random(sampling)
        if not all(parts):
            # a NULL in a chain would end the process at its first use
            for part in filter(None, parts):
                lib.llama_sampler_free(part)
            result.close()
            raise SamplingError("llama.cpp refused a sampling parameter.")
        for part in parts:
            lib.llama_sampler_chain_add(chain, part)
        if penalised:
            for token in prompt[-PENALTY_TOKENS:]:
                lib.llama_sampler_accept(chain, token)
        return result

    def _random(self, sampling: Sampling) -> list[Any]:
        """From the many to the few, then by chance: llama.cpp's own order."""
        lib = self._lib
        parts = []
        if sampling.top_k > 0:
            parts.append(lib.llama_sampler_init_top_k(min(sampling.top_k, self._size)))
        if sampling.top_p < 1:
            parts.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            parts.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
        parts.append(lib.llama_sampler_init_temp(max(sampling.temperature, MIN_TEMPERATURE)))
        seed = RANDOM_SEED if sampling.seed is None else sampling.seed
        parts.append(lib.llama_sampler_init_dist(seed))
        return parts

    def _bias(self, sampling: Sampling) -> Any:
        """Return the additions to logits, as llama.cpp takes them; None if there are none."""
        biases = dict(sampling.logit_bias)
        for token in biases:
            if not 0 <= token < self._size:
                raise SamplingError(
                    f"There is a bias for token {token}, but the vocabulary has only {self._size} "
                    "tokens.",
                    token=token,
                    vocab=self._size,
                )
        if sampling.ignore_eos:
            biases |= dict.fromkeys(self._ends, -math.inf)
        if not biases:
            return None
        array = (self._lib.llama_logit_bias * len(biases))()
        for place, (token, bias) in zip(array, biases.items(), strict=True):
            place.token, place.bias = token, bias
        return array

    def _constraint(self, sampling: Sampling) -> Constraint | None:
        if sampling.ignore_eos and sampling.forms:
            raise SamplingError(
                "ignore_eos cannot go on behind the end that the answer's form has."
            )
        if len(sampling.forms) > 1:
            raise GrammarError(f"{' and '.join(sampling.forms)} contradict each other.")
        if sampling.json_schema is not None:
            return self._guides.by_schema(sampling.json_schema)
        if sampling.regex is not None:
            return self._guides.by_regex(sampling.regex)
        if sampling.choice is not None:
            return self._guides.by_choice(sampling.choice)
        source = sampling.grammar
        if source is None:
            return None
        check_grammar(source)
        data = source.encode("utf-8", "replace")
        grammar = self._lib.llama_sampler_init_grammar(self._vocab, data, b"root")
        if not grammar:  # a NULL pointer object: neither None nor an exception
            raise GrammarError("llama.cpp does not accept the grammar.")
        return _Grammar(self._lib, grammar)

    def choose(self, logits: Any, chain: Chain) -> int | WorkerError:
        """Return the next token by a chain.

        Args:
            logits: one row, as many as the vocabulary has tokens.
            chain: the sequence's samplers; they remember the token.

        Returns:
            The token, or why this sequence cannot go on.
        """
        token = self._apply(logits, chain.chain)
        if chain.grammar is not None:
            began = self._clock()
            try:
                if not chain.grammar.allows(token):
                    # most choices are allowed, so that all tokens are judged only now
                    token = self._apply(logits, chain.chain, chain.grammar)
                    if not chain.grammar.allows(token):
                        return GrammarError("The grammar leads to a point where no token fits.")
                chain.grammar.accept(token)
            except GrammarError as error:
                return error
            chain.grammar_s += self._clock() - began
            if chain.grammar_s > GRAMMAR_TOKEN_S * (chain.tokens + GRAMMAR_AHEAD_TOKENS):
                return GrammarTooSlow(
                    f"The grammar is too slow: it took {chain.grammar_s:.1f} s for "
                    f"{chain.tokens + 1} tokens.",
                    tokens=chain.tokens + 1,
                    took_ms=round(chain.grammar_s * 1000),
                )
        if token < 0:
            return SamplingError("The sampling parameters leave no token to choose.")
        chain.tokens += 1
        self._lib.llama_sampler_accept(chain.chain, token)
        return token

    def _apply(self, logits: Any, chain: Any, grammar: Constraint | None = None) -> int:
        """Run samplers over all tokens; returns the chosen one, or -1 for none."""
        lib = self._lib
        self._candidates["id"] = self._ids  # samplers sort in place
        self._candidates["logit"] = logits
        if grammar is not None and not grammar.apply(self._candidates):
            return -1
        array = lib.llama_token_data_array(
            self._candidates.ctypes.data_as(lib.llama_token_data_p), self._size, -1, False
        )
        lib.llama_sampler_apply(chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            return -1
        return int(array.data[array.selected].id)
