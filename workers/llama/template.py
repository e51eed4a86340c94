"""A model's chat template: what it does with system messages, and how it is given what it can show.

What a template does is found by rendering short conversations with it, once, when it is loaded: by
its text nobody can tell. Templates lose, move or refuse what they do not know, most of them in
silence.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2.exceptions import SecurityError

from workers.errors import SettingsError, TemplateError
from workers.llama.chat import Turn
from workers.wire import TemplateArg

Formatter = Callable[..., Any]
"""Makes a chat of messages one text: `formatter(messages=...).prompt`."""

MAX_TEMPLATE_BYTES = 1024 * 1024
"""The longest file that is read as a chat template; the longest of a model known has 20 KiB."""

_WORDS = ("heron", "otter", "marten", "badger", "lynx")
"""Contents of the conversations that are tried: words that no template changes or writes."""

_HOLDERS = (
    ("user assistant user assistant", (1, 3)),
    ("user assistant user", (0, 2)),
    ("system user", (0,)),
)
"""Conversations, and the places in them of messages in which a template may look for something."""

_FORMS = {
    1: ("badger{}lynx", "{}badger", "badger{}"),
    2: ("lynx{}badger{}wolf", "{}badger{}"),
}
"""Contents of those messages, by the number of texts that they hold."""

_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates are told whether the model is to think: Qwen 3, GLM and SmolLM3 have
the first, DeepSeek V3.1 and Granite the second."""

_NONE = re.compile("""(['"])none\\1""")

_MAX_PAIRED = 24
"""Of so many texts each pair is tried. The most that a template known names is below that."""


