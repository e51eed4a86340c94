"""Reasoning is told from the answer, however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.splitters import MAX_BLANK, Channels, Tags
from workers.engine.thinking import Thinking, ThinkingSettler

TAGS = Tags("<think>", "</think>")
HARMONY = Channels()


def parted(text, thinking, *, stop=(), size=3):
    """(reasoning, answer, tokens that went into reasoning, whether a stop string ended it)."""
    settler = ThinkingSettler(stop, thinking)
    data = text.encode()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    found = []
    for number, piece in enumerate(pieces):
        if settler.stopped:
            break
        found.append(settler.feed(number, piece))
    found.append(settler.finish())
    reasoning = "".join(one.reasoning for one in found)
    answer = "".join(one.answer for one in found)
    first = next((at for at, one in enumerate(found) if one.answer), len(found))
    assert not any(one.reasoning for one in found[first + 1 :]), "reasoning comes first"
    return reasoning, answer, settler.reasoning_tokens, settler.stopped


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("text", "begun", "reasoning", "answer"),
    [
        ("<think>\nLlamas hum.\n</think>\n\nThey hum.", False, "Llamas hum.", "They hum."),
        ("\n<think>a  b</think>c", False, "a  b", "c"),
        ("Llamas hum.\n</think>\n\nThey hum.", True, "Llamas hum.", "They hum."),
        ("<think>\nSaid again.</think>Yes.", True, "Said again.", "Yes."),
        ("<think></think>Yes.", False, "", "Yes."),
        ("</think>Yes.", True, "", "Yes."),
        ("No thought at all.", False, "", "No thought at all."),
        ("  White space stays.", False, "", "  White space stays."),
        ("<thinner", False, "", "<thinner"),
        ("Write <think>x</think> so.", False, "", "Write <think>x</think> so."),
        ("<think>a</think>b <think>c</think>", False, "a", "b <think>c</think>"),
        ("<think>cut sho", False, "cut sho", ""),
        ("<think>cut </thi", False, "cut </thi", ""),
        ("never closed\n\n", True, "never closed", ""),
        ("<think>水の🦙 1 < 2 </ b</think>żółw", False, "水の🦙 1 < 2 </ b", "żółw"),
        ("", True, "", ""),
        ("<th", False, "", "<th"),
    ],
)
def test_what_stands_between_tags_is_reasoning(text, begun, reasoning, answer, size):
    assert parted(text, Thinking(TAGS, begun), size=size)[:2] == (reasoning, answer)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        (
            "<|channel|>analysis<|message|>They hum.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>Hum.",
            "They hum.",
            "Hum.",
        ),
        ("<|channel|>final<|message|>Hum.", "", "Hum."),
        ("<|channel|>final <|constrain|>json<|message|>{}", "", "{}"),
        ("<|message|>Hum.", "", "<|message|>Hum."),
        ("<|start|>assistant<|message|>Hum.", "", "Hum."),
        ("Hum < hum.", "", "Hum < hum."),
        ("<|channel|>analysis<|message|>cut sho", "cut sho", ""),
        ("<|channel|>analysis<|message|>cut <|en", "cut <|en", ""),
        (
            "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>commentary"
            "<|message|>Two.<|end|><|start|>assistant<|channel|>final<|message|>Three.",
            "One.\n\nTwo.",
            "Three.",
        ),
        (
            "<|channel|>final<|message|>A.<|end|><|start|>assistant<|channel|>analysis"
            "<|message|>late<|end|><|start|>assistant<|channel|>final<|message|>B.",
            "",
            "A.B.",
        ),
        ("<|channel|>analysis<|channel|>final<|message|>not on final", "not on final", ""),
        ("\n<|channel|>analysis<|message|>A<|end|>\n<|channel|>final<|message|>B", "A", "B"),
        ("<|channel|>analysis<|message|>A<|end|>B, without a mark", "A", "B, without a mark"),
        ("<|channel|>analysis<|message|>A<|end|><|sta", "A", ""),
        (f"<|channel|>{'analysis ' * 50}<|message|>A<|end|><|start|>x<|message|>B", "A", "B"),
    ],
)
def test_what_is_not_on_the_final_channel_is_reasoning(text, reasoning, answer, size):
    assert parted(text, Thinking(HARMONY), size=size)[:2] == (reasoning, answer)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_white_space_is_held_back_to_a_bound(size):
    blank = " " * (MAX_BLANK + 10)
    assert parted(f"<think>a{blank}b</think>c", Thinking(TAGS), size=size)[:2] == (
        f"a{blank}b",
        "c",
    )
    ends = parted(f"<think>a{blank}</think>c", Thinking(TAGS), size=size)[:2]
    assert ends == (f"a{' ' * 10}", "c")
    settler = ThinkingSettler((), Thinking(TAGS))
    assert [settler.feed(0, b" ").answer for _ in range(MAX_BLANK)] == [""] * MAX_BLANK
    assert settler.feed(0, b" ").answer == " " * (MAX_BLANK + 1), "no thought begins so late"
    settler = ThinkingSettler((), Thinking(TAGS))
    said = "".join(settler.feed(0, one).reasoning for one in [b"<think>a", *[b" "] * 1000])
    assert len(said) >= 1000 - MAX_BLANK


def hidden(marks, *tokens):
    """(reasoning, answer) of texts, of which those in brackets are control tokens."""
    known = {number: one[0] for number, one in enumerate(tokens) if isinstance(one, tuple)}
    settler = ThinkingSettler((), Thinking(marks, hidden=known))
    found = [
        settler.feed(number, b"" if number in known else one.encode())
        for number, one in enumerate(tokens)
    ]
    found.append(settler.finish())
    return "".join(one.reasoning for one in found), "".join(one.answer for one in found)


SOLAR = Tags("<|think|>", "<|end|><|begin|>assistant<|content|>")
INNER = Tags("<|inner_prefix|>", "<|inner_suffix|>")


def test_a_control_token_that_marks_nothing_is_shown_nowhere():
    assert hidden(SOLAR, ("<|content|>",), "Hello") == ("", "Hello")
    whole = [("<|think|>",), "hm", ("<|end|>",), ("<|begin|>",), "assistant", ("<|content|>",), "a"]
    assert hidden(SOLAR, *whole) == ("hm", "a")
    again = [("<|inner_prefix|>",), "hm", ("<|inner_suffix|>",), "b", ("<|inner_prefix|>",), "c"]
    assert hidden(INNER, *again) == ("hm", "bc")
    assert hidden(INNER, ("<|inner_suffix|>",), "a") == ("", "a")
    assert hidden(INNER, ("<|inner_prefix|>",)) == ("", "")
    ends = [("<|channel|>",), "analysis", ("<|message|>",), "A", ("<|end|>",), ("<|start|>",)]
    final = ["assistant", ("<|channel|>",), "final", ("<|message|>",), "B", ("<|end|>",)]
    assert hidden(HARMONY, *ends, *final) == ("A", "B")
    assert hidden(HARMONY, ("<|message|>",), "B") == ("", "B")


PARTS = ["<think>", "</think>", *HARMONY[:4], "final", "<", "|>", "</", " ", "\n", "a", "é"]


@pytest.mark.parametrize("marks", [TAGS, HARMONY])
@given(
    text=st.lists(st.sampled_from(PARTS)).map("".join), size=st.integers(1, 9), begun=st.booleans()
)
def test_how_it_is_cut_changes_nothing(marks, text, size, begun):
    thinking = Thinking(marks, begun)
    assert parted(text, thinking, size=size)[:2] == parted(text, thinking, size=10_000)[:2]


def test_a_mark_that_is_a_control_token_is_known_by_its_number():
    thinking = Thinking(Tags("[THINK]", "[/THINK]"), hidden={7: "[THINK]", 8: "[/THINK]"})
    settler = ThinkingSettler((), thinking)
    fed = [(7, b""), (1, b"Hm."), (9, b""), (8, b""), (2, b"Yes.")]
    found = [settler.feed(token, piece) for token, piece in fed]
    assert "".join(one.reasoning for one in found) == "Hm."
    assert "".join(one.answer for one in found) == "Yes."
    assert settler.reasoning_tokens == 4


def test_tokens_of_a_thought_are_counted_with_its_marks():
    assert parted("<think>abcdef</think>gh", Thinking(TAGS), size=1)[2] == len(
        "<think>abcdef</think>"
    )
    assert parted("abc</think>gh", Thinking(TAGS, begun=True), size=1)[2] == len("abc</think>")
    assert parted("an answer", Thinking(TAGS), size=1)[2] == 0
    assert parted("<think>abc", Thinking(TAGS), size=1)[2] == len("<think>abc")
    assert parted("an answer", None, size=1)[2] == 0


def test_a_stop_string_ends_the_answer_and_not_the_thought():
    text = "<think>One.\n\nTwo.</think>Three.\n\nFour."
    assert parted(text, Thinking(TAGS), stop=("\n\n",)) == ("One.\n\nTwo.", "Three.", 9, True)


def test_without_marks_all_of_it_is_the_answer():
    assert parted("<think>a</think>b", None) == ("", "<think>a</think>b", 0, False)
