"""Buyers who come in by every door, one call after the other, and what each of them was told."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from dataclasses import dataclass
from itertools import count
from queue import Queue

import openai

from herder.client.http.remote_herd import RemoteHerd
from herder.clock import clock_us
from herder.errors import HerdError
from tests.chaos.clients import LIMIT_S
from tests.support.running import HERD, RunningHerd

TOKENS, FEE = 12, 60


@dataclass
class Asked:
    """A call, and what came of it.

    Attributes:
        prompt: no other call's, nor part of one.
        order: that its caller was told of; acked_us: when that was.
        text: the answer; None: there was none.
        error: that it ended with; None: it was answered.
    """

    prompt: str
    order: str | None = None
    acked_us: int = 0
    text: str | None = None
    error: str | None = None

    def told(self, order: str) -> str:
        """Note which order it is."""
        self.order, self.acked_us = order, clock_us()
        return order


class Buyer(threading.Thread):
    """Calls until it is told to stop; an error of the herd's ends a call, any other the test."""

    errors: tuple[type[Exception], ...] = (HerdError,)

    def __init__(self, herd: RunningHerd, gateway: str, key: str) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.herd, self.gateway, self.key = herd, gateway, key
        self.asked: list[Asked] = []
        self._stopping = threading.Event()
        self._error: BaseException | None = None

    @abstractmethod
    def buy(self, call: Asked) -> str:
        """Make a call, and return its answer's text."""

    def run(self) -> None:
        try:
            for number in count(1):
                if self._stopping.wait(0.05):
                    return
                call = Asked(f"Say so, {self.name} {number}.")
                self.asked.append(call)
                try:
                    call.text = self.buy(call)
                except self.errors as error:
                    call.error = f"{type(error).__name__}: {error}"
                    # Nobody calls a herd that is away as fast as he can.
                    self._stopping.wait(0.2)
        except BaseException as error:  # noqa: BLE001 (told by `finish`, in the test's thread)
            self._error = error

    def stop(self) -> None:
        """No more calls."""
        self._stopping.set()

    def finish(self) -> None:
        """Wait for the last call, and fail for what went wrong."""
        self.join(timeout=LIMIT_S)
        if self._error is not None:
            raise self._error
        assert not self.is_alive(), f"{self.name} waits for ever for {self.asked[-1]}"


class Library(Buyer):
    """A program beside the herder."""

    def buy(self, call: Asked) -> str:
        receipt = self.herd.client.submit(call.prompt, TOKENS, fee=FEE)
        return self.herd.client.result(call.told(receipt.order), LIMIT_S).text


class Callback(Buyer):
    """A program beside the herder that is called back."""

    def buy(self, call: Asked) -> str:
        answers: Queue[str | Exception] = Queue()
        receipt = self.herd.client.submit(call.prompt, TOKENS, fee=FEE)
        self.herd.client.call_back(call.told(receipt.order), answers.put, answers.put)
        answer = answers.get(timeout=LIMIT_S)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Http(Buyer):
    """A program elsewhere."""

    def buy(self, call: Asked) -> str:
        remote = RemoteHerd(self.gateway, self.key)
        try:
            receipt = remote.submit(call.prompt, TOKENS, fee=FEE)
            return remote.result(call.told(receipt.order), LIMIT_S).text
        finally:
            remote.close()


class Command(Buyer):
    """Somebody who types `herd submit`."""

    errors = (RuntimeError,)

    def buy(self, call: Asked) -> str:
        words = ["submit", call.prompt, "--tokens", str(TOKENS), "--fee", str(FEE), "--json"]
        child = self.herd.start(f"submit{len(self.asked)}", words, HERD)
        code = child.process.wait(timeout=LIMIT_S)
        if code != 0:
            raise RuntimeError(f"herd submit ended with {code}: {child.log[-300:]}")
        said = child.log
        answer, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
        call.told(answer["order"])
        return str(answer["text"])


class Chat(Buyer):
    """A program of OpenAI's API, with the published package; it asks once."""

    errors = (openai.APIError,)

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.gateway}/v1", api_key=self.key, max_retries=0, timeout=LIMIT_S
        )

    def buy(self, call: Asked) -> str:
        with self._client() as client:
            answer = client.chat.completions.create(
                model="stub",
                messages=[{"role": "user", "content": call.prompt}],
                max_tokens=TOKENS,
                extra_body={"fee": FEE},
            )
        call.told(answer.id.removeprefix("chatcmpl-"))
        return answer.choices[0].message.content or ""


class Stream(Chat):
    """The same, word by word."""

    def buy(self, call: Asked) -> str:
        text, finished = "", False
        with self._client() as client:
            for piece in client.chat.completions.create(
                model="stub",
                messages=[{"role": "user", "content": call.prompt}],
                max_tokens=TOKENS,
                extra_body={"fee": FEE},
                stream=True,
            ):
                if call.order is None:
                    call.told(piece.id.removeprefix("chatcmpl-"))
                for choice in piece.choices:
                    text += choice.delta.content or ""
                    finished = finished or choice.finish_reason is not None
        assert finished, f"the stream of {call} ended in the middle"
        return text


DOORS: tuple[type[Buyer], ...] = (Library, Callback, Http, Command, Chat, Stream)
