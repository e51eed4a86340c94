"""Prompts to tokens, and tokens to bytes: what one model's vocabulary and chat template say.

The library comes as an argument: only `model` imports it. Any thread may tokenise;
`piece` belongs to the engine's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from workers.engine.splitters import Channels, Tags
from workers.engine.thinking import Thinking
from workers.engine.work import GenerationRequest, TemplateFacts
from workers.errors import DecodeFailed, ModelError, SettingsError, TemplateError, WorkerError
from workers.llama import chat
from workers.llama.options import LlamaOptions
from workers.llama.template import ChatTemplate, Formatter, read_template
from workers.llama.thinking_marks import closing, find_marks, thinking_after


class Encoded(NamedTuple):
    """A prompt in tokens, and how reasoning is told from what continues it."""

    tokens: list[int]
    thinking: Thinking | None = None


class Vocabulary:
    """The tokens of one model, and how it wants to be talked to.

    Args:
        lib: the llama_cpp module.
        model: llama.cpp's model.
        make_formatter: makes a formatter of a Jinja template: llama_cpp's own.
        options: which chat template, and what becomes of system messages that it does not show.

    Raises:
        ModelError: the model's chat template does not parse.
        SettingsError: the file of a chat template cannot be used.
    """

    def __init__(
        self,
        lib: Any,
        model: Any,
        make_formatter: Callable[..., Formatter],
        options: LlamaOptions,
    ) -> None:
        self._lib = lib
        self.handle = lib.llama_model_get_vocab(model)
        self.size = int(lib.llama_vocab_n_tokens(self.handle))
        self._pieces: dict[int, bytes] = {}
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        texts = []
        defined = []
        ends = set()
        for token in range(self.size):
            attributes = lib.llama_vocab_get_attr(self.handle, token)
            if attributes & control:
                texts.append(self._text(token))
            elif attributes & lib.LLAMA_TOKEN_ATTR_USER_DEFINED:
                defined.append(self._text(token))
            if lib.llama_vocab_is_eog(self.handle, token):
                ends.add(token)
        self.ends = frozenset(ends)
        """Tokens that end the generation."""
        self._system = options.system
        self._template = self._load_template(model, make_formatter, options.chat_template)
        if self._template is None:
            marks = chat.mark_texts(defined, None, lambda _: ())
        else:
            marks = chat.mark_texts(defined, self._template.shown(), self._template.sought)
        self._marks = chat.control_pattern(marks)
        self._control = chat.control_pattern([*texts, *marks])
        self._spaces = lib.llama_vocab_type(self.handle) == lib.LLAMA_VOCAB_TYPE_SPM
        self._line = self.tokenize("\n", template=False)
        self._thinking = None if self._template is None else find_marks(self._template.source)
        self._hidden = self._hidden_marks(self._thinking)
        self.template = _facts_of(self._template, options, self._thinking)

    def _load_template(
        self, model: Any, make_formatter: Callable[..., Formatter], path: Path | None
    ) -> ChatTemplate | None:
        lib = self._lib
        own = lib.llama_model_chat_template(model, None)
        if path is None and not own:
            return None
        source = own.decode("utf-8", "replace") if path is None else read_template(path)
        eos, bos = lib.llama_vocab_eos(self.handle), lib.llama_vocab_bos(self.handle)

        def make(source: str, opens: bool) -> Formatter:
            return make_formatter(
                source,
                eos_token=self._text(eos),
                bos_token=self._text(bos),
                add_generation_prompt=opens,
            )

        try:
            template = ChatTemplate(source, make)
        except Exception as error:
            line = getattr(error, "lineno", None)
            why = f"{error}" if line is None else f"line {line}: {error}"
            if path is None:
                raise ModelError(f"The model's chat template does not parse ({why}).") from error
            raise SettingsError(
                f"HERD_CHAT_TEMPLATE names {path}, which does not parse as a chat template ({why})."
            ) from error
        if path is not None and not template.traits.renders:
            raise SettingsError(
                f"HERD_CHAT_TEMPLATE names {path}, which does not show the message of a user."
            )
        return template

    def _text(self, token: int) -> str:
        if not 0 <= token < self.size:
            return ""  # the model has no such token; asking for it would abort
        text = self._lib.llama_vocab_get_text(self.handle, token)
        return text.decode("utf-8", "replace") if text else ""

    def _hidden_marks(self, marks: Tags | Channels | None) -> dict[int, str]:
        """Return the texts of the marks' control tokens, which are no part of any text."""
        found = {}
        for mark in marks or ():
            for token in self.tokenize(mark, template=True):
                if not self.piece(token):
                    found[token] = self._text(token)
        return found

    def encode(self, work: GenerationRequest) -> Encoded:
        """Return the tokens of a prompt, formatted as the model wants it unless it is raw.

        Raises:
            TemplateError: the template refused these messages, or there is none.
        """
        if work.messages is None and (work.raw or self._template is None):
            return Encoded(self._encode_raw(work.prompt or "", special=work.special))
        if work.messages is None:
            turns = [{"role": "user", "content": work.prompt or ""}]
        else:
            turns = [{"role": m.role, "content": m.content} for m in work.messages]
        if self._template is None:
            raise TemplateError(
                "The model has no chat template; send a prompt instead of messages."
            )
        turns = self._template.fit(turns, self._system)
        show = partial(self._template.render, opens=not work.continues, args=work.template_args)
        tokens: list[int] = []
        known: dict[str, list[int]] = {}  # a prompt may be made of the same few, 100,000 times
        pieces = chat.render(turns, show, self._control, continues=work.continues)
        thinking = self._thinking_after(work, pieces)
        if thinking is not None and _is_bound(work):
            pieces.append(chat.Piece(closing(thinking), True))
            # A form leaves no room for a thought; a model that is not to think may do so.
            thinking = None if work.sampling.forms else replace(thinking, begun=False)
        for text, template in pieces:
            if template:
                tokens += self._go_on(text, template=True, is_first=not tokens)
            else:
                self._add_plain(tokens, text, known)
        return Encoded(self._begun(tokens), thinking)

    def _thinking_after(
        self, work: GenerationRequest, pieces: Sequence[chat.Piece]
    ) -> Thinking | None:
        """Return the marks around thoughts after a prompt; a turn that is continued is the answer.

        A herder of an earlier version does not ask for it, and gets all of it as the text.
        """
        if not work.splits_reasoning or work.continues:
            return None
        written = pieces[-1].text if pieces and pieces[-1].template else ""
        return thinking_after(self._thinking, written, self._hidden)

    def _encode_raw(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a raw prompt; `special` honours the control tokens in it."""
        if special:
            return self._begun(self.tokenize(text, template=True))
        if self._marks is None or not self._marks.search(text):
            return self.tokenize(text, template=False, begin=True)
        tokens: list[int] = []
        self._add_plain(tokens, text, {})
        return self._begun(tokens)

    def _begun(self, tokens: list[int]) -> list[int]:
        """Let a prompt begin as the model was trained to.

        Most templates write its first token themselves; for the others the model's own setting
        counts.
        """
        bos = self._lib.llama_vocab_bos(self.handle)
        if self._lib.llama_vocab_get_add_bos(self.handle) and bos >= 0 and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def _add_plain(self, tokens: list[int], text: str, known: dict[str, list[int]]) -> None:
        """Add the tokens of what users wrote, without any mark of a role among them."""
        for part in chat.cut_marks(text, self._marks):
            if not tokens:
                tokens += self._go_on(part, template=False, is_first=True)
                continue
            if part not in known:
                known[part] = self._go_on(part, template=False, is_first=False)
            tokens += known[part]

    def _go_on(self, text: str, *, template: bool, is_first: bool) -> list[int]:
        """Return the tokens of a part of a prompt.

        SentencePiece may put a space before what it is given, which belongs to the beginning only.
        """
        if is_first or not self._spaces:
            return self.tokenize(text, template=template)
        found = self.tokenize(f"\n{text}", template=template)
        line = len(self._line)
        if found[:line] != self._line:
            return self.tokenize(text, template=template)
        return found[line:]

    def tokenize(self, text: str, *, template: bool, begin: bool = False) -> list[int]:
        """Text to tokens.

        Args:
            text: what a user or the template wrote.
            template: whether control tokens in it are meant as such.
            begin: whether to begin as the model was trained to, with its own first token.
        """
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            buffer = np.empty(size, np.int32)
            pointer = buffer.ctypes.data_as(self._lib.llama_token_p)
            count = self._lib.llama_tokenize(
                self.handle, data, len(data), pointer, size, begin, template
            )
            # White space that is escaped to three bytes may have more tokens than it had bytes;
            # the negative count is what it needs, or the least number for more than it can count.
            if not size < -count <= 4 * size:
                break
            size = -count
        if not 0 <= count <= size:
            raise WorkerError(f"The prompt has {count} tokens; at most {size} were expected.")
        found: list[int] = buffer[:count].tolist()
        return found

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, possibly part of a character; control tokens have none."""
        piece = self._pieces.get(token)
        if piece is None:
            if not 0 <= token < self.size:
                raise DecodeFailed(f"Token {token} is outside the vocabulary: a bug here.")
            size = 128
            while True:
                buffer = ctypes.create_string_buffer(size)
                length = self._lib.llama_token_to_piece(self.handle, token, buffer, size, 0, False)
                if length >= 0:
                    break
                size = -length
            piece = self._pieces[token] = buffer.raw[:length]
        return piece


def _is_bound(work: GenerationRequest) -> bool:
    """Return whether an answer is to begin with its first token."""
    return bool(work.sampling.forms) or work.template_args.get("reasoning_effort") == "none"


def _facts_of(
    template: ChatTemplate | None, options: LlamaOptions, marks: Tags | Channels | None
) -> TemplateFacts:
    if template is None:
        return TemplateFacts()
    traits = template.traits
    otherwise: Literal["merged", "refused"] = "merged" if options.system == "merge" else "refused"
    return TemplateFacts(
        source="model" if options.chat_template is None else "file",
        path=None if options.chat_template is None else str(options.chat_template),
        renders=traits.renders,
        system="shown" if traits.system else otherwise,
        later_system="shown" if traits.later_system else otherwise,
        thinking=None
        if marks is None
        else (marks[0] if isinstance(marks, Tags) else marks.channel),
    )
