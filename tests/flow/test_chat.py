"""`herd chat` in a terminal, beside the herder and against one elsewhere."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from herder.domain.pricing import count_words
from tests.support.typed import Terminal, answered, typed
from tests.support.wait import wait_for

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(params=["here", "elsewhere"])
def reach(request, herd, tmp_path) -> dict[str, str]:
    """What says where the herder is: nothing, or its address and a key."""
    if request.param == "here":
        return {}
    _, key = herd.client.api_keys.create("default")
    _, url = herd.start_gateway()
    return {"HERD_URL": url, "HERD_API_KEY": key, "HERD_HOME": str(tmp_path / "nowhere")}


@pytest.fixture
def chat(herd, reach) -> Iterator[Terminal]:
    terminal = Terminal(herd, "chat", "-n", "400", "--max-fee", "100000", **reach)
    yield terminal
    terminal.close()


def newest(herd: Any, state: str) -> Any:
    def found() -> Any:
        (order,) = herd.client.orders(limit=1) or [None]
        return order if order is not None and order.state == state else None

    return wait_for(found, f"an order is {state}")


def leave(chat: Terminal, end: int) -> None:
    """Type Ctrl-D at the next prompt: before it, the terminal is not the line editor's yet."""
    chat.says("> ", end)
    chat.type("\x04")


def test_ctrl_c_ends_an_answer_and_keeps_what_was_said(herd, chat):
    herd.start_worker(HERD_STUB_STEP_MS="100")
    chat.says("/help shows the commands")
    chat.says("account default has 1000000 winston available")
    chat.type("Tell me a story\r")
    first = newest(herd, "running")

    def said() -> str:
        """What was said, once there are words in it: the terminal is told other things before."""
        shown = chat.shown.partition("Tell me a story")[2].strip()
        return shown if re.search(r"[a-z]{2,}", CONTROL.sub("", shown)) else ""

    text = wait_for(said, "some of the answer is shown")
    chat.interrupt()
    end = chat.says("available]", chat.shown.index(text))
    first = herd.client.answer(first.order)
    charged = first.receipt.charged
    assert first.receipt.state == "cancelled"
    assert 0 < charged < first.receipt.fee
    assert f"[cancelled: {charged} of {first.receipt.fee} winston; {charged} in total" in chat.shown
    assert "Cancel order" not in chat.shown  # it asks nothing
    # All that is paid for is shown.
    assert " ".join(first.text.split()) in " ".join(chat.shown.split())

    # The next turn has what was said before it.
    chat.type("Why\r")
    second = newest(herd, "running")
    assert second.words == 4 + count_words(first.text, 16) + 1
    chat.interrupt()
    end = chat.says("available]", end)
    second = herd.client.receipt(second.order)
    assert f"; {charged + second.charged} in total" in chat.shown

    # Without an answer there is nothing to cancel.
    chat.interrupt()
    end = chat.says("/quit or Ctrl-D ends the chat.", end)
    leave(chat, end)
    assert chat.ended() == 0
    assert len(herd.client.orders()) == 2


def test_a_turn_that_is_refused_ends_nothing_in_a_terminal(herd, chat):
    herd.start_worker()
    end = chat.says("/help shows the commands")
    chat.type("/fee 5\r")
    end = chat.says("Each message now offers 5 winston.", end)
    chat.type("Hi\r")
    end = chat.says("too low", end)
    chat.type("/nonsense\r")
    end = chat.says("There is no command '/nonsense'", end)
    chat.type("/fee 500\r")
    chat.type("Hi\r")
    chat.says("of 500 winston;", end)
    chat.type("/quit\r")
    assert chat.ended() == 0
    (order,) = herd.client.orders()
    assert order.state == "completed"


def test_lines_of_a_pipe_are_turns(herd, reach):
    herd.start_worker(HERD_STUB_STEP_MS="1", HERD_CONTEXT="64")
    done = answered(herd, "chat", "--json", "-n", "20", stdin="Hi\nAnd you?\nSay more\n", **reach)
    assert done.returncode == 0, done.stderr
    turns = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["turn"] for one in turns] == [1, 2, 3]
    assert sum(one["charged"] for one in turns) == turns[-1]["total"]
    assert turns[-1]["available"] == herd.client.balance("default").available
    assert [herd.client.answer(one["order"]).text for one in turns] == [
        one["text"] for one in turns
    ]
    # 20 tokens a turn and a context of 64: the oldest had to go.
    assert turns[-1]["forgotten"] > 0
    assert "the oldest" in done.stderr


def test_an_answer_that_waits_is_told_and_costs_nothing_once_it_is_cancelled(herd, chat):
    chat.says("/help shows the commands")
    chat.type("Hi\r")
    chat.says("is waiting for workers")
    chat.interrupt()
    leave(chat, chat.says("[cancelled: 0 of"))
    assert chat.ended() == 0
    assert herd.client.balance("default").available == 1_000_000


def test_ctrl_c_ends_a_pipe_with_what_was_said(herd, reach):
    herd.start_worker(HERD_STUB_STEP_MS="100")
    left = typed(herd, "chat", "--json", "-n", "200", stdin=subprocess.PIPE, **reach)
    assert left.stdin is not None
    left.stdin.write("Tell me a story\nNever said\n")
    left.stdin.flush()
    order = newest(herd, "running")
    left.send_signal(signal.SIGINT)
    out, said = left.communicate(timeout=60)
    assert (left.returncode, said) == (130, "")
    turn = json.loads(out)
    assert (turn["order"], turn["interrupted"]) == (order.order, True)
    assert turn["text"] == herd.client.answer(order.order).text
    assert [one.state for one in herd.client.orders()] == ["cancelled"]
