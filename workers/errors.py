"""The errors of a worker: one tree, each with a stable code and its data.

WorkerError
    ModelError          the model, or the machine, does not do
        ModelFileError
    PromptError         the prompt cannot run on this model
        EmptyPrompt
        PromptTooLong
        TemplateError
    SamplingError       the sampling parameters cannot be used
        GrammarError
        GrammarTooSlow
    NotAccepting        the engine takes no more work
    DuplicateWork       a key that the engine holds already
    SettingsError       a setting or a key file of the worker is missing or wrong
    DecodeFailed        the model died in the middle of its work

An error is *permanent* if no other worker with the same model would do better: the order then
fails at once, and is not tried elsewhere.
"""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar


class WorkerError(Exception):
    """Anything that the engine reports.

    Attributes:
        code: a stable word for programs, such as `prompt_too_long`.
        message: one sentence for people.
        permanent: whether trying again elsewhere is of no use.
        data: the numbers and words behind the sentence.
    """

    code: ClassVar[str] = "worker_error"
    permanent: ClassVar[bool] = False

    def __init__(self, message: str, **data: int | str) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, int | str] = data

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes by what it carries, whatever its `__init__` takes."""
        return copyreg.__newobj__, (type(self), self.message), vars(self)  # type: ignore[attr-defined]


class ModelError(WorkerError):
    """The model cannot be used as the settings have it: no memory for its cache, for example."""

    code = "model_error"


class ModelFileError(ModelError):
    """The model's file cannot be loaded: not there, not a GGUF file, cut short, or corrupt."""

    code = "model_file_error"


class SettingsError(WorkerError):
    """A setting or a key file of the worker is missing or wrong."""

    code = "settings_error"


class PromptError(WorkerError):
    """The prompt cannot run on this model, wherever it is tried."""

    code = "bad_prompt"
    permanent = True


class EmptyPrompt(PromptError):
    """The prompt comes to no tokens at all, so there is nothing to continue."""

    code = "empty_prompt"


class PromptTooLong(PromptError):
    """Prompt and tokens asked for exceed the context of one order."""

    code = "prompt_too_long"

    def __init__(self, prompt_tokens: int, tokens: int, context: int) -> None:
        super().__init__(
            f"The prompt is {prompt_tokens} tokens long and {tokens} more were asked for, but the "
            f"context holds {context}.",
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            context=context,
        )


class TemplateError(PromptError):
    """The model's chat template refused the messages, or the model has none."""

    code = "chat_template"


class SamplingError(WorkerError):
    """A sampling parameter that this model cannot use, such as a bias of an unknown token."""

    code = "bad_sampling"
    permanent = True


class GrammarError(SamplingError):
    """The form of the answer (a grammar, JSON schema or expression) is wrong or too much."""

    code = "bad_grammar"


class GrammarTooSlow(SamplingError):
    """A step under this grammar takes so long that it would hold up all the others."""

    code = "grammar_too_slow"


class NotAccepting(WorkerError):
    """The engine is draining, stopped or broken and takes no more work."""

    code = "not_accepting"


class DuplicateWork(WorkerError):
    """The engine holds work with this key already."""

    code = "duplicate_work"


class DecodeFailed(WorkerError):
    """The model died in the middle of its work; the process that holds it has to end."""

    code = "decode_failed"


class StubFailure(WorkerError):
    """Raised by the deterministic model when a prompt asks for a failure."""

    code = "stub_failure"
    permanent = True


class StubTrouble(WorkerError):
    """Raised by the deterministic model when a prompt asks for a temporary failure."""

    code = "stub_trouble"
