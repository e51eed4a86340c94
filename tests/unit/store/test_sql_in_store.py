"""All SQL stands in `herder/store/`, but for what opens and migrates a database."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import herder

ROOT = Path(herder.__file__).parent
ALLOWED = ("store/", "db/", "examples/room/store.py")
"""The room's example is a program of its own, with a database of its own."""

KNOWN_ELSEWHERE = {"sqlalchemy": {"Connection"}}
"""What else may be imported: the type of what is handed on, and the errors that it raises."""

RUNS = {"execute", "exec_driver_sql", "executemany"}


def _faults(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] == "sqlalchemy")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            if node.module != "sqlalchemy.exc":
                known = KNOWN_ELSEWHERE.get(node.module or "", set())
                yield from (one.name for one in node.names if one.name not in known)
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in RUNS:
                yield f".{called.attr}() in line {node.lineno}"


def test_no_statement_is_made_or_run_outside_the_store():
    files = [path for path in ROOT.rglob("*.py") if "__pycache__" not in path.parts]
    named = {path.relative_to(ROOT).as_posix(): path for path in files}
    elsewhere = {name: path for name, path in named.items() if not name.startswith(ALLOWED)}
    assert "store/orders.py" in named
    assert len(elsewhere) > 100
    found = {name: list(_faults(path.read_text("utf-8"))) for name, path in elsewhere.items()}
    assert {name: faults for name, faults in found.items() if faults} == {}


def test_it_finds_them():
    source = """
import sqlalchemy as sa
from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
connection.execute("SELECT 1")
"""
    assert sorted(_faults(source)) == [".execute() in line 6", "insert", "select", "sqlalchemy"]
