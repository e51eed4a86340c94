"""Conversations reach chat templates in a form that shows all of them: found by rendering."""

from __future__ import annotations

import itertools
from functools import partial
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workers.errors import SettingsError, TemplateError
from workers.llama import chat
from workers.llama.chat import Turn
from workers.llama.template import MAX_TEMPLATE_BYTES, ChatTemplate, read_template
from workers.wire import TemplateArg

OPEN = "{% if add_generation_prompt %}<A>{% endif %}"
CLOSED = "{% if m.role == 'assistant' %}</s>{% endif %}"
OTHERS = (
    "{% for m in messages if m.role != 'system' %}"
    "<{{ m.role[0]|upper }}>{{ m.content }}{% endfor %}"
)
SOURCES = {
    # each message in its place, as ChatML and most
    "keeps": "{% for m in messages %}<{{ m.role[0]|upper }}>{{ m.content }}"
    + CLOSED
    + "{% endfor %}"
    "{% if add_generation_prompt %}<A>{% endif %}",
    # the first of several, and none that comes later
    "loses": "{% if messages[0].role == 'system' %}<S>{{ messages[0].content }}{% endif %}"
    + OTHERS
    + OPEN,
    # all of them, at the beginning
    "moves": "{% for m in messages if m.role == 'system' %}<S>{{ m.content }}{% endfor %}"
    + OTHERS
    + OPEN,
    # a second one, and one that comes later
    "refuses": "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "<{{ m.role[0]|upper }}>{{ m.content }}{% endfor %}" + OPEN,
    # any of them, as Gemma 1 and 2, which also want the roles to alternate
    "gemma": "{% if messages[0].role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<{{ m.role[0]|upper }}>{{ m.content|trim }}{% endfor %}" + OPEN,
    # none at all, in silence
    "knows none": OTHERS + OPEN,
    # with the last message, if that is the user's, as Mistral's v3
    "last turn": "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role[0]|upper }}>"
    "{% if m.role == 'user' and loop.last and system is defined %}{{ system }} {% endif %}"
    "{{ m.content }}{% endfor %}" + OPEN,
}
SOURCES["alternates"] = (
    # a later one where the assistant's turn would be, as Mistral Small 3.2
    "{% set rest = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}"
    "{% for m in messages %}<{{ m.role[0]|upper }}>{{ m.content }}{% endfor %}" + OPEN
)
NAMES = {"s": "system", "u": "user", "a": "assistant"}


def formatter(source: str, opens: bool):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(source)

    def refuse(message: str) -> None:
        raise ValueError(message)

    def render(messages: list[Turn], **args: Any) -> SimpleNamespace:
        return SimpleNamespace(
            prompt=template.render(
                messages=messages,
                add_generation_prompt=opens,
                raise_exception=refuse,
                **args,
            )
        )

    return render


TEMPLATES = {name: ChatTemplate(source, formatter) for name, source in SOURCES.items()}


def turns(roles: str) -> list[Turn]:
    """`su` is a system message and a user's, each with a content of its own."""
    return [{"role": NAMES[role], "content": f"w{at}."} for at, role in enumerate(roles)]


def prompt(name: str, roles: str) -> str:
    template = TEMPLATES[name]
    return template.render(template.fit(turns(roles), "merge"))


@pytest.mark.parametrize(
    ("name", "system", "lone", "answered", "later", "same_role"),
    [
        ("keeps", True, True, True, True, True),
        ("loses", True, True, True, False, True),
        ("moves", True, True, True, False, True),
        ("refuses", True, True, True, False, True),
        ("gemma", False, False, False, False, False),
        ("knows none", False, False, False, False, True),
        ("last turn", True, False, False, False, False),
        ("alternates", True, True, True, False, False),
    ],
)
def test_what_a_template_does_is_found_by_rendering(
    name: str, system: bool, lone: bool, answered: bool, later: bool, same_role: bool
) -> None:
    traits = TEMPLATES[name].traits
    assert traits.renders
    assert traits.system is system
    assert traits.lone_system is lone
    assert traits.system_before_answer is answered
    assert traits.later_system is later
    assert traits.same_role is same_role


