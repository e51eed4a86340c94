"""Callbacks are the same beside the herder and over HTTP: one thread, each once, come what may."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from herder.client.http import ends as remote_ends
from herder.client.http.ends import RemoteEnds
from herder.errors import HerdError, HerdUnavailable, OrderNotFound, Unauthorized
from herder.local.callbacks import CallbackRunner
from herder.orders.watcher import CompletionWatcher
from tests.support.wait import wait_for


class FakeHerd:
    """Orders that end when a test says so, seen as the library sees them at one of two places."""

    def __init__(self, place: str) -> None:
        self.ended: dict[str, Any] = {}
        self.known: list[str] = []
        self.trouble: Exception | None = None
        self.asked = 0
        if place == "beside":
            watcher = CompletionWatcher(redis.Redis(port=1, retry=None), self._ended)
            self.ends: Any = watcher
            self.close = watcher.close
        else:
            self.ends = RemoteEnds(self._answer, self._orders)
            self.close = lambda: None
        self.runner = CallbackRunner(self.ends, self._result)

    def _ended(self, order_ids: Any) -> set[str]:
        self._look()
        return set(order_ids) & set(self.ended)

    def _answer(self, order_id: str, wait_s: int = 0) -> Any:  # noqa: ARG002
        self._look()
        return SimpleNamespace(receipt=self._receipt(order_id))

    def _orders(self, *, before: str | None = None, limit: int = 100) -> Any:
        self._look()
        newest = self.known[::-1]
        begin = 0 if before is None else newest.index(before) + 1
        return [self._receipt(one) for one in newest[begin : begin + limit]]

    def _receipt(self, order_id: str) -> Any:
        state = "completed" if order_id in self.ended else "running"
        return SimpleNamespace(order=order_id, state=state)

    def _look(self) -> None:
        self.asked += 1
        if self.trouble is not None:
            raise self.trouble

    def _result(self, order_id: str) -> Any:
        found = self.ended[order_id]
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, Exception):
            raise found
        return SimpleNamespace(text=found)

    def submit(self, order_id: str, callback: Any = None, on_error: Any = None) -> None:
        self.known.append(order_id)
        self.runner.add(order_id, callback, on_error)


def calling() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name in ("herd-callbacks", "herd-ends")]


@pytest.fixture(params=["beside", "over HTTP"])
def herd(request, monkeypatch):
    monkeypatch.setattr(remote_ends, "LOOK_S", 0.05)
    monkeypatch.setattr(remote_ends, "ALONE_S", 0.05)
    wait_for(lambda: not calling(), "threads of other tests end")
    made = FakeHerd(request.param)
    yield made
    wait_for(lambda: not calling(), "nothing is left to wait for")
    made.close()


def test_each_is_called_once_one_after_the_other_by_one_thread(herd):
    at_once, most, answers = 0, 0, []
    threads = set()

    def callback(text: str) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        threads.add(threading.current_thread())
        answers.append(text)
        at_once -= 1

    for number in range(250):
        herd.submit(f"o{number}", callback)
    assert len(calling()) <= 2
    assert not any(one.daemon for one in calling() if one.name == "herd-callbacks")
    for number in range(250):
        herd.ended[f"o{number}"] = str(number)
    wait_for(lambda: len(answers) == 250, "all are called")
    assert sorted(answers, key=int) == [str(number) for number in range(250)]
    assert (most, len(threads)) == (1, 1)


def test_whatever_one_of_them_raises_the_others_are_called(herd, caplog):
    answers: list[str] = []
    errors: list[HerdError] = []

    def broken(_: object) -> None:
        raise ZeroDivisionError("the program's own")

    herd.submit("unheard")
    herd.submit("broken", broken)
    herd.submit("broken-error", None, broken)
    herd.submit("unread", answers.append, errors.append)
    herd.submit("away-for-a-moment", answers.append)
    herd.submit("good", answers.append, errors.append)
    herd.ended |= {
        "unheard": OrderNotFound("unheard"),
        "broken": "text",
        "broken-error": OrderNotFound("broken-error"),
        "unread": ValueError("no such field"),
        "away-for-a-moment": [HerdUnavailable("It is away."), "back"],
        "good": "text",
    }
    wait_for(lambda: len(answers) == 2, "the others are called")
    assert sorted(answers) == ["back", "text"]
    (error,) = errors
    assert "unread" in str(error)
    assert "no such field" not in str(error)
    assert "'unheard'" in caplog.text, "an error that nobody asked for is logged"
    assert "callback_failed order=broken\n" in caplog.text
    assert "callback_failed order=broken-error\n" in caplog.text


def test_an_outage_and_a_defect_delay_an_answer_and_lose_none(herd):
    answers: list[str] = []
    herd.submit("o1", answers.append)
    for trouble in (HerdUnavailable("It is away."), RuntimeError("a defect")):
        herd.trouble = trouble
        asked = herd.asked
        wait_for(lambda asked=asked: herd.asked > asked + 1, "it asks in vain")
    herd.ended["o1"] = "text"
    assert answers == []
    herd.trouble = None
    wait_for(lambda: answers, "it is called")


def test_what_is_closed_afterwards_is_closed_when_all_were_called(herd):
    answers: list[str] = []
    closed: list[int] = []
    herd.submit("o1", answers.append)
    herd.runner.afterwards(lambda: closed.append(len(answers)))
    assert closed == []
    herd.ended["o1"] = "text"
    wait_for(lambda: closed, "it is closed")
    assert closed == [1]
    herd.runner.afterwards(lambda: closed.append(7))
    assert closed == [1, 7]


def test_over_http_a_look_is_a_handful_of_requests_and_finds_what_is_old():
    herd = FakeHerd("over HTTP")
    waited = [f"old{number}" for number in range(30)]
    herd.known = [*waited, *(f"new{number}" for number in range(900))]
    herd.ended = dict.fromkeys(waited, "text")
    found: set[str] = set()
    for _ in range(2):
        before = herd.asked
        found |= herd.ends._ended_of(waited)
        assert herd.asked - before <= remote_ends.MAX_PAGES + remote_ends.MAX_ASKED
    assert found == set(waited)
    herd.trouble = Unauthorized("The key was revoked.")
    assert herd.ends._has_ended("old1", 0), "its error is to be told"
    assert len(herd.ends._ended_of(waited)) == remote_ends.MAX_ASKED


def test_who_cannot_be_waited_for_is_not_called():
    def ended(_: object) -> set[str]:
        raise ValueError("planted")

    runner = CallbackRunner(
        CompletionWatcher(redis.Redis(port=1, retry=None), ended), lambda _: None
    )  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="planted"):
        runner.add("o1", lambda _: None, None)
    wait_for(lambda: not calling(), "the thread ends")
