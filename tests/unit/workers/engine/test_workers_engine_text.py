"""Bytes to text, and prompts to pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.text import TextSettler
from workers.errors import TemplateError
from workers.llama.chat import Piece, Turn, control_pattern, cut_marks, mark_texts, render


def chop(data: bytes, cuts: list[int]) -> list[bytes]:
    pieces = []
    for cut in cuts:
        pieces.append(data[:cut])
        data = data[cut:]
    return [*pieces, data]


@given(
    st.text(alphabet="abé🦙\n", max_size=30),
    st.lists(st.text(alphabet="abé🦙", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 5), max_size=20),
)
def test_however_it_is_cut_the_text_ends_before_the_first_stop_string(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    settler = TextSettler(stop)
    shown = ""
    for piece in chop(text.encode(), cuts):
        shown += settler.feed(piece)
        if settler.stopped:
            break
        assert text.startswith(shown)
        assert not any(s in shown for s in stop)
    if settler.stopped:
        assert settler.finish() == ""
        rest = text[len(shown) :]
        assert any(rest.startswith(s) for s in stop)
    else:
        assert shown + settler.finish() == text
        assert not any(s in text for s in stop)


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"\xf0\x9f", b"\xa6\x99!"], ["", "🦙!"]),
        ([b"a\xff", b"b"], ["a�", "b"]),
        ([b"\xe6\xb0", b"x"], ["", "�x"]),
    ],
)
def test_broken_characters(pieces: list[bytes], shown: list[str]) -> None:
    settler = TextSettler()
    assert [settler.feed(piece) for piece in pieces] == shown


def test_a_cut_character_at_the_end_is_left_out() -> None:
    settler = TextSettler(("zzz",))
    assert settler.feed("é".encode()[:1]) == ""
    assert settler.finish() == ""


CONTROL = control_pattern(["<|im_start|>", "<|im_end|>", "<|im", ""])


def template(turns: list[Turn]) -> str:
    return "".join(f"<|im_start|>{t['role']}\n{t['content'].strip()}<|im_end|>\n" for t in turns)


def turn(content: str) -> Turn:
    return {"role": "user", "content": content}


def test_what_has_no_control_text_is_one_piece() -> None:
    assert render([turn(" hello ")], template, CONTROL) == [
        Piece("<|im_start|>user\nhello<|im_end|>\n", True)
    ]


def test_control_texts_of_users_are_kept_apart() -> None:
    pieces = render([turn("a<|im_end|>b"), turn("<|im_start|>")], template, CONTROL)
    assert pieces == [
        Piece("<|im_start|>user\na", True),
        Piece("<|im_end|>", False),
        Piece("b<|im_end|>\n<|im_start|>user\n", True),
        Piece("<|im_start|>", False),
        Piece("<|im_end|>\n", True),
    ]


def test_markers_in_a_users_text_do_no_harm() -> None:
    written = "\ue0000\ue001 <|im_end|> \ue000"
    pieces = render([turn(written)], template, CONTROL)
    assert "".join(p.text for p in pieces) == template([turn(written)])
    assert [p.text for p in pieces if not p.template] == ["<|im_end|>"]


@given(st.lists(st.text(alphabet="ab<|>im_start\ue000\ue00101\n", max_size=30), min_size=1))
def test_put_together_it_is_what_the_template_gave(contents: list[str]) -> None:
    turns = [turn(content) for content in contents]
    assert "".join(p.text for p in render(turns, template, CONTROL)) == template(turns)


def test_a_vocabulary_without_control_tokens() -> None:
    assert control_pattern([]) is None
    assert render([turn("<|im_end|>")], template, None) == [
        Piece("<|im_start|>user\n<|im_end|><|im_end|>\n", True)
    ]


def as_given(turns: list[Turn]) -> str:
    """A template that keeps white space, where `template` strips it."""
    return "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns)


HEAD = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("shows", "content", "end"),
    [
        (as_given, "Once upon", "Once upon"),
        (as_given, "Once upon ", "Once upon "),
        (as_given, "", ""),
        (as_given, "\n", "\n"),
        (template, "Once upon", "Once upon"),
        (template, " Once upon \n", "Once upon"),
        (template, "", ""),
        (template, " \n", ""),
    ],
)
def test_a_last_message_is_continued_where_it_ends(shows, content: str, end: str) -> None:
    asked = [turn("Hi"), {"role": "assistant", "content": content}]
    pieces = render(asked, shows, CONTROL, continues=True)
    assert pieces == [Piece(HEAD + end, True)]
    assert render(asked, shows, None, continues=True) == pieces


def test_control_texts_and_markers_in_a_message_to_be_continued_stay_its_text() -> None:
    written = "\ue000\ue001 a<|im_end|>b\ue000\ue001"
    asked = [turn("\ue0000\ue001"), {"role": "assistant", "content": written}]
    pieces = render(asked, as_given, CONTROL, continues=True)
    assert "".join(piece.text for piece in pieces) == HEAD.replace("Hi", "\ue0000\ue001") + written
    assert [piece.text for piece in pieces if not piece.template] == ["<|im_end|>"]


def test_what_a_template_does_not_show_cannot_be_continued() -> None:
    asked = [turn("Hi"), {"role": "assistant", "content": "Once"}]
    with pytest.raises(TemplateError, match="can be continued"):
        render(asked, lambda turns: as_given(turns[:1]), CONTROL, continues=True)


MARKS = ["<|USER_TOKEN|>", "<\uff5cUser\uff5c>", "<|start|>"]


def test_marks_of_roles_are_told_from_other_user_defined_tokens() -> None:
    others = ["\n\n", "   ", "<think>", "<tool_call>", "[PAD12]", "word", "<|", "|>", "<|channel>"]
    assert mark_texts([*MARKS, *others], None, lambda _: ()) == MARKS
    # in brackets, it is one if the template writes it around what is said
    shown = "\n[INST] user [/INST]"
    texts = ["[INST]", "<start_of_turn>", "user", "\n"]
    assert mark_texts(texts, shown, lambda _: ()) == ["[INST]"]
    # and none if it looks for it in what is said
    assert mark_texts(MARKS, None, lambda marks: marks[1:]) == MARKS[:1]


@given(st.lists(st.sampled_from([*MARKS, "<|", "a", "|>", "<", "USER_TOKEN"])).map("".join))
def test_no_part_of_a_text_that_is_cut_holds_a_mark(text: str) -> None:
    parts = cut_marks(text, control_pattern(MARKS))
    assert "".join(parts) == text
    assert not any(mark in part for part in parts for mark in MARKS)
    assert cut_marks(text, None) == ([text] if text else [])
