"""The text of an ended order, which is kept until it is deleted."""

from __future__ import annotations

from dataclasses import dataclass

from herder.domain.notes import NO_NOTES, Notes


@dataclass(frozen=True, slots=True)
class KeptText:
    """The text of an order, and what was noted with it.

    Attributes:
        answer: what it ended with, possibly empty; None where it was deleted.
        reasoning: what the model thought before.
        reasoning_tokens: the generated tokens that went into that.
        notes: what its caller noted with it.
    """

    answer: str | None
    reasoning: str = ""
    reasoning_tokens: int = 0
    notes: Notes = NO_NOTES


NO_TEXT = KeptText(None)
"""The text of an order whose text was deleted, or is not asked for."""