@pytest.mark.parametrize(
    ("name", "roles", "shown"),
    [
        # a template without system messages: merged as llama.cpp's server does it
        ("gemma", "su", "<U>w0.\nw1.<A>"),
        ("gemma", "suau", "<U>w0.\nw1.<A>w2.<U>w3.<A>"),
        ("gemma", "sau", "<U>w0.<A>w1.<U>w2.<A>"),
        ("gemma", "s", "<U>w0.<A>"),
        ("gemma", "usu", "<U>w0.\nw1.\nw2.<A>"),
        ("gemma", "suasu", "<U>w0.\nw1.<A>w2.<U>w3.\nw4.<A>"),
        ("gemma", "uas", "<U>w0.<A>w1.<U>w2.<A>"),
        ("knows none", "su", "<U>w0.\nw1.<A>"),
        ("knows none", "uasu", "<U>w0.<A>w1.<U>w2.<U>w3.<A>"),
        # several at the beginning are one
        ("keeps", "ssu", "<S>w0.\n\nw1.<U>w2.<A>"),
        ("loses", "sssu", "<S>w0.\n\nw1.\n\nw2.<U>w3.<A>"),
        ("refuses", "ssu", "<S>w0.\n\nw1.<U>w2.<A>"),
        ("gemma", "ssu", "<U>w0.\n\nw1.\nw2.<A>"),
        # a later one stays where it is shown, and is the user's elsewhere
        ("keeps", "suasu", "<S>w0.<U>w1.<A>w2.</s><S>w3.<U>w4.<A>"),
        ("loses", "suasu", "<S>w0.<U>w1.<A>w2.<U>w3.<U>w4.<A>"),
        ("moves", "us", "<U>w0.<U>w1.<A>"),
        ("refuses", "uas", "<U>w0.<A>w1.<U>w2.<A>"),
        # and in some places only, if it is shown in those only
        ("alternates", "usu", "<U>w0.<S>w1.<U>w2.<A>"),
        ("alternates", "us", "<U>w0.<S>w1.<A>"),
        ("alternates", "suasu", "<S>w0.<U>w1.<A>w2.<U>w3.\nw4.<A>"),
        ("alternates", "ssusuau", "<S>w0.\n\nw1.<U>w2.<S>w3.<U>w4.<A>w5.<U>w6.<A>"),
        # as the model was trained, but where that would lose it
        ("last turn", "suau", "<U>w1.<A>w2.<U>w0. w3.<A>"),
        ("last turn", "sua", "<U>w0.\nw1.<A>w2.<A>"),
        ("last turn", "s", "<U>w0.<A>"),
    ],
)
def test_a_conversation_as_the_model_sees_it(name: str, roles: str, shown: str) -> None:
    assert prompt(name, roles) == shown


@pytest.mark.parametrize("name", ["keeps", "loses", "moves", "refuses", "knows none"])
def test_nothing_is_lost_or_moved_however_the_roles_follow_each_other(name: str) -> None:
    for length in range(1, 6):
        for roles in itertools.product("sua", repeat=length):
            text = prompt(name, "".join(roles))
            places = [text.find(turn["content"]) for turn in turns("".join(roles))]
            assert -1 not in places, roles
            assert places == sorted(places), roles


@pytest.mark.parametrize("name", ["gemma", "last turn"])
def test_where_roles_must_alternate_a_system_message_anywhere_does_no_harm(name: str) -> None:
    for length in (1, 3, 5):
        for places in itertools.product(range(length + 1), repeat=2):
            roles = list("uauau"[:length])
            for place in sorted(places, reverse=True):
                roles.insert(place, "s")
            text = prompt(name, "".join(roles))
            assert all(turn["content"] in text for turn in turns("".join(roles))), roles


@given(st.lists(st.sampled_from("sua"), min_size=1, max_size=8))
def test_what_needs_no_change_is_given_as_it_is(roles: list[str]) -> None:
    asked = turns("".join(roles))
    if roles[:2] != ["s", "s"]:
        assert TEMPLATES["keeps"].fit(asked, "merge") == asked
        assert TEMPLATES["keeps"].fit(asked, "refuse") == asked


@pytest.mark.parametrize(
    ("name", "roles"), [("gemma", "su"), ("knows none", "su"), ("loses", "sus"), ("moves", "us")]
)
def test_what_would_become_the_users_text_is_refused_on_request(name: str, roles: str) -> None:
    with pytest.raises(TemplateError, match="put its text into a user's message"):
        TEMPLATES[name].fit(turns(roles), "refuse")
    assert TEMPLATES["loses"].fit(turns("su"), "refuse") == turns("su")


def test_a_later_system_message_that_is_shown_is_neither_changed_nor_refused() -> None:
    for roles in ("usu", "us", "sus", "susu", "usususususususususususu"):
        asked = turns(roles)
        for turn in asked:
            turn["content"] = "w"  # the same in all of them
        for system in ("merge", "refuse"):
            assert TEMPLATES["alternates"].fit(asked, system) == asked
    with pytest.raises(TemplateError, match="put its text into a user's message"):
        TEMPLATES["alternates"].fit(turns("suasu"), "refuse")


