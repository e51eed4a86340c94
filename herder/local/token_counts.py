"""Counts the tokens of prompts before money is held for them, by asking a worker.

Only the model's tokenizer knows how long a prompt is, and only workers have it. One is asked on its
control stream, which it reads while all its slots are busy, and waited for a moment: without an
answer an order is taken as it is, and the worker that runs it counts again. A prompt that fits by
its bytes alone is not asked about, so that most orders wait for nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from redis import RedisError

from herder.db.database import Database
from herder.domain.fitting import ORDINARY_TOKENS, TokenWish
from herder.domain.order import OrderRequest, Prompt, State
from herder.errors import HerdUnavailable, InvalidPrompt, ModelNotFound, PromptTooLong
from herder.herd.trusted_keys import TrustedKeys
from herder.store import herd as herd_sql
from herder.store import models as model_sql
from herder.store import orders as order_sql
from herder.types import TokenCount
from workers.transport.event_log import EventLog
from workers.transport.streams import Streams
from workers.wire import (
    CountedTokens,
    CountTokens,
    PrivateKey,
    PromptToCount,
    WireError,
    control_stream,
    counted_key,
    prompt_key,
    seal,
    unseal,
)

_log = EventLog("herder.local.token_counts", lowered=True)

WAIT_S = 1.0
"""The time for which an answer is waited for; an order is taken without one then."""
TRIES = 3
"""Questions to workers before a caller who asked for nothing but the count is told that none
answers."""
QUIET_S = 30.0
"""The time for which orders do not wait for a worker that left a question unanswered, nor for a
Redis: one that is of an older version, or hangs, costs one order a moment."""
MAX_TEMPLATE_TOKENS = 512
"""Tokens that a chat template is taken to add to a prompt, and `MAX_TURN_TOKENS` for each turn. A
template that adds more costs an order its early refusal, and nothing else."""
MAX_TURN_TOKENS = 32
FRESH_S = 5.0
"""The time for which a model's context is remembered."""
MAX_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class _Counted:
    """A prompt as a worker counted it.

    Attributes:
        share: as `workers.wire.CountedTokens`.
    """

    model: str
    prompt_tokens: int
    context: int
    share: int


