"""The sequences of a scheduler, and its operations on the cache. Pure."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Seq:
    """One sequence: its tokens and how many of them have their cells.

    Attributes:
        tokens: the prompt, then what was generated.
        prompt: how many of the tokens are the prompt.
        limit: the most tokens to generate.
        rank: higher goes first.
        arrival: a number that rises; earlier goes first among equals.
        slot: its number in the model's cache while it runs.
        computed: tokens whose cells are computed.
        shared: the longest beginning that it had in common with another.
        continues: whether it is the next turn of a conversation that ended a turn lately.
    """

    key: str
    tokens: list[int]
    limit: int
    rank: int
    arrival: int
    prompt: int = field(init=False)
    slot: int = -1
    computed: int = 0
    shared: int = 0
    continues: bool = False
    _bytes: bytes = b""
    _common: dict[Resident, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.prompt = len(self.tokens)
        self._bytes = array("i", self.tokens).tobytes()

    @property
    def cells(self) -> int:
        """Cells that it may come to need."""
        return self.prompt + self.limit

    @property
    def remaining(self) -> int:
        """Tokens still to be computed before the next one can be sampled."""
        return len(self.tokens) - self.computed

    @property
    def decoding(self) -> bool:
        """Whether all but its newest sampled token is computed."""
        return self.remaining == 1 and len(self.tokens) > self.prompt

    def common(self, other: Resident) -> int:
        """Return the number of tokens with which its prompt and the other's begin in common.

        Worked out once.
        """
        length = self._common.get(other)
        if length is None:
            length = self._common[other] = common_tokens(self._bytes, other._bytes)
        return length

    def forget(self, other: Resident) -> None:
        """Drop references to a sequence that is gone, or every ended one would stay."""
        self._common.pop(other, None)


@dataclass(slots=True, eq=False)
class CachedPrefix:
    """The beginning of an ended sequence whose cells stay for others."""

    slot: int
    computed: int
    _bytes: bytes
    unused: int = 0
    useful: bool = False


Resident = Seq | CachedPrefix


class BatchRow(NamedTuple):
    """Consecutive tokens of one sequence that go through the model in this step.

    Attributes:
        slot: the sequence's number in the cache.
        start: the position of the first token.
        tokens: the tokens.
        output: whether the last of them is sampled from.
        seq: whose they are.
    """

    slot: int
    start: int
    tokens: list[int]
    output: bool
    seq: Seq


class Truncate(NamedTuple):
    """Drop the cells of `slot` from position `length` on."""

    slot: int
    length: int


class Copy(NamedTuple):
    """Give the first `length` cells of `source` to the empty `target`."""

    source: int
    target: int
    length: int


def common_tokens(one: bytes, other: bytes) -> int:
    """Return the tokens that two prompts (as native 32-bit integers) begin with in common."""
    low, high = 0, min(len(one), len(other)) // 4
    if one[: high * 4] == other[: high * 4]:
        return high
    while high - low > 1:  # equal up to low, not up to high; slices compare at memory speed
        middle = (low + high) // 2
        if one[low * 4 : middle * 4] == other[low * 4 : middle * 4]:
            low = middle
        else:
            high = middle
    return low
