"""What a buyer reads names no command and no setting of an operator's: he has neither.

Buyers read the errors of the library, a gateway's answers and its document, and what the commands
say that buy, which work over HTTP too. The operator's own command beside the herder adds a hint.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from contextlib import closing
from functools import cache
from typing import Any

import pytest
from typer.main import get_command

from herder.cli.app import app as herd_command
from herder.errors import HerdError, InsufficientBalance, SetupError
from herder.gateway.app import make_app
from herder.gateway.settings import GatewaySettings
from herder.local.local_herd import LocalHerd
from herder.web.errors import answer_to
from tests.unit.test_errors import TREE, an, subclasses
from tests.unit.test_sentences import ROOT, parsed
from workers.errors import ModelError, SettingsError

BUYERS_SETTINGS = ("HERD_URL", "HERD_API_KEY", "HERD_HOME")

OPERATORS_ERRORS = {
    kind.__name__ for root in (SetupError, ModelError, SettingsError) for kind in subclasses(root)
}
"""Raised where a herd is set up or a worker starts; over HTTP, another sentence is told."""

OPERATORS_FILES = re.compile(
    r"herder/(host|demo|examples|cli|db)/|herder/(celery|settings|gateway/settings)\.py|"
    r"herder/herd/(heartbeats|named_model|roster)\.py|workers/(tuning|transport)/|"
    r"workers/(celery|settings)\.py|"
    r"workers/llama/(?!chat|grammar|sampling|structured)"
)
"""Whose texts reach whoever runs a herd, a worker or a program on its machine. The commands are
looked at one by one. What heartbeats refuse and the roster shows is told to workers and operators;
what `named_model` writes goes to a herder's log;
errors of the database have `told_callers`; of a model's file all is said when it is loaded.
"""


@cache
def commands() -> dict[str, bool]:
    """Each command, as `order show`, and whether it is a buyer's: works on a herd elsewhere."""
    found: dict[str, bool] = {}

    def walk(group: Any, path: tuple[str, ...]) -> None:
        for name, command in group.commands.items():
            called = command.callback and inspect.unwrap(command.callback)
            opens = "" if called is None else inspect.getsource(called)
            if called is not None and "buying(" not in opens:  # by a function of its module
                beside = inspect.getmembers(inspect.getmodule(called), inspect.isfunction)
                opens += "".join(
                    inspect.getsource(function)
                    for name_, function in beside
                    if f" {name_}(" in opens and function.__module__ == called.__module__
                )
            found[" ".join((*path, name))] = "buying(" in opens
            if hasattr(command, "commands"):
                walk(command, (*path, name))

    walk(get_command(herd_command), ())
    return found


@cache
def operators() -> re.Pattern[str]:
    """What no buyer is told: an operator's command or setting, or Celery's command."""
    theirs = {path for path, is_buyers in commands().items() if not is_buyers}
    # A group that has commands of both is named with one of them.
    groups = {path.rpartition(" ")[0] for path, is_buyers in commands().items() if is_buyers}
    paths = "|".join(sorted(theirs - groups, key=len, reverse=True))
    settings = "|".join(BUYERS_SETTINGS)
    return re.compile(rf"\bherd (?:{paths})\b|\b(?!{settings})HERD_[A-Z_]+|celery -A")


def names_operators(text: str) -> bool:
    return operators().search(text) is not None


def test_the_commands_of_buyers_are_known():
    buyers = {path for path, is_buyers in commands().items() if is_buyers}
    assert {"submit", "quote", "chat", "orders", "order show", "account balance"} <= buyers
    assert buyers.isdisjoint({"up", "init", "account deposit", "order refund", "key create"})
    assert len(buyers) < len(commands()) / 2


@pytest.mark.parametrize(
    ("text", "is_theirs"),
    [
        ("`herd account deposit ada 1000` does that.", True),
        ("`herd up` starts some.", True),
        ("Set HERD_SLOTS to less.", True),
        ("`herd order show x` shows it.", False),
        ("Set HERD_URL and HERD_API_KEY.", False),
        ("The herd's operator adds money.", False),
    ],
)
def test_an_operators_command_is_told_from_a_buyers(text, is_theirs):
    assert names_operators(text) is is_theirs


