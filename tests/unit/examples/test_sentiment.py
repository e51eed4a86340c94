"""The sentiment agent's decisions on fixed answers, and its trades with a herd that is played."""

from __future__ import annotations

import queue
import threading

import httpx
import pytest

from herder.examples.exchange import LedgerExchange
from herder.examples.room.rules import Said
from herder.examples.sentiment import Agent, Decision, decide, prompt_of, run
from tests.support.wait import wait_for


def said(name, text):
    return Said(1, name, f"m-{name}", text, 0)


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        ("4", Decision.BUY),
        ("5", Decision.BUY),
        (" I would say 4 of 5.", Decision.BUY),
        ("Grade: 4.5", Decision.BUY),
        ("10/10", Decision.BUY),
        ("9" * 5000, Decision.BUY),
        ("3", Decision.SKIP),
        ("3.9", Decision.SKIP),
        ("1 to 5", Decision.SKIP),
        ("0", Decision.SKIP),
        ("-4", Decision.BUY),
        ("The sentiment is good.", Decision.ERROR),
        ("four", Decision.ERROR),
        ("", Decision.ERROR),
        ("\u0664 \u00b2", Decision.ERROR),  # digits, and none of 0 to 9
    ],
)
def test_the_first_number_decides_above_three_it_buys(answer, decision):
    assert decide(answer) is decision


def test_the_prompt_is_the_question_and_what_was_said():
    history = [said("ada", "I love\nit!"), said("bob", "x " * 500), said("cyd", "Me too.")]
    assert prompt_of(history) == (
        "Grade sentiment 1 to 5: 1 (very sad), 2 (sad), 3 (neutral), 4 (happy) or 5 (very happy)?"
        "\n\nI love it! " + "x " * 50 + " Me too.\n\nAnswer with one number."
    )


class Room:
    def __init__(self, *messages):
        self.messages = list(messages)

    def last(self, count):
        return self.messages[-count:]


@pytest.fixture
def sent():
    return []


@pytest.fixture
def agent(sent):
    def send(tags):
        sent.append(tags)
        return f"message-{len(sent)}"

    room = Room(*(said("ada", f"It is {n}.") for n in range(5)))
    return Agent(send, room, LedgerExchange(send, "market", 50))


def answer(tags, action="Inference-Response", **more):
    return {"From": "herder", "Action": action, "X-Reference": tags["X-Reference"], **more}


def counts(agent):
    return {name: count for name, count in agent.counts.items() if count}


def test_it_asks_with_a_fee_of_100_and_10_tokens_about_the_last_three(agent, sent):
    agent.ask()
    agent.ask()
    first, second = sent
    assert first["X-Reference"] != second["X-Reference"]
    del first["X-Reference"]
    assert first == {
        "Action": "Transfer",
        "Recipient": "herder",
        "Quantity": "100",
        "X-Tokens": "10",
        "X-Prompt": prompt_of([said("ada", f"It is {n}.") for n in (2, 3, 4)]),
    }
    assert counts(agent) == {"requests": 2}


def test_of_an_empty_room_it_asks_nothing(sent):
    agent = Agent(sent.append, Room(), LedgerExchange(sent.append, "market", 50))
    agent.ask()
    assert sent == []
    assert counts(agent) == {}


def test_a_buy_is_a_transfer_and_counts_once_it_is_confirmed(agent, sent):
    agent.ask()
    agent.take(answer(sent[0], Data=" 4, I think"))
    asked, trade = sent
    payment = {"Action": "Transfer", "Recipient": "market", "Quantity": "50"}
    assert trade == {**payment, "X-Reference": trade["X-Reference"]}
    assert counts(agent) == {"requests": 1}
    confirmation = answer(trade, "Debit-Notice", Recipient="market", Quantity="50")
    agent.take(confirmation)
    assert counts(agent) == {"requests": 1, "buys": 1}
    for again in (confirmation, answer(asked, Data="5")):
        agent.take(again)
    assert counts(agent) == {"requests": 1, "buys": 1}, "each counts once"


def test_a_bad_grade_is_skipped_and_no_grade_is_an_error(agent, sent):
    for data in ("2", "no idea"):
        agent.ask()
        agent.take(answer(sent[-1], Data=data))
    assert counts(agent) == {"requests": 2, "skips": 1, "errors": 1}
    assert len(sent) == 2


def test_what_is_refused_is_counted_apart(agent, sent, capsys):
    agent.ask()
    back = answer(sent[0], "Transfer", Quantity="100", **{"X-Reason": "Insufficient payment"})
    agent.take(back)
    agent.ask()
    agent.take(answer(sent[1], "Inference-Failed", Returned="100", **{"X-Reason": "It failed."}))
    agent.ask()
    agent.take(answer(sent[2], Data="5"))
    agent.take(answer(sent[3], "Transfer-Error", Error="Account 'ada' has 3 winston available."))
    assert counts(agent) == {"requests": 3, "refused": 3}
    told = capsys.readouterr().out
    for reason in ("Insufficient payment", "It failed.", "has 3 winston"):
        assert reason in told


def test_what_is_for_another_program_of_the_account_is_passed_over(agent, sent):
    agent.ask()
    for tags in (
        {"Action": "Info-Response"},
        {"Action": "Inference-Response", "X-Reference": "grade-of-another", "Data": "5"},
        {"Action": "Credit-Notice", "Quantity": "50"},
    ):
        agent.take(tags)
    assert counts(agent) == {"requests": 1}
    assert len(sent) == 1


def refused(status):
    request = httpx.Request("GET", "http://gateway/messages")
    return httpx.HTTPStatusError(f"{status}", request=request, response=httpx.Response(status))


def test_it_asks_at_once_and_takes_what_comes_though_the_gateway_goes_away(agent, sent, capsys):
    inbox, lines = queue.Queue(), []

    def receive():
        lines.append("opened")
        while (one := inbox.get()) is not None:
            if isinstance(one, Exception):
                raise one
            yield one

    def play():
        wait_for(lambda: sent, "it asked")
        inbox.put(httpx.ConnectError("away"))
        inbox.put(refused(503))
        inbox.put(answer(sent[0], Data="1"))
        inbox.put(refused(401))

    threading.Thread(target=play, daemon=True).start()
    with pytest.raises(SystemExit) as ended:
        run(agent, receive, every_s=3600)
    assert ended.value.code == 1, "a key that is none does not pass"
    assert counts(agent) == {"requests": 1, "skips": 1}
    assert len(lines) == 3
    assert "away" in capsys.readouterr().err
