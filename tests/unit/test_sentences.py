"""What people are told is whole sentences: a capital, a full stop, nothing glued together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import herder.db.postgres
import herder.db.sqlite
import herder.errors
import ledger.errors
import workers.errors
from herder.interface import raise_if_not_completed
from tests.unit.test_errors import TREE, a_result, an

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path for room in ("herder", "ledger", "workers") for path in (ROOT / room).rglob("*.py")
)
GLUED = re.compile(r"\{\} (?!\{)[A-Z][a-z]+ ")
"""A value and then a new sentence: nobody knows whether the value ends in a full stop."""


@dataclass(frozen=True)
class Raised:
    """A text that an error is made of, where it is made; `{}` stands for each value in it."""

    where: str
    text: str


def names(root: type[Exception]) -> set[str]:
    below = [names(kind) for kind in root.__subclasses__()]
    return {root.__name__}.union(*below)


ERRORS = names(herder.errors.HerdError) | names(workers.errors.WorkerError)
ERRORS |= {"DemoFailed"}
ERRORS -= {"OrderEnded", "OrderFailed", "OrderCancelled", "OrderExpired", "OrderSetAside"}
"""The errors whose first argument may be a sentence."""


def text_of(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(map(part_of, node.values))
    if isinstance(node, ast.BoolOp):
        return text_of(node.values[-1])
    return None


def part_of(part: ast.expr) -> str:
    """A part of an f-string; the message of another error is a sentence already."""
    if isinstance(part, ast.Constant):
        return str(part.value)
    value = part.value if isinstance(part, ast.FormattedValue) else None
    return "It failed." if isinstance(value, ast.Attribute) and value.attr == "message" else "{}"


@cache
def parsed() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text())) for path in CODE]


def sentences() -> Iterator[Raised]:
    """The sentences that errors are made with, and those that an `__init__` of one builds."""
    for path, module in parsed():
        for node in ast.walk(module):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name not in ERRORS and not (
                name == "__init__"
                and (path.parent == ROOT / "herder/errors" or path == ROOT / "workers/errors.py")
            ):
                continue
            text = text_of(node.args[0])
            # One word is a name that an error of its own makes a sentence of.
            if text is not None and " " in text.strip():
                yield Raised(f"{path.relative_to(ROOT)}:{node.lineno}", text)


PARAMETERS = {
    argument.arg
    for _, module in parsed()
    for node in ast.walk(module)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    for argument in [*node.args.args, *node.args.kwonlyargs]
} | {
    node.target.id
    for _, module in parsed()
    for node in ast.walk(module)
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}
"""Names of arguments and fields: what a caller wrote himself may begin a sentence as it is."""


def is_sentence(text: str) -> bool:
    first = re.split(r"[ .:,]", text, maxsplit=1)[0]
    begins = (
        text[0].isupper() or text[0] in "{-/" or first in {*PARAMETERS, "llama", "llama_decode"}
    )
    return begins and text.rstrip().endswith((".", "?", "…")) and not text.endswith("..")


def test_there_are_many_of_them():
    assert len(list(sentences())) > 150


@pytest.mark.parametrize("text", ["the prompt is long.", "No full stop", "Two stops.."])
def test_what_is_no_sentence_is_found(text):
    assert not is_sentence(text)


def test_what_an_error_says_is_a_sentence():
    assert [one for one in sentences() if not is_sentence(one.text)] == []


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_an_error_that_words_its_own_sentence_ends_it(kind):
    made = an(kind)
    if "why" not in str(made) and str(made):
        assert is_sentence(str(made)) or str(made).startswith("what "), str(made)
    if isinstance(made, ledger.errors.LedgerError):
        assert is_sentence(kind.sentence.replace("'", "")), kind.sentence


def test_no_new_sentence_follows_a_value():
    glued = [
        Raised(f"{path.relative_to(ROOT)}:{node.lineno}", text)
        for path, module in parsed()
        for node in ast.walk(module)
        if isinstance(node, ast.JoinedStr) and GLUED.search(text := text_of(node) or "")
    ]
    assert glued == []


@pytest.mark.parametrize("why", ["the model died", "The model died."])
def test_why_an_order_failed_is_followed_by_a_full_stop(why):
    result = a_result()
    receipt = replace(result.receipt, failure={"message": why})
    with pytest.raises(herder.errors.OrderFailed) as told:
        raise_if_not_completed(replace(result, receipt=receipt))
    assert told.value.message.endswith(f"{why.rstrip('.')}. All 0 winston were returned.")


NO_VERB = re.compile(
    r"(What|Whether|Who|Whom|Whose|How|Where|When|Why|Which|The|An?|Each|Every|All|Some|Those|One|"
    r"Two|This|These|Of|None|No|Nothing|There|It|As|Its|Any|If|For|In|True|False)\b"
)
"""How a docstring begins that does not say what its function does."""


def described() -> Iterator[tuple[str, str]]:
    """The docstrings of functions; a property is described like a value."""
    for path, module in parsed():
        for node in ast.walk(module):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            made_by = " ".join(ast.unparse(one) for one in node.decorator_list)
            said = ast.get_docstring(node)
            if said is not None and "property" not in made_by:
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", said


RIDDLES = re.compile(
    r"^(What|Whether|Who|Whom|Whose|How|Where|When|Why|Which)\b|: (it|he) is none\b|"
    r"\b(he|his|him|himself)\b"
)
"""A question in place of a noun; "it is none" in place of what is wrong; a caller who is a man."""


def summaries() -> Iterator[tuple[str, str]]:
    """The docstrings of modules and classes by their first line, those of functions whole."""
    for path, module in parsed():
        for node in ast.walk(module):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            said = ast.get_docstring(node) or ""
            line = getattr(node, "lineno", 1)
            whole = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            made_by = [ast.unparse(one) for one in getattr(node, "decorator_list", [])]
            if "property" not in made_by:
                yield f"{path.relative_to(ROOT)}:{line}", said if whole else said.split("\n")[0]


def described_values() -> Iterator[tuple[str, str]]:
    """The docstrings of constants and fields: a text right after an assignment."""
    for path, module in parsed():
        for node in ast.walk(module):
            body = getattr(node, "body", None)
            if not isinstance(body, list):
                continue
            for assigned, said in pairwise(body):
                if (
                    isinstance(assigned, ast.Assign | ast.AnnAssign)
                    and isinstance(said, ast.Expr)
                    and isinstance(said.value, ast.Constant)
                    and isinstance(said.value.value, str)
                ):
                    yield f"{path.relative_to(ROOT)}:{said.lineno}", said.value.value


def test_a_docstring_is_no_riddle():
    assert [(where, said) for where, said in summaries() if RIDDLES.search(said)] == []


def test_the_docstring_of_a_constant_or_field_is_no_riddle():
    values = list(described_values())
    assert len(values) > 250
    assert [(where, said) for where, said in values if RIDDLES.search(said)] == []


def test_the_docstring_of_a_function_begins_with_a_verb():
    assert [where for where, said in described() if NO_VERB.match(said)] == []


def test_the_docstring_of_a_function_returns_a_thing_and_no_question():
    """ "Return the number of", where the verb had only been put before the question."""
    question = re.compile(r"Return (how|why|what|who|whom|whose|which|when|where)\b")
    assert [(where, said) for where, said in described() if question.match(said)] == []
