"""Bounds on the work of llguidance, and its judgement where no model is.

It comes with the extras `herder` and `worker`, so that nothing of the package imports this module
where a client reads messages.
"""

from __future__ import annotations

import functools

import llguidance


def limits() -> llguidance.LLParserLimits:
    """Return the bounds on the work for one grammar, beyond which llguidance gives up."""
    return llguidance.LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=100_000,
        max_items_in_row=20_000,  # as many as properties that may come next
        step_max_items=200_000,
        max_lexer_states=100_000,
    )


@functools.cache
def _bytes() -> llguidance.LLTokenizer:
    """Return a vocabulary of single bytes, with which grammars are judged where no model is."""
    return llguidance.LLTokenizer("byte")


def objection_to(grammar: str) -> str:
    """Return llguidance's objection to a grammar of its own; "" for none."""
    matcher = llguidance.LLMatcher(_bytes(), grammar, log_level=0, limits=limits())
    if not matcher.is_error():
        matcher.compute_bitmask()
    return str(matcher.get_error())
