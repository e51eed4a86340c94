"""Chat templates in front of the real model: its own, and one from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.live_support import work
from tests.support.running import RunningHerd
from workers.errors import SettingsError, TemplateError
from workers.wire import ChatMessage

pytestmark = pytest.mark.live

EX_CONFIG = 78
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ bos_token }}{% for m in messages %}{% generation %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endgeneration %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template that knows no system message, as Gemma 1 and 2, in the demo model's marks."""


def load(path: Path, template: Path | None = None, **options: Any) -> Any:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    return LlamaModel(LlamaOptions(path=path, slots=1, chat_template=template, **options))


def prompt(model: Any, *turns: tuple[str, str], **changes: Any) -> str:
    """What the model reads, control tokens written out."""
    messages = tuple(ChatMessage(role=role, content=text) for role, text in turns)
    tokens = model.prepare(work(None, messages=messages, raw=False, **changes)).tokens
    return (
        "".join(model._vocab._text(token) for token in tokens).replace("Ġ", " ").replace("Ċ", "\n")
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("templates") / "chat.jinja"
    path.write_text(NO_SYSTEM)
    return path


def test_the_demos_model_shows_system_messages_anywhere_and_two_at_the_beginning_as_one(
    model_path: Path,
) -> None:
    model = load(model_path)
    facts = model.facts.template
    assert (facts.source, facts.path, facts.renders) == ("model", None, True)
    assert (facts.system, facts.later_system) == ("shown", "shown")
    assert prompt(
        model, ("system", "One."), ("system", "Two."), ("user", "Hi."), ("system", "Three.")
    ) == (
        "<|im_start|>system\nOne.\n\nTwo.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n"
        "<|im_start|>system\nThree.<|im_end|>\n<|im_start|>assistant\n"
    )
    model.close()


def test_a_file_takes_the_place_of_the_models_template_and_a_system_message_is_merged(
    model_path: Path, template: Path
) -> None:
    model = load(model_path, template)
    facts = model.facts.template
    assert (facts.source, facts.path, facts.renders) == ("file", str(template), True)
    assert (facts.system, facts.later_system) == ("merged", "merged")
    asked = (("system", "Be brief."), ("user", "Hi."))
    text = "<|im_start|>user\nBe brief.\nHi.<|im_end|>\n<|im_start|>assistant\n"
    assert prompt(model, *asked).endswith(text)
    counted = work(None, messages=tuple(ChatMessage(role=r, content=c) for r, c in asked))
    assert model.count_tokens(counted) == len(model.prepare(counted).tokens)
    model.close()


def test_system_messages_are_refused_on_request(model_path: Path, template: Path) -> None:
    model = load(model_path, template, system="refuse")
    assert model.facts.template.system == "refused"
    with pytest.raises(TemplateError, match="put its text into a user's message"):
        prompt(model, ("system", "Be brief."), ("user", "Hi."))
    assert prompt(model, ("user", "Hi.")).endswith("Hi.<|im_end|>\n<|im_start|>assistant\n")
    model.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{% for m in messages %}\n{{ m.content }", r"does not parse as a chat template \(line 2"),
        ("{{ messages[0].parts[0].text }}", "does not show the message of a user"),
        ("{{ bos_token }}Nobody asked.", "does not show the message of a user"),
    ],
)
def test_a_file_that_is_no_chat_template_is_refused_in_words(
    model_path: Path, tmp_path: Path, text: str, words: str
) -> None:
    wrong = tmp_path / "wrong.jinja"
    wrong.write_text(text)
    with pytest.raises(SettingsError, match=words) as refused:
        load(model_path, wrong)
    assert str(wrong) in refused.value.message
    assert "messages" not in refused.value.message, "it does not show the template"


def test_a_worker_says_which_template_it_uses_and_ends_with_one_sentence_without(
    real_herd: RunningHerd, template: Path, tmp_path: Path
) -> None:
    own = next(child for child in real_herd.children if "model_ready" in child.log)
    (line,) = [line for line in own.log.splitlines() if " chat_template " in line]
    assert "source=model" in line
    assert "system=shown" in line

    other = real_herd.begin_worker(HERD_CHAT_TEMPLATE=str(template))
    other.says("model_ready")
    (line,) = [line for line in other.log.splitlines() if " chat_template " in line]
    assert "source=file" in line
    assert f"path={template}" in line
    assert "system=merged" in line
    assert "im_start" not in other.log, "its text is nobody's to log"

    wrong = tmp_path / "wrong.jinja"
    wrong.write_text("{% if %}")
    for path, words in ((wrong, "does not parse"), (tmp_path / "none.jinja", "No such file")):
        ended = real_herd.begin_worker(HERD_CHAT_TEMPLATE=str(path))
        assert ended.ended() == EX_CONFIG, ended.log
        assert "Traceback" not in ended.log
        (last,) = ended.log.strip().splitlines()[-1:]
        assert words in last
        assert str(path) in last
