"""The parameters by which programs say what form an answer must have.

`response_format` is OpenAI's, `structured_outputs` vLLM's. Order intake refuses what a worker could
not hold an answer to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictStr

from herder.gateway.schemas.openai_given import Given, object_of
from herder.gateway.schemas.openai_harmless import Same
from herder.web.errors import BadRequest
from herder.web.shapes import Must, Refused, said
from workers.wire import MAX_CHOICE_CHARS, MAX_CHOICES, MAX_GRAMMAR_CHARS, MAX_REGEX_CHARS

_KINDS: Final = ("json", "regex", "choice", "grammar", "json_object")
_ONE: Final = "must be an object with exactly one of json, regex, choice, grammar and json_object"
_ANY_OBJECT: Final = {"type": "object"}


class _AnyText(BaseModel):
    """Text of any form."""

    type: Literal["text"]


class _AnyObject(BaseModel):
    """Any JSON object, or what a schema beside it says."""

    type: Literal["json_object"]
    json_schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None


class _WantedSchema(BaseModel):
    """The JSON schema that an answer has to follow."""

    json_schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: Annotated[
        StrictBool | None,
        Field(description="Always in effect: an answer follows the schema in any case."),
    ] = None


class _SchemaFormat(BaseModel):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: _WantedSchema


class StructuredOutputs(Given):
    """The form that an answer must have, as vLLM takes it: exactly one of the first five."""

    json_: Annotated[
        dict[str, Any] | StrictStr | None,
        Must("a JSON schema, as an object or as text"),
        Field(alias="json", description="A JSON schema, as an object or as text."),
    ] = None
    regex: Annotated[
        Annotated[StrictStr, Field(max_length=MAX_REGEX_CHARS)] | None,
        Must(f"text of at most {MAX_REGEX_CHARS} characters"),
        Field(description="A regular expression that the whole answer matches."),
    ] = None
    choice: Annotated[
        Annotated[
            list[Annotated[StrictStr, Field(min_length=1, max_length=MAX_CHOICE_CHARS)]],
            Field(min_length=1, max_length=MAX_CHOICES),
        ]
        | None,
        Must(f"a list of 1 to {MAX_CHOICES} texts of 1 to {MAX_CHOICE_CHARS} characters"),
        Field(description="Texts of which the answer is one."),
    ] = None
    grammar: Annotated[
        Annotated[StrictStr, Field(max_length=MAX_GRAMMAR_CHARS, pattern="::=")] | None,
        Must(
            f"a GBNF grammar of at most {MAX_GRAMMAR_CHARS} characters, such as "
            'root ::= "yes" | "no"; other grammars are not supported'
        ),
        Field(description="A grammar in llama.cpp's GBNF. Lark is not supported."),
    ] = None
    json_object: Annotated[
        StrictBool | None, Must("true or false"), Field(description="Any JSON object.")
    ] = None
    disable_fallback: Annotated[Literal[False] | None, Same] = None
    disable_any_whitespace: Annotated[Literal[False] | None, Same] = None
    disable_additional_properties: Annotated[Literal[False] | None, Same] = None

    @classmethod
    def check(cls, given: dict[str, Any]) -> None:
        """Refuse none, and several that would have to hold at once."""
        asked = [name for name in _KINDS if name in given and given[name] is not False]
        unknown = given.keys() - {field.alias or name for name, field in cls.model_fields.items()}
        if len(asked) != 1 and not unknown:
            raise said(_ONE)

    def form(self) -> tuple[str, dict[str, Any]]:
        """Return the kind that is asked for, and the sampling parameter that says the same."""
        if self.regex is not None:
            return "regex", {"regex": self.regex}
        if self.choice is not None:
            return "choice", {"choice": self.choice}
        if self.grammar is not None:
            return "grammar", {"grammar": self.grammar}
        if self.json_ is None:
            return "json_object", {"json_schema": _text_of(_ANY_OBJECT, "")}
        if isinstance(self.json_, str):
            return "json", {"json_schema": self.json_}
        return "json", {"json_schema": _text_of(self.json_, "structured_outputs.json")}


class StructuredFields(BaseModel):
    """The parameters of both routes that say what form an answer must have."""

    response_format: Annotated[
        Annotated[_AnyText | _AnyObject | _SchemaFormat, Field(discriminator="type")] | None,
        Must(
            "of type text, json_object, or json_schema with a schema and, if at all, a strict that "
            "is true or false"
        ),
        BeforeValidator(object_of),
    ] = None
    structured_outputs: Annotated[StructuredOutputs | None, Refused(_ONE, inside=True)] = None

    def form(self) -> tuple[dict[str, Any], Mapping[str, str]]:
        """Return the form as sampling parameters, and what each is called in this call.

        Raises:
            BadRequest: the parameters contradict each other, or a schema is no JSON.
        """
        found = self._by_format()
        called = dict.fromkeys(found, "response_format")
        if self.structured_outputs is not None:
            kind, asked = self.structured_outputs.form()
            name = f"structured_outputs.{kind}"
            if found:
                raise _contradiction("response_format", name)
            found, called = asked, dict.fromkeys(asked, name)
        grammar = getattr(self, "grammar", None)
        if found and grammar is not None:
            raise _contradiction("grammar", next(iter(called.values())))
        return found, called

    def _by_format(self) -> dict[str, Any]:
        match self.response_format:
            case _AnyObject(json_schema_=wanted):
                schema = _ANY_OBJECT if wanted is None else wanted
            case _SchemaFormat(json_schema=given):
                schema = given.json_schema_
            case _:
                return {}
        return {"json_schema": _text_of(schema, "response_format")}


def _contradiction(one: str, other: str) -> BadRequest:
    return BadRequest(
        f"{one} and {other} both say what form the answer must have; give only one.", other
    )


def _text_of(schema: dict[str, Any], param: str) -> str:
    try:
        return json.dumps(schema, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):  # 1e999, or as deep as it could just be read
        raise BadRequest(
            "The schema is not valid JSON, or it is nested too deeply.", param
        ) from None
