"""The marks by which a model's reasoning is told from its answer, found in its chat template.

Templates show what the model was trained to write; which marks these are, nothing else in a model's
file says.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from workers.engine.splitters import Channels, Tags
from workers.engine.thinking import Thinking

_GEMMA = Tags("<|channel>thought\n", "<channel|>")
_SOLAR = Tags("<|think|>", "<|end|><|begin|>assistant<|content|>")

TAGS = (
    Tags("<think>", "</think>"),  # DeepSeek, Qwen 3, GLM, Granite, Kimi, MiniMax, Nemotron, SmolLM3
    Tags("<seed:think>", "</seed:think>"),  # Seed-OSS
    Tags("<mm:think>", "</mm:think>"),  # MiniMax M3
    Tags("[THINK]", "[/THINK]"),  # Mistral's
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    _GEMMA,
    Tags("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]"),  # Apriel
    _SOLAR,
)
"""The tags of models known; the first that stand in a template count."""

_WRITTEN = {_GEMMA: ("<|channel>", "<channel|>"), _SOLAR: ("<|think|>", "<|content|>")}
"""The parts of tags that templates put together."""

_CHANNELS = Channels()


def find_marks(template: str) -> Tags | Channels | None:
    """Return the marks of a model's reasoning; None where its chat template has none that is known.

    Args:
        template: the chat template's text.
    """
    # As Jinja reads it: a line's end within a quoted text is written as two characters.
    text = template.replace("\\n", "\n")
    if all(mark in text for mark in (_CHANNELS.channel, _CHANNELS.message, "analysis", "final")):
        return _CHANNELS
    for tags in TAGS:
        if all(mark in text for mark in _WRITTEN.get(tags, tags)):
            return tags
    return None


def thinking_after(
    marks: Tags | Channels | None, prompt: str, hidden: Mapping[int, str]
) -> Thinking | None:
    """Return the marks by which the continuation of a prompt is told apart.

    Args:
        marks: the model's.
        prompt: what the chat template wrote behind the last message.
        hidden: the texts of marks that are control tokens.
    """
    if marks is None:
        return None
    begun = isinstance(marks, Tags) and prompt.rstrip().endswith(marks.open.rstrip())
    return Thinking(marks, begun, MappingProxyType(dict(hidden)))


def closing(thinking: Thinking | None) -> str:
    """Return the text that ends a thought before it has begun, for the end of a prompt.

    Where an answer must follow a schema or a grammar from its first token, no thought can come
    before it; and a model that is not to think may have no other switch.
    """
    if thinking is None:
        return ""
    if isinstance(thinking.marks, Channels):
        return f"{thinking.marks.channel}{thinking.marks.answer}{thinking.marks.message}"
    return f"\n{thinking.marks.close}\n\n" if thinking.begun else ""
