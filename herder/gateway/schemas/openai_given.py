"""The objects that OpenAI's requests are made of: no other fields, and null for none."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from herder.web.shapes import said


def object_of(value: Any) -> Any:
    """Return an object; anything else is refused in these words."""
    if not isinstance(value, dict):
        raise said("must be an object")
    return value


class Given(BaseModel):
    """An object whose fields are all known, and may be null for what is left out."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, value: Any) -> Any:
        """Take null for what is left out, and let a field that is missing be told as it must be."""
        given = {name: one for name, one in object_of(value).items() if one is not None}
        cls.check(given)
        return dict.fromkeys(_required(cls)) | given

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse, by a sentence of its own, what is no such object."""


def _required(kind: type[BaseModel]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]