def test_a_system_message_that_says_nothing_is_left_out_where_it_would_be_the_users() -> None:
    blank = {"role": "system", "content": " \n"}
    asked = turns("u")
    for system in ("merge", "refuse"):
        assert TEMPLATES["gemma"].fit([blank, *asked], system) == asked
        assert TEMPLATES["loses"].fit([*asked, blank], system) == asked
    # some write one of their own where there is none
    assert TEMPLATES["keeps"].fit([blank, *asked], "merge") == [blank, *asked]
    assert TEMPLATES["gemma"].fit([blank], "merge") == [{"role": "user", "content": " \n"}]


def test_a_template_that_shows_no_user_gets_conversations_as_they_are() -> None:
    template = ChatTemplate("{{ messages[0].parts[0].text.upper() }}", formatter)
    assert not template.traits.renders
    asked = turns("usu")
    assert template.fit(asked, "merge") == asked
    with pytest.raises(TemplateError, match="cannot show the messages"):
        template.render(asked)


def test_what_a_template_cannot_use_is_told_without_pythons_words() -> None:
    source = SOURCES["keeps"] + "{% if mode is defined and 'x' in mode %}x{% endif %}"
    template = ChatTemplate(source, formatter)
    assert template.render(turns("u"), args={"mode": "xy"}).endswith("x")
    with pytest.raises(TemplateError) as told:
        template.render(turns("u"), args={"mode": 5})
    assert told.value.message == (
        "The model's chat template cannot show the messages with these chat_template_kwargs."
    )
    with pytest.raises(TemplateError, match=r"refused the messages \(System role not supported"):
        TEMPLATES["gemma"].render(turns("su"))


def test_a_template_that_does_not_parse_is_no_template() -> None:
    with pytest.raises(jinja2.TemplateSyntaxError):
        ChatTemplate("{% for m in messages %}", formatter)


def test_files_that_are_no_templates_are_refused_in_words(tmp_path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_bytes(b"\xef\xbb\xbf{{ messages }}\n")
    assert read_template(path) == "{{ messages }}\n", "editors of some systems mark UTF-8"
    for data, words in (
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b" \n", "is empty"),
        (b"x" * (MAX_TEMPLATE_BYTES + 1), "is longer than 1048576 bytes"),
    ):
        path.write_bytes(data)
        with pytest.raises(SettingsError, match=words) as refused:
            read_template(path)
        assert str(path) in refused.value.message
        assert "HERD_CHAT_TEMPLATE" in refused.value.message
    for wrong, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(SettingsError, match=words):
            read_template(wrong)


# As Qwen 3 (on unless told), DeepSeek V3.1 (off unless told), gpt-oss, and one that knows `none`.
SWITCHES = {
    "qwen": "{% if enable_thinking is defined and not enable_thinking %}<off>{% endif %}",
    "deepseek": "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
    "{% if thinking %}<on>{% endif %}",
    "gpt-oss": "{{ 'Reasoning: ' + (reasoning_effort|default('medium')) }}",
    "knows": "{% if reasoning_effort == 'none' %}<none>{% else %}{{ reasoning_effort }}{% endif %}",
}


@pytest.mark.parametrize(
    ("name", "args", "shown"),
    [
        ("qwen", {}, ""),
        ("qwen", {"enable_thinking": True}, ""),
        ("qwen", {"enable_thinking": False}, "<off>"),
        ("qwen", {"reasoning_effort": "none"}, "<off>"),
        ("qwen", {"reasoning_effort": "none", "enable_thinking": True}, ""),
        ("qwen", {"reasoning_effort": "high", "unknown": 3}, ""),
        ("deepseek", {}, ""),
        ("deepseek", {"thinking": True}, "<on>"),
        ("deepseek", {"reasoning_effort": "none"}, ""),
        ("gpt-oss", {}, "Reasoning: medium"),
        ("gpt-oss", {"reasoning_effort": "high"}, "Reasoning: high"),
        ("gpt-oss", {"reasoning_effort": "none"}, "Reasoning: medium"),
        ("knows", {"reasoning_effort": "none"}, "<none>"),
        ("knows", {"reasoning_effort": "low"}, "low"),
    ],
)
def test_a_callers_variables_reach_the_template_and_none_turns_thinking_off(
    name: str, args: dict[str, TemplateArg], shown: str
) -> None:
    template = ChatTemplate(SOURCES["keeps"] + SWITCHES[name], formatter)
    assert template.traits.renders
    asked = turns("u")
    assert template.render(asked, args=args) == TEMPLATES["keeps"].render(asked) + shown


