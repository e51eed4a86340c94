"""Errors travel: through pickle, as multiprocessing carries them, and through Celery."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from celery.utils.serialization import get_pickleable_exception

import herder.errors
import ledger.errors
import workers.errors
from herder.types import Receipt, Result, Usage

ROOTS = (herder.errors.HerdError, ledger.errors.LedgerError, workers.errors.WorkerError)
"""The trees; an error of any of them may leave the process that it was raised in."""


def subclasses(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(deeper for one in root.__subclasses__() for deeper in subclasses(one))]


TREE = [
    kind
    for root in ROOTS
    for kind in subclasses(root)
    if kind.__module__.startswith(f"{root.__module__.partition('.')[0]}.errors")
]


def a_result() -> Result:
    filled = {
        name: None if "None" in str(field.annotation) else 0
        for name, field in inspect.signature(Receipt).parameters.items()
    }
    usage = Usage(*(0 for _ in inspect.signature(Usage).parameters))
    return Result("o1", "some text", "stop", usage, Receipt(**{**filled, "state": "failed"}))


def an(kind: type[Exception]) -> Exception:
    """An example: each argument by its annotation."""
    given = {
        "int": 7, "str": "why", "str | None": "where", "object": "what", "list[str]": ["a", "b"],
        "Result": a_result(),
    }  # fmt: skip
    if kind.__init__ is Exception.__init__:
        return kind()
    asked = [
        one
        for one in inspect.signature(kind).parameters.values()
        if one.kind not in (one.VAR_KEYWORD, one.KEYWORD_ONLY)
    ]
    return kind(*(given[str(one.annotation)] for one in asked))


def test_the_trees_are_whole():
    assert {"FeeTooLow", "InsufficientFunds", "PromptTooLong"} <= {kind.__name__ for kind in TREE}
    assert len(TREE) > 70


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_an_error_is_the_same_on_the_other_side(kind):
    made = an(kind)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(made, protocol))
        assert (type(back), str(back), back.data) == (kind, str(made), made.data)
        assert (vars(back), back.code) == (vars(made), made.code)
    assert vars(copy.copy(made)) == vars(made)
    # Celery's pools put what cannot travel into a wrapper that has forgotten its type.
    assert type(get_pickleable_exception(made)) is kind


def refuse():
    raise herder.errors.FeeTooLow(3, 26)


def test_a_pool_raises_what_its_process_raised():
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(herder.errors.FeeTooLow, match="needs at least 26") as refused,
    ):
        pool.submit(refuse).result()
    assert refused.value.data == {"fee": 3, "needed": 26}


def test_what_a_caller_gave_need_not_travel():
    made = ledger.errors.InvalidAmount(lambda: 5, 9)
    back = pickle.loads(pickle.dumps(made))
    assert (str(back), back.data) == (str(made), made.data)
    assert "function" in str(back)


def test_a_note_on_an_error_travels_too():
    made = herder.errors.OrderNotFound("o1")
    made.add_note("while paying out")
    assert pickle.loads(pickle.dumps(made)).__notes__ == ["while paying out"]
