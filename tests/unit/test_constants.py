"""A bound is called `MAX_` or `MIN_`, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERWISE = re.compile(
    r"(^|_)(MOST|LEAST|LONGEST|SHORTEST)(_|$)|(^|_)AT_ONCE$|[A-Z]_(KEPT|MAX|MIN)$"
)
UNITS = re.compile(r"_(MAX|MIN)_(S|MS|US|BYTES|CHARS)$")


def _constants(source: str) -> set[str]:
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return {name for name in names if name.strip("_").isupper()}


def _odd(names: set[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if not name.lstrip("_").startswith(("MAX_", "MIN_"))
        and (OTHERWISE.search(name) or UNITS.search(name))
    )


@pytest.mark.parametrize("package", ["herder", "workers", "ledger"])
def test_bounds_have_one_kind_of_name(package):
    files = [one for one in (ROOT / package).rglob("*.py") if "__pycache__" not in one.parts]
    assert files
    found = {one.relative_to(ROOT).as_posix(): _constants(one.read_text("utf-8")) for one in files}
    assert {name: _odd(names) for name, names in found.items() if _odd(names)} == {}


def test_it_finds_the_others():
    source = "MOST_DAYS = IDS_AT_ONCE = RETRY_MOST_S = ENDED_KEPT = SHARE_MIN = MAX_AT_ONCE = 1"
    odd = ["ENDED_KEPT", "IDS_AT_ONCE", "MOST_DAYS", "RETRY_MOST_S", "SHARE_MIN"]
    assert _odd(_constants(source)) == odd
