"""Counts the tokens of prompts for herders that are about to take an order.

On a thread of its own, so that neither what the control stream says next nor the engine waits for
a long prompt. Whoever asks waits for no more than a moment: what piles up is dropped.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping

import structlog
from redis import RedisError

from workers.engine.engine import Engine
from workers.engine.work import GenerationRequest
from workers.errors import NotAccepting, WorkerError
from workers.settings import JoinFile
from workers.transport.loops import Loop
from workers.transport.streams import Streams
from workers.wire import (
    CountedTokens,
    Failure,
    PromptToCount,
    PublicKey,
    Sampling,
    WireError,
    counted_key,
    prompt_key,
    seal,
    unseal,
)

_log = structlog.get_logger("workers.agent.counting")

MAX_WAITING = 64
"""Prompts that may wait to be counted."""


class TokenCounter:
    """Counts for one worker instance.

    Args:
        engine: whose model counts, in the midst of whatever it does.
        streams: where prompts wait, and counts go.
        join: the worker's key, and those of the herders.
        instance: the worker's.
    """

    def __init__(self, engine: Engine, streams: Streams, join: JoinFile, instance: str) -> None:
        self._engine = engine
        self._streams = streams
        self._herders: Mapping[str, PublicKey] = join.herders
        self._key = join.key
        self._instance = instance
        self._asked: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._loop = Loop(
            "counts",
            lambda: self.step(1.0),
            unblock=lambda: self.ask(""),
            outages=(RedisError,),
            retry_s=(0.1, 1.0),
            ids={"instance": instance},
            log=_log,
        )

    def ask(self, request: str) -> None:
        """Have a prompt counted, soon; returns at once."""
        try:
            self._asked.put_nowait(request)
        except queue.Full:
            _log.warning("counts_pile_up", waiting=MAX_WAITING)

    def step(self, wait_s: float) -> None:
        """Count the next prompt, if one comes in time."""
        try:
            request = self._asked.get(timeout=wait_s)
        except queue.Empty:
            return
        if not request:
            return  # it is to stop
        token = self._streams.take_prompt(request)
        if token is None:
            return  # nobody waits any more
        try:
            envelope = unseal(token, self._herders, audience=prompt_key(request))
        except WireError as error:
            _log.warning("prompt_refused", reason=error.code)
            return
        body = envelope.body
        if isinstance(body, PromptToCount) and body.request == request:
            counted = self._count(body)
            if counted is not None:
                audience = counted_key(request)
                answer = seal(counted, self._key, sender=self._instance, audience=audience)
                self._streams.answer_count(request, answer)

    def _count(self, asked: PromptToCount) -> CountedTokens | None:
        facts = self._engine.facts
        context = min(facts.context, facts.cells)
        try:
            count = self._engine.count_tokens(_work_of(asked))
        except NotAccepting:
            return None
        except WorkerError as error:
            failure = Failure(
                code=error.code, message=error.message[:2000], permanent=error.permanent
            )
            return CountedTokens(request=asked.request, context=context, failure=failure)
        share = facts.cells // facts.slots
        return CountedTokens(
            request=asked.request, prompt_tokens=count, context=context, share=share
        )

    def start(self) -> None:
        """Begin to count."""
        self._loop.start()

    def stop(self, timeout_s: float) -> None:
        """Count no more."""
        self._loop.stop(timeout_s)


def _work_of(asked: PromptToCount) -> GenerationRequest:
    """Return the prompt as the engine knows prompts; nothing is generated."""
    return GenerationRequest(
        key=asked.request,
        prompt=asked.prompt,
        messages=asked.messages,
        raw=asked.raw,
        tokens=1,
        stop=(),
        sampling=Sampling(),
        rank=0,
        run_limit_s=1.0,
        special=asked.special,
        continues=asked.continues,
        template_args=asked.template_args,
        splits_reasoning=not asked.raw,
    )