@pytest.mark.parametrize(
    "kind",
    [kind for kind in TREE if issubclass(kind, HerdError)],
    ids=lambda kind: kind.__name__,
)
def test_an_error_says_nothing_that_only_an_operator_can_type(kind):
    error = an(kind)
    assert isinstance(error, HerdError)
    assert not names_operators(error.message)
    body = json.loads(bytes(answer_to(error).body))
    assert not names_operators(json.dumps(body))
    if error.hint:  # the data of an answer is whatever an error was made of
        assert error.hint not in json.dumps(body)


def test_a_hint_stays_beside_its_error():
    refused = InsufficientBalance("ada", 5, 24)
    assert names_operators(refused.hint)
    assert not names_operators(f"{refused} {refused.args} {refused.data}")


class Finder(ast.NodeVisitor):
    """Finds the texts of a module that an operator alone can use, beside where those are right."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.found: list[str] = []

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name not in OPERATORS_ERRORS:
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if not any(isinstance(to, ast.Attribute) and to.attr == "hint" for to in node.targets):
            self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        is_settings = any(ast.unparse(base).endswith("Settings") for base in node.bases)
        if node.name not in OPERATORS_ERRORS and not is_settings:
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = (one.value if isinstance(one, ast.Constant) else "x" for one in node.values)
        self._look("".join(map(str, parts)), node.lineno)
        for one in node.values:
            if not isinstance(one, ast.Constant):
                self.generic_visit(one)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._look(node.value, node.lineno)

    def _look(self, text: str, line: int) -> None:
        # A sentence, not a bare name that code looks up.
        if " " in text.strip() and names_operators(text):
            self.found.append(f"{self.path}:{line}: {text}")


def found_in(path: str, tree: ast.AST) -> list[str]:
    finder = Finder(path)
    finder.visit(tree)
    return finder.found


def test_no_text_on_a_buyers_way_names_what_only_an_operator_has():
    found: list[str] = []
    for path, module in parsed():
        where = str(path.relative_to(ROOT))
        if not OPERATORS_FILES.match(where):
            found += found_in(where, module)
    assert found == []


class SaidFinder(Finder):
    """The same of what a command says, where a hint stands under `is_at_home()`."""

    def visit_IfExp(self, node: ast.IfExp) -> None:
        if "is_at_home()" not in ast.unparse(node.test):
            self.generic_visit(node)


def test_a_command_that_buys_says_so_beside_the_herder_alone():
    found, looked = list[str](), 0
    for path, module in parsed():
        if path.parent != ROOT / "herder/cli":
            continue
        for node in ast.walk(module):
            if not isinstance(node, ast.FunctionDef):
                continue
            inside = ast.unparse(node)
            if "opened()" in inside or "require_home()" in inside or node.name == "register":
                continue
            looked += 1
            finder = SaidFinder(str(path.relative_to(ROOT)))
            for statement in node.body:  # without its decorators, which are what --help shows
                finder.visit(statement)
            found += finder.found
    assert looked > 100
    assert found == []


PLANTED = """
def refuse(account):
    why = f"Type `herd account create {account}`."
    raise InvalidRequest(why)
"""


def test_what_is_planted_is_found():
    assert len(found_in("planted.py", ast.parse(PLANTED))) == 1
    assert found_in("planted.py", ast.parse('raise SetupError("`herd init` makes one.")')) == []
    (said,) = ast.parse('complain("x" if is_at_home() else "`herd up` starts some")').body
    finder = SaidFinder("planted.py")
    finder.visit(said)
    assert finder.found == []


def test_a_gateways_document_names_nothing_that_only_an_operator_has(make_house):
    settings = GatewaySettings(**make_house().settings.model_dump())
    with closing(LocalHerd(settings)) as herd:
        texts = json.dumps(make_app(herd, settings).openapi(), ensure_ascii=False)
    assert len(texts) > 50_000
    assert "fee / needed" in texts  # what a receipt's multiplier is
    assert operators().findall(texts) == []
