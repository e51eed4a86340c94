"""Parameters of OpenAI's that programs send by habit, taken where refusing them helps nobody.

Those of `HarmlessFields` have no effect here, and README.md says so. The others are read as they
are meant: as a value that the herd has another form for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StrictBool, StrictInt, StrictStr

from herder.domain.notes import MAX_METADATA, MAX_METADATA_CHARS, MAX_METADATA_NAME_CHARS
from herder.domain.parsing import MAX_REFERENCE_CHARS
from herder.gateway.schemas.orders import Number
from herder.web.shapes import Must, Refused

MIN_TOP_P = 1e-9
"""The `top_p` that stands for 0: only the likeliest token is left."""

_SEEDS = 2**32 - 1
"""The seeds that llama.cpp tells apart; the last of 32 bits has it draw one."""

Same = Refused("is not supported here; leave it out")
"""Only values that ask for what happens anyway are taken."""


def _characters(text: str) -> str:
    """Refuse a lone surrogate, which is not a character: no answer could show it.

    Raises:
        ValueError: there is one.
    """
    text.encode()
    return text


Characters = Annotated[StrictStr, AfterValidator(_characters)]
Seed = Annotated[
    Annotated[StrictInt, Field(ge=-(2**63), lt=2**64)] | None,
    Must("a whole number of 64 bits"),
    Field(description="Any of 64 bits, of which 32 count; -1 for a random one."),
]
TopP = Annotated[
    Annotated[Number, Field(ge=0, le=1)] | None,
    Must("a number from 0 to 1"),
    Field(description="0 leaves the likeliest token only."),
]
Penalty = Annotated[
    Annotated[Number, Field(gt=0, le=10)] | None,
    Must("a number above 0 and at most 10"),
    Field(description="Another name for `repeat_penalty`."),
]
Metadata = Annotated[
    Annotated[
        dict[
            Annotated[Characters, Field(max_length=MAX_METADATA_NAME_CHARS)],
            Annotated[Characters, Field(max_length=MAX_METADATA_CHARS)],
        ],
        Field(max_length=MAX_METADATA),
    ]
    | None,
    Must(
        f"at most {MAX_METADATA} texts of at most {MAX_METADATA_CHARS} characters, under names of "
        f"at most {MAX_METADATA_NAME_CHARS}"
    ),
    Field(description="Kept with the order for as long as its text, and shown with it."),
]
Empty = Annotated[Annotated[list[Any], Field(max_length=0)] | None, Same]


class HarmlessFields(BaseModel):
    """Parameters that are taken and change nothing."""

    service_tier: Annotated[
        Literal["auto", "default"] | None,
        Same,
        Field(description="There is one tier: the answer says `default`, and the fee ranks."),
    ] = None
    store: Annotated[
        StrictBool | None,
        Must("true or false"),
        Field(description="No effect: how long texts are kept is the herd's to say."),
    ] = None
    verbosity: Annotated[
        Literal["low", "medium", "high"] | None,
        Must("low, medium or high"),
        Field(description="No effect."),
    ] = None
    function_call: Annotated[Literal["none", "auto"] | None, Same] = None
    safety_identifier: Annotated[
        Characters | None, Must("text"), Field(description="No effect.")
    ] = None
    prompt_cache_key: Annotated[
        Characters | None,
        Must("text"),
        Field(description="No effect: prompts that begin alike share what was computed anyway."),
    ] = None


def seed_of(seed: int) -> dict[str, int]:
    """Return the seed that llama.cpp samples with, as its parameter; none for a random one.

    >>> seed_of(7), seed_of(-1), seed_of(2**32 + 5)
    ({'seed': 7}, {}, {'seed': 6})
    """
    if seed == -1:
        return {}
    return {"seed": seed if 0 <= seed <= _SEEDS else seed % _SEEDS}


def reference_of(user: str) -> str:
    """Return a `user` as the order's reference, cut to what is kept."""
    return user[:MAX_REFERENCE_CHARS]
