"""The marks of reasoning are found in chat templates; a prompt tells whether a thought began."""

from __future__ import annotations

import pytest

from workers.engine.splitters import Channels, Tags
from workers.llama.thinking_marks import TAGS, closing, find_marks, thinking_after

THINK = TAGS[0]
HARMONY = Channels()


@pytest.mark.parametrize("tags", TAGS)
def test_tags_that_a_template_writes_are_its_models(tags):
    opens, closes = (mark.replace("\n", "\\n") for mark in tags)
    template = f"{{{{ '{opens}' + message.reasoning_content + '{closes}' }}}}{{{{ content }}}}"
    assert find_marks(template) == tags


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        # Gemma 4 and Solar Open put theirs together of what stands apart
        ("{{ '<|channel>' + name }}{{ content.split('<channel|>') }}", TAGS[6]),
        ("{{ '<|think|>' + thought + '<|end|>' }}{{ '<|content|>' + content }}", TAGS[8]),
        ("<|start|>assistant<|channel|>analysis<|message|>x <|channel|>final<|message|>", HARMONY),
        ("{{ content.split('</think>')[-1] }}", None),
        ("I think so, {{ message.content }}", None),
        ("", None),
    ],
)
def test_a_template_without_both_marks_has_none(template, marks):
    assert find_marks(template) == marks


@pytest.mark.parametrize(
    ("prompt", "begun"),
    [
        ("<|im_start|>assistant\n", False),
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n<think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("", False),
    ],
)
def test_a_thought_begins_in_the_prompt_where_that_ends_with_its_mark(prompt, begun):
    found = thinking_after(THINK, prompt, {})
    assert found is not None
    assert found.begun is begun
    assert closing(found) == ("\n</think>\n\n" if begun else "")


def test_an_answer_that_is_bound_goes_to_the_final_channel():
    found = thinking_after(HARMONY, "<|start|>assistant", {})
    assert closing(found) == "<|channel|>final<|message|>"


def test_a_model_without_marks_thinks_not():
    assert thinking_after(None, "<think>", {}) is None
    assert closing(None) == ""


def test_gemmas_tag_is_open_whatever_line_ends_follow():
    gemma = Tags("<|channel>thought\n", "<channel|>")
    assert gemma in TAGS
    assert thinking_after(gemma, "<|turn>model\n<|channel>thought\n", {}).begun
    assert not thinking_after(gemma, "<|turn>model\n<|channel>thought\n<channel|>", {}).begun
