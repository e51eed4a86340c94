"""Expressions and choices become grammars that match just what they say."""

from __future__ import annotations

import llguidance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.wire.regex_answers import RegexRefused, compile_choice, compile_regex


def takes(grammar: str, text: str) -> bool:
    """Whether a text is one that a grammar lets end."""
    vocabulary = llguidance.LLTokenizer("byte")
    matcher = llguidance.LLMatcher(vocabulary, grammar, log_level=0)
    for byte in text.encode():
        if not matcher.consume_token(byte):
            return False
    return bool(matcher.is_accepting())


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"\d{4}-\d{2}", ["2026-12"], ["2026", "x2026-12", "2026-12-01", ""]),
        ("^(yes|no)$", ["yes", "no"], ["yesno", "maybe", ""]),
        ("[A-Za-zé水]+", ["Lé水"], ["1", "L 1"]),
        ("(?i)llama", ["LLaMA"], ["lama"]),
        ("a{2,3}", ["aa", "aaa"], ["a", "aaaa"]),
        (r"\{.*\}", ["{}", "{x}"], ["{", "{\n}"]),
    ],
)
def test_the_whole_answer_matches(pattern, yes, no):
    grammar = compile_regex(pattern)
    assert [text for text in yes if not takes(grammar, text)] == []
    assert [text for text in no if takes(grammar, text)] == []


def test_an_answer_is_one_of_the_texts_whatever_stands_in_them():
    texts = ["a.b", "(c", "[d]", "{e}", "x|y", "\\", "水 🦙", "^$", "line\nline", "-", "#&~ "]
    grammar = compile_choice(texts)
    assert [text for text in texts if not takes(grammar, text)] == []
    assert [text for text in ("axb", "c", "d", "x", "", "a.b(c") if takes(grammar, text)] == []


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_texts_may_be_chosen_from(texts):
    grammar = compile_choice(texts)
    assert all(takes(grammar, text) for text in texts)
    assert not takes(grammar, "".join(texts) + "x")


def test_a_judgement_is_the_same_the_second_time():
    for _ in range(2):
        with pytest.raises(RegexRefused, match="cannot be followed"):
            compile_regex("(")
