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


def render(
    messages: Sequence[Turn],
    template: Callable[[list[Turn]], str],
    control: re.Pattern[str] | None,
) -> list[Piece]:
    """Put messages through a chat template.

    Args:
        messages: the conversation.
        template: what turns messages into the prompt's text.
        control: what finds texts of control tokens.

    Returns:
        The prompt in pieces; only those of users' control texts are not `template`.
    """
    if control is None or not any(control.search(turn["content"]) for turn in messages):
        return [Piece(template(list(messages)), True)]
    name = _unused_marker([turn["content"] for turn in messages])
    taken: list[str] = []

    def take(match: re.Match[str]) -> str:
        taken.append(match[0])
        return f"{name}{len(taken) - 1}\ue001"

    marked = [{**turn, "content": control.sub(take, turn["content"])} for turn in messages]
    text = template(marked)
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


def _unused_marker(contents: Sequence[str]) -> str:
    """Return a beginning for markers, of private-use characters, that nobody wrote."""
    marker = "\ue000"
    while any(marker in content for content in contents):
        marker += "\ue000"
    return marker