def read_template(path: Path) -> str:
    """Read the file of a chat template.

    Raises:
        SettingsError: it cannot be read, is too long, or is not text.
    """
    name = f"HERD_CHAT_TEMPLATE names {path}, which"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"{name} cannot be read ({error.strerror}).") from error
    if len(data) > MAX_TEMPLATE_BYTES:
        raise SettingsError(f"{name} is longer than {MAX_TEMPLATE_BYTES} bytes.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SettingsError(f"{name} is not UTF-8 text.") from None
    if not text.strip():
        raise SettingsError(f"{name} is empty.")
    return text


@dataclass(frozen=True, slots=True)
class Traits:
    """The treatment that a template gives to messages that many templates do not know.

    Attributes:
        renders: it renders a user's message at all.
        system: it shows a system message at the beginning.
        lone_system: it shows one that nothing follows.
        system_before_answer: it shows one where the assistant's message is the last.
        later_system: it shows one that comes later, in its place, in all places tried.
        same_role: it shows two user messages in a row.
    """

    renders: bool
    system: bool
    lone_system: bool
    system_before_answer: bool
    later_system: bool
    same_role: bool

    def shows_system(self, turns: Sequence[Turn]) -> bool:
        """Return whether it shows the system message that a conversation begins with."""
        if all(turn["role"] == "system" for turn in turns):
            return self.lone_system
        is_answered = turns[-1]["role"] == "assistant"
        return self.system_before_answer if is_answered else self.system


_UNKNOWN = Traits(
    renders=False,
    system=True,
    lone_system=True,
    system_before_answer=True,
    later_system=True,
    same_role=True,
)
"""Of a template that refuses what can be tried: then each conversation is given as it is."""


class ChatTemplate:
    """A chat template, ready to render. Safe among threads.

    Args:
        source: the template's text.
        make_formatter: makes a formatter of it, with or without `add_generation_prompt`.

    Raises:
        Exception: what `make_formatter` raises for a template that does not parse.
    """

    def __init__(self, source: str, make_formatter: Callable[[str, bool], Formatter]) -> None:
        self.source = source
        self._opening = make_formatter(source, True)
        self._closed = make_formatter(source, False)
        self._knows_none = "reasoning_effort" in source and bool(_NONE.search(source))
        self.traits = self._find_traits()

    def render(
        self,
        turns: Sequence[Turn],
        *,
        opens: bool = True,
        args: Mapping[str, TemplateArg] | None = None,
    ) -> str:
        """Return the prompt of a conversation.

        Args:
            turns: the conversation.
            opens: whether the assistant's next turn is opened at the end.
            args: variables that the caller sets for it.

        Raises:
            TemplateError: the template refused it.
        """
        formatter = self._opening if opens else self._closed
        try:
            return str(formatter(messages=list(turns), **self._variables(args or {})).prompt)
        except (ValueError, SecurityError) as error:
            # the template's own raise_exception, or the sandbox
            raise TemplateError(
                f"The model's chat template refused the messages ({str(error)[:450]})."
            ) from error
        except Exception as error:
            # a bug in the template, or a variable that it cannot use: Python's own words
            told = " with these chat_template_kwargs" if args else ""
            raise TemplateError(
                f"The model's chat template cannot show the messages{told}."
            ) from error

    def _variables(self, args: Mapping[str, TemplateArg]) -> dict[str, TemplateArg]:
        """Return a caller's variables as this template knows them.

        Templates have one of several switches for a model that is not to think at all; few know
        `reasoning_effort` `none`, and one that does not (gpt-oss') writes the word as it is.
        """
        if args.get("reasoning_effort") != "none":
            return dict(args)
        given = {**dict.fromkeys(_THINKING_SWITCHES, False), **args}
        if not self._knows_none:
            del given["reasoning_effort"]
        return given

    def fit(self, turns: Sequence[Turn], system: Literal["merge", "refuse"]) -> list[Turn]:
        """Return a conversation as this template shows all of it.

        System messages at the beginning are joined into one. What the template would not show as a
        system message, in its place, becomes the user's text: at the beginning as llama.cpp's
        server has it, before the text of the user's first message. Many templates show a later one
        in some places only: then a conversation of the same roles is rendered to see.

        Args:
            turns: the conversation.
            system: `refuse` refuses instead what would become the user's.

        Raises:
            TemplateError: it is refused.
        """
        lead = _lead(turns)
        roles = ["system"] * (lead > 0) + [turn["role"] for turn in turns[lead:]]
        # Gemma writes any role where it wants the assistant's, though it knows no system message.
        shows_later = self.traits.later_system or (
            self.traits.system and "system" in roles[1:] and self._shows(" ".join(roles))
        )
        return _fit(turns, self.traits, system, shows_later=shows_later)

    def shown(self) -> str:
        """Return all that was rendered of an ordinary conversation, for the marks that it has."""
        chats = (_chat("user assistant user"), _chat("system user assistant user"))
        return "\n".join(filter(None, (self._tried(chat, opens=False) for chat in chats)))

    def sought(self, texts: Sequence[str]) -> set[str]:
        """Return those of some texts that the template looks for in what messages say.

        Most look for `</think>` in earlier answers, and leave out what stands before. Each text is
        tried alone and with each other one: where another in its place makes the rest of the prompt
        differ, it is one. A template that refuses it has not looked for it to use it.
        """
        shown = self.shown()
        # It can only look for what it holds, or has put together and mostly writes then.
        held = [text for text in texts if text in self.source or text in shown]
        found: set[str] = set()
        for group in _groups(held):
            for roles, places in _HOLDERS:
                for form in _FORMS[len(group)]:
                    found.update(self._sought_in(_chat(roles), places, form, group))
        return found

    def _sought_in(
        self, chat: list[Turn], places: Sequence[int], form: str, group: Sequence[str]
    ) -> Sequence[str]:
        def shown(*hidden: int) -> str | None:
            markers = [f"\ue000{at}\ue001" for at in range(len(group))]
            written = [markers[at] if at in hidden else text for at, text in enumerate(group)]
            for place in places:
                chat[place] = {**chat[place], "content": form.format(*written)}
            text = self._tried(chat, opens=False)
            for marker, meant in zip(markers, group, strict=True):
                text = text and text.replace(marker, meant)
            return text

        plain = shown()
        if plain is None:
            return ()
        found = [text for at, text in enumerate(group) if shown(at) != plain]
        return found or (() if shown(*range(len(group))) == plain else group)

    def _tried(self, turns: Sequence[Turn], *, opens: bool = True) -> str | None:
        try:
            return self.render(turns, opens=opens)
        except TemplateError:
            return None

    def _shows(self, *chats: str, in_order: bool = True) -> bool:
        """Return whether the template shows every message of these conversations, in order."""
        for roles in chats:
            chat = _chat(roles)
            text = self._tried(chat)
            if text is None:
                return False
            at = 0
            for turn in chat:
                place = text.find(turn["content"], at)
                if place == -1:
                    return False
                at = place if in_order else 0
        return True

    def _find_traits(self) -> Traits:
        if not self._shows("user"):
            return _UNKNOWN
        return Traits(
            renders=True,
            # In whatever place: some show it in the last turn, and were trained on that.
            system=self._shows("system user", "system user assistant user", in_order=False),
            lone_system=self._shows("system"),
            system_before_answer=self._shows("system user assistant", in_order=False),
            later_system=self._shows(
                "user system",
                "user assistant system user",
                "system user assistant system user",
                "user system assistant user",
                "user assistant user system",
            ),
            same_role=self._shows("user user", "user assistant user user"),
        )


def _chat(roles: str) -> list[Turn]:
    return [
        {"role": role, "content": f"{_WORDS[at % len(_WORDS)]}{at}."}
        for at, role in enumerate(roles.split())
    ]


def _lead(turns: Sequence[Turn]) -> int:
    """Return the number of system messages that a conversation begins with."""
    return next((at for at, turn in enumerate(turns) if turn["role"] != "system"), len(turns))


def _groups(texts: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Return each of some texts alone, then each two in either order."""
    yield from ((text,) for text in texts)
    yield from itertools.permutations(texts[:_MAX_PAIRED], 2)


def _fit(
    turns: Sequence[Turn],
    traits: Traits,
    system: Literal["merge", "refuse"],
    *,
    shows_later: bool,
) -> list[Turn]:
    lead = _lead(turns)
    head = list(turns[:lead])
    if lead > 1:
        texts = [turn["content"] for turn in head if turn["content"]]
        head = [{"role": "system", "content": "\n\n".join(texts)}]
    shows_lead = traits.shows_system(turns)
    fitted: list[Turn] = []
    joins = False  # whether the last of them takes up a user's message that follows
    for place, turn in enumerate([*head, *turns[lead:]]):
        is_lead = place < len(head)
        becomes_user = turn["role"] == "system" and not (shows_lead if is_lead else shows_later)
        if becomes_user and lead < len(turns) and not turn["content"].strip():
            continue  # it says nothing
        if becomes_user and system == "refuse":
            raise TemplateError(
                "The model's chat template does not show a system message in this place; put its "
                "text into a user's message."
            )
        role = "user" if becomes_user else turn["role"]
        is_second = bool(fitted) and role == "user" == fitted[-1]["role"]
        if is_second and (joins or (becomes_user and not traits.same_role)):
            content = f"{fitted[-1]['content']}\n{turn['content']}"
            fitted[-1] = {"role": "user", "content": content}
            joins = not traits.same_role
        else:
            fitted.append({**turn, "role": role})
            joins = becomes_user and (is_lead or not traits.same_role)
    return fitted
