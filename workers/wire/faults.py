"""Our words for values that a pydantic model refuses.

pydantic's own sentences are made for programmers, and change with its versions: no user reads them,
be it of a setting, a body or an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TOLD = {
    "missing": "is missing",
    "extra_forbidden": "is not supported here; leave it out",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "has the wrong form",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "is too large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "date_type": "must be a date such as 2026-11-25",
    "date_parsing": "must be a date such as 2026-11-25",
    "date_from_datetime_parsing": "must be a date such as 2026-11-25",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}
"""The words for each kind of fault; they follow the name of what is wrong."""


def fault_of(kind: str, told: Mapping[str, Any]) -> str:
    """Return the words for a fault that follow the name of the wrong field.

    Args:
        kind: the fault's, as pydantic calls it.
        told: its context: the bounds.

    >>> fault_of("greater_than_equal", {"ge": 3.0})
    'must be at least 3'
    """
    shown = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in told.items()
    }
    return TOLD.get(kind, "is invalid").format_map(shown)
