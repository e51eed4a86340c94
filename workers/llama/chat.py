"""Prompts and messages to text for the model, with what users wrote kept apart. Pure.

A control token's text, such as `<|im_start|>`, must only count as that token where the chat
template wrote it. So such texts are taken out of what users wrote before the template renders it,
a marker in the place of each, and put back afterwards as plain text. All else of the prompt is
tokenised in one piece, exactly as if nobody had looked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from workers.errors import TemplateError

Turn = dict[str, str]
"""One message as templates read it: `role` and `content`."""


class Piece(NamedTuple):
    """A part of the rendered prompt.

    Attributes:
        text: the text.
        template: whether control tokens in it are meant as such.
    """

    text: str
    template: bool


def control_pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds control tokens, the longest first; None if there are none."""
    ordered = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


def mark_texts(
    texts: Iterable[str], shown: str | None, sought: Callable[[Sequence[str]], Iterable[str]]
) -> list[str]:
    """Return the marks of roles among the texts of user-defined tokens.

    llama.cpp reads texts of user-defined tokens as those tokens, whoever wrote them. Most are words
    or white space; but in some vocabularies (Command-R, gpt-oss) what tells who speaks is one too.
    What the template looks for in messages, as in `content.split('</think>')`, is left there to be
    found.

    Args:
        texts: those of the user-defined tokens.
        shown: what the chat template writes around an ordinary conversation, if that is known.
        sought: tells which of some texts the chat template looks for in messages.
    """
    marks = [
        text
        for text in texts
        if _MARK.fullmatch(text) or (_BRACKETED.fullmatch(text) and text in (shown or ""))
    ]
    found = frozenset(sought(marks))
    return [mark for mark in marks if mark not in found]


_MARK = re.compile(r"<(\||\uff5c)[^<>]+\1>")
_BRACKETED = re.compile(r"[<\[{(【「]\S*\w\S*[>\]})】」]")


def cut_marks(text: str, marks: re.Pattern[str] | None) -> list[str]:
    """Return a text in parts of which none holds a mark: each is cut behind its first character."""
    parts: list[str] = []
    start = 0
    while marks is not None and (match := marks.search(text, start)):
        parts.append(text[start : match.start() + 1])
        start = match.start() + 1
    parts.append(text[start:])
    return [part for part in parts if part]


def render(
    messages: Sequence[Turn],
    template: Callable[[list[Turn]], str],
    control: re.Pattern[str] | None,
    *,
    continues: bool = False,
) -> list[Piece]:
    """Put messages through a chat template.

    Args:
        messages: the conversation.
        template: what turns messages into the prompt's text.
        control: what finds texts of control tokens.
        continues: whether the prompt ends with the text of the last message, to be continued.

    Returns:
        The prompt in pieces; only those of users' control texts are not `template`.

    Raises:
        TemplateError: the template does not show the message that is to be continued.
    """
    is_marked = control is not None and any(control.search(turn["content"]) for turn in messages)
    if not is_marked and not continues:
        return [Piece(template(list(messages)), True)]
    name = _unused_marker([turn["content"] for turn in messages])
    taken: list[str] = []

    def take(match: re.Match[str]) -> str:
        taken.append(match[0])
        return f"{name}{len(taken) - 1}\ue001"

    marked = list(messages)
    if control is not None:
        marked = [{**turn, "content": control.sub(take, turn["content"])} for turn in messages]
    if continues:
        marked[-1] = {**marked[-1], "content": f"{marked[-1]['content']}{name}\ue001 "}
    text = template(marked)
    if continues:
        text = _upto(text, f"{name}\ue001", messages[-1]["content"])
    pieces: list[Piece] = []
    at = 0
    for match in re.finditer(re.escape(name) + "([0-9]+)\ue001", text):
        if match.start() > at:
            pieces.append(Piece(text[at : match.start()], True))
        pieces.append(Piece(taken[int(match[1])], False))
        at = match.end()
    if at < len(text):
        pieces.append(Piece(text[at:], True))
    return pieces


def _upto(text: str, marker: str, content: str) -> str:
    """Return a prompt up to the end of its last message's content.

    A template that strips the white space behind the marker would have stripped that of the
    content, as transformers has it: then it is left out here too.
    """
    head, found, rest = text.rpartition(marker)
    if not found:
        raise TemplateError(
            "The model's chat template does not show the last message so that it can be continued."
        )
    blank = len(content) - len(content.rstrip())
    if rest.startswith(" ") or not blank or blank == len(content):
        return head
    return head[:-blank]


def _unused_marker(contents: Sequence[str]) -> str:
    """Return a beginning for markers, of private-use characters, that nobody wrote."""
    marker = "\ue000"
    while any(marker in content for content in contents):
        marker += "\ue000"
    return marker