@pytest.mark.parametrize("name", SOURCES)
def test_an_assistants_last_message_is_continued_by_any_of_them(name: str) -> None:
    template = TEMPLATES[name]
    for roles in ("ua", "sua", "uasua"):
        asked = template.fit(turns(roles), "merge")
        shows = partial(template.render, opens=False)
        (piece,) = chat.render(asked, shows, None, continues=True)
        assert piece.text.endswith(f"<A>w{len(roles) - 1}."), "neither closed nor opened"
        assert all(turn["content"] in piece.text for turn in turns(roles))


MARK = "<|{{ m.role }}|>"
SEEKING = {
    # the last turn's reasoning only, as GLM
    "splits": "{% for m in messages %}" + MARK + "{% set said = m.content %}"
    "{% if m.role == 'assistant' %}{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1] %}"
    "{% set said = said.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "<think>{{ thought if loop.last else '' }}</think>{% endif %}{{ said }}{% endfor %}",
    # one that is there twice, as Nemotron
    "adds": "{% for m in messages %}" + MARK + "{% if m.role == 'assistant' and"
    " '<think>' not in m.content and '</think>' not in m.content %}<think></think>{% endif %}"
    "{{ m.content }}{% endfor %}",
    "wants both": "{% for m in messages %}" + MARK + "{% if m.role == 'assistant' %}<think></think>"
    "{% if '<think>' in m.content and '</think>' in m.content %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    # marks that are taken for those of roles by their form, as Command-R7B has
    "cuts": "{% for m in messages %}" + MARK + "{{ m.content.split('<|END_THINKING|>')[-1] }}"
    "{% endfor %}",
    # a tool's answer in a user's message, as Qwen3
    "tools": "{% for m in messages %}" + MARK + "{% if m.content.startswith('<|tool|>')"
    " and m.content.endswith('<|/tool|>') %}(a tool){% endif %}{{ m.content }}{% endfor %}",
    # a system message's flag
    "flags": "{% for m in messages %}" + MARK + "{% if m.role == 'system' %}"
    "{{ m.content.replace('<|quiet|>', '') }}{% else %}{{ m.content }}{% endif %}{% endfor %}",
}
ROLE_MARKS = ["<|system|>", "<|user|>", "<|assistant|>"]
TAGS = ["<think>", "</think>", "<|START_THINKING|>", "<|END_THINKING|>"]
TOOLS = ["<|tool|>", "<|/tool|>", "<|quiet|>", "<|elsewhere|>"]
SAID = (
    "A<think>B</think>C",
    "<think>\nB\n</think>\n\nC",
    "B</think>C",
    "<think>B",
    "</think>",
    "A<think>B</think>C<think>D</think>E",
    "A<|START_THINKING|>B<|END_THINKING|>C",
    "<|tool|>B<|/tool|>",
    "A<|quiet|>B",
)


@pytest.mark.parametrize("name", SEEKING)
def test_what_a_template_looks_for_in_messages_is_left_there_where_tokens_are_user_defined(
    name: str,
) -> None:
    template = ChatTemplate(SEEKING[name], formatter)
    defined = [*ROLE_MARKS, *TAGS, *TOOLS]
    marks = chat.mark_texts(defined, template.shown(), template.sought)
    assert {*ROLE_MARKS, "<|elsewhere|>"} <= set(marks), "they stay what users cannot write"
    shows = partial(template.render, opens=False)
    control = chat.control_pattern(marks)
    for said in SAID:
        for roles in ("uaua", "uau", "su"):
            for content in (said, f"A<|user|>{said}"):
                asked = [{**turn, "content": content} for turn in turns(roles)]
                pieces = chat.render(asked, shows, control)
                assert "".join(piece.text for piece in pieces) == shows(asked), (content, roles)
                if "</think>" not in said and "_THINKING" not in said:
                    plain = {piece.text for piece in pieces if not piece.template}
                    assert ("<|user|>" in plain) is ("<|user|>" in content)


def test_what_a_template_refuses_in_messages_stays_a_mark() -> None:
    """As gpt-oss: its own refusal is no reason to let users write such a mark."""
    source = (
        "{% for m in messages %}" + MARK + "{% if '<|channel|>' in m.content %}"
        "{{ raise_exception('no channels') }}{% endif %}{{ m.content }}{% endfor %}"
    )
    template = ChatTemplate(source, formatter)
    assert template.sought(["<|channel|>", "<|user|>"]) == set()
    assert ChatTemplate("{{ messages[0].parts }}", formatter).sought(["<|user|>"]) == set()