class TokenCounts:
    """Asks workers how long prompts are. Safe among threads.

    Args:
        database: where workers and models stand.
        streams: over which they are asked.
        key: the herder's, which signs what is asked.
        new_id: draws the id of a question.
    """

    def __init__(
        self, database: Database, streams: Streams, key: PrivateKey, *, new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._streams = streams
        self._key = key
        self._keys = TrustedKeys(database)
        self._new_id = new_id
        self._lock = threading.Lock()
        self._contexts: dict[str | None, tuple[int | None, float]] = {}
        self._quiet_until_s: dict[str, float] = {}

    def require_fit(self, call: OrderRequest) -> None:
        """Refuse an order that can never run, as far as that is known within a moment.

        Raises:
            PromptTooLong: prompt and tokens exceed the context.
            InvalidPrompt: the model's chat template refuses the messages, or there is none.
        """
        found = self._found_or_taken(call)
        if found is not None and found.prompt_tokens + call.tokens > found.context:
            raise PromptTooLong(found.prompt_tokens, call.tokens, found.context)

    def fit(self, call: OrderRequest) -> OrderRequest:
        """Return an order with the tokens that its prompt leaves, where it wishes for what fits.

        Where no worker counts a prompt that may fill the context, its answer is left as much as an
        ordinary one takes, or the number that is named, if it is below the context: nobody knows
        that it does not fit. The worker that runs the order says whether that was too much.

        Raises:
            PromptTooLong: the prompt leaves not one token; or as `require_fit`, of any other order.
            InvalidPrompt: the model's chat template refuses the messages, or there is none.
        """
        if call.wish is None or call.quote is not None:
            self.require_fit(call)
            return call
        found = self._found_or_taken(call)
        if found is not None:
            if found.prompt_tokens >= found.context:
                raise PromptTooLong(found.prompt_tokens, 1, found.context)
            return replace(call, tokens=min(call.tokens, _room(call.wish, found)))
        context = self._context_of(call.model)
        if context is None or (call.wish.named is not None and call.wish.named < context):
            return call
        sure = context - most_tokens(call.prompt)
        uncounted = max(sure, min(ORDINARY_TOKENS, context // 2), 1)
        return replace(call, tokens=min(call.tokens, uncounted))

    def _found_or_taken(self, call: OrderRequest) -> _Counted | None:
        """Count an order's prompt, if that is needed and can be done."""
        try:
            return self._found_for(call)
        except (RedisError, HerdUnavailable) as error:
            # Whether an order can be taken then, order intake says.
            _log.warning("tokens_not_counted", reason=type(error).__name__)
            return None

    def _found_for(self, call: OrderRequest) -> _Counted | None:
        """Count an order's prompt, where it may be too long and there is somebody to count it."""
        context = self._context_of(call.model)
        if context is None or most_tokens(call.prompt) + call.tokens <= context:
            return None
        if self._is_repeated(call):
            return None
        model, worker = self._worker(call.model)
        if worker is None or self._is_quiet(worker.instance):
            return None
        try:
            found = self._ask(model, worker, call.prompt)
        except RedisError:
            self._note_quiet(worker.instance)
            raise
        if found is None:
            self._note_quiet(worker.instance)
        return found

    def count(self, model: str | None, prompt: Prompt) -> TokenCount:
        """Count the tokens of a prompt.

        Raises:
            ModelNotFound: no model has that name.
            InvalidPrompt: the model's chat template refuses the messages, or there is none.
            HerdUnavailable: no worker with the model answers.
        """
        for _ in range(TRIES):
            known, worker = self._worker(model)
            if worker is None:
                break
            try:
                found = self._ask(known, worker, prompt)
            except RedisError as error:
                raise HerdUnavailable("Redis is out of reach; try again.") from error
            if found is not None:
                return TokenCount(found.model, found.prompt_tokens, found.context)
        raise HerdUnavailable("No worker with this model answers; try again later.")

    def _context_of(self, model: str | None) -> int | None:
        """Return the context of a model, at most `FRESH_S` old; None if none is known."""
        now_s = time.monotonic()
        with self._lock:
            context, read_s = self._contexts.get(model, (None, float("-inf")))
        if now_s - read_s <= FRESH_S:
            return context
        try:
            context = self._model(model).context
        except ModelNotFound:
            return None  # order intake says so
        with self._lock:
            if len(self._contexts) >= MAX_REMEMBERED:
                self._contexts.clear()
            self._contexts[model] = (context, now_s)
        return context

    def _model(self, name: str | None) -> model_sql.Model:
        with self._database.read() as connection:
            if name is None:
                name = model_sql.read_policy(connection)[1]
            found = model_sql.get_model(connection, name)
            if found is None:
                here = sorted(one.name for one in model_sql.list_models(connection))
                raise ModelNotFound(name, here)
        return found

    def _is_repeated(self, call: OrderRequest) -> bool:
        """Return whether the order is there that was taken under the call's key: then it fitted.

        Where that one was cancelled, the key may buy another, for which there is another number of
        tokens if it is for what fits.
        """
        if call.idempotency_key is None:
            return False
        with self._database.read() as connection:
            found = order_sql.find_by_key(connection, call.account, call.idempotency_key)
        return found is not None and (call.wish is None or found[0].state is not State.CANCELLED)

    def _is_quiet(self, instance: str) -> bool:
        with self._lock:
            return time.monotonic() < self._quiet_until_s.get(instance, float("-inf"))

    def _note_quiet(self, instance: str) -> None:
        with self._lock:
            if len(self._quiet_until_s) >= MAX_REMEMBERED:
                self._quiet_until_s.clear()
            self._quiet_until_s[instance] = time.monotonic() + QUIET_S

    def _worker(self, name: str | None) -> tuple[model_sql.Model, herd_sql.Worker | None]:
        """Return a model, and the worker with it that was heard last, if there is one.

        Raises:
            ModelNotFound: no model has that name.
        """
        model = self._model(name)
        with self._database.read() as connection:
            here = herd_sql.workers_here(connection, model.name)
        return model, max(here, key=lambda one: (one.state == "alive", one.seen_us), default=None)

    def _ask(
        self, model: model_sql.Model, worker: herd_sql.Worker, prompt: Prompt
    ) -> _Counted | None:
        """Ask a worker; None if it does not answer in time, or cannot now.

        Raises:
            InvalidPrompt: the prompt cannot run on the model.
        """
        counted = self._counted_by(worker, prompt)
        if counted is None:
            return None
        if counted.failure is not None:
            if not counted.failure.permanent:
                return None
            raise InvalidPrompt(counted.failure.message)
        context = min(counted.context, model.context or counted.context)
        return _Counted(model.name, counted.prompt_tokens, context, counted.share)

    def _counted_by(self, worker: herd_sql.Worker, prompt: Prompt) -> CountedTokens | None:
        request = self._new_id()
        asked = PromptToCount(
            request=request,
            prompt=prompt.text,
            messages=prompt.messages,
            raw=prompt.raw,
            special=prompt.special,
            continues=prompt.continues,
            template_args=dict(prompt.template_args),
        )
        left = seal(asked, self._key, sender="herder", audience=prompt_key(request))
        control = control_stream(worker.instance)
        told = seal(CountTokens(request=request), self._key, sender="herder", audience=control)
        self._streams.ask_count(worker.instance, request, left, told)
        answer = self._streams.await_count(request, WAIT_S)
        if answer is None:
            _log.info("tokens_not_counted", instance=worker.instance)
            return None
        try:
            keys = self._keys.of(herd_sql.WORKER)
            envelope = unseal(answer, keys, audience=counted_key(request))
        except WireError as error:
            _log.warning("count_refused", instance=worker.instance, reason=error.code)
            return None
        body = envelope.body
        is_its = (envelope.kid, envelope.sender) == (worker.kid, worker.instance)
        if not is_its or not isinstance(body, CountedTokens) or body.request != request:
            _log.warning("count_refused", instance=worker.instance, reason="not_asked")
            return None
        return body


def most_tokens(prompt: Prompt) -> int:
    """Return a bound on the tokens of a prompt: none is made of less than a byte of it.

    >>> most_tokens(Prompt("four", raw=True))
    516
    """
    turns = len(prompt.messages or ())
    length = len(prompt.counted.encode("utf-8", "replace"))
    return length + MAX_TURN_TOKENS * turns + MAX_TEMPLATE_TOKENS


def _room(wish: TokenWish, found: _Counted) -> int:
    """Return the tokens that a counted prompt leaves to its answer.

    A worker whose orders share one cache keeps all cells free that an order may come to need, and
    begins no other where that leaves none. So an order that names no number, or one that does not
    fit, is given a slot's share of them, and room for an ordinary answer; its operator may say
    otherwise of those without a number (`default`).
    """
    room = found.context - found.prompt_tokens
    is_asked = wish.default is not None if wish.named is None else wish.named <= room
    if is_asked or found.share == 0:
        return room
    return min(room, max(found.share - found.prompt_tokens, ORDINARY_TOKENS))
