"""Sentences about bodies and parameters that have the wrong shape.

pydantic says which part of a body is wrong and of what kind the fault is; how that is told stands
in `workers.wire.faults`, or beside the field (`Must`, `Refused`). Its own sentences reach nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BeforeValidator, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError

from workers.wire.faults import fault_of

SAID = "said"
"""The type of a fault whose sentence stands beside the field."""


def said(what: str) -> PydanticCustomError:
    """Return a fault with its own sentence: `what` stands in it after the name of what is wrong."""
    return PydanticCustomError(SAID, "{what}", {"what": what})


def Refused(what: str, *, inside: bool = False) -> WrapValidator:  # noqa: N802 (an annotation)
    """Have a field refused with one sentence, whatever is wrong with its value.

    A value that is equal to an allowed one and of another type, as `true` is to 1, is refused too.

    Args:
        what: stands in the sentence after the field's name.
        inside: whether a fault of a part of the value is told as that part's.
    """

    def judge(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = handler(value)
        except ValidationError as error:
            if inside and error.errors(include_url=False)[0]["loc"]:
                raise
        else:
            if isinstance(value, bool) == isinstance(found, bool):
                return found
        raise said(what)

    return WrapValidator(judge)


def Must(be: str, *, inside: bool = False) -> WrapValidator:  # noqa: N802 (an annotation)
    """Have a field refused as what it must be; arguments as `Refused`."""
    return Refused(f"must be {be}", inside=inside)


def by_intake(kind: Any) -> BeforeValidator:
    """Have the document show a field as of a kind, and leave its value to order intake.

    Whose sentences and codes are those of every way in.
    """
    return BeforeValidator(lambda value: value, json_schema_input_type=kind | None)


def sentence_of(
    errors: Iterable[ErrorDetails | Mapping[str, Any]], skip: int = 0
) -> tuple[str, str | None]:
    """Return the sentence of a fault, and the name of what is wrong, if it has one.

    Args:
        errors: the faults, as pydantic tells them.
        skip: how many steps of their places are no part of the name.
    """
    # A name that is not known here may be why another is missing.
    first = min(errors, key=lambda error: error["type"] != "extra_forbidden")
    if first["type"] == "json_invalid":
        return "The body is not valid JSON.", None
    place = [str(step)[:60] for step in first["loc"]]
    told = first.get("ctx") or {}
    what = str(told["what"]) if first["type"] == SAID else fault_of(first["type"], told)
    if not place:
        return f"The body {what}.", None
    name = ".".join(place[skip:] or place[:1])[:100]
    return f"{name} {what}.", name
