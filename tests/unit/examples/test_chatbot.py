"""The chatbot: its decisions on fixed input, and its doings with a room and a herd in play."""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace

import pytest

from herder.errors import InsufficientBalance, OrderCancelled
from herder.examples.chatbot import HISTORY, STOP, TOKENS, Chatbot, cut, prompt_of, should_answer
from herder.examples.room.rules import Said

ALWAYS = 100


def said(name, text, number=1):
    return Said(number, name, f"m-{name}", text, 0)


HI = said("ada", "Hi there!")


def test_the_prompt_is_the_last_four_messages_its_own_shown_as_you():
    history = [
        said("ada", "one"),
        said("Lenny", "two"),
        said("bob", "three\nlines  and space"),
        said("Lenny", "four"),
        said("ada", "five"),
    ]
    assert prompt_of(history, "Lenny") == (
        "YOU: two\nbob: three lines and space\nYOU: four\nada: five\nYOU:"
    )
    assert prompt_of(history[:1], "Lenny") == "ada: one\nYOU:"
    assert prompt_of([], "Lenny") == "YOU:"


@pytest.mark.parametrize(
    ("message", "busy", "draw", "chance", "answers"),
    [
        (HI, False, 0, 50, True),
        (HI, False, 49, 50, True),
        (HI, False, 50, 50, False),
        (HI, False, 99, 100, True),
        (HI, False, 0, 0, False),
        (HI, True, 0, 100, False),
        (said("Lenny", "Hi there!"), False, 0, 100, False),
    ],
)
def test_it_answers_with_its_chance_never_itself_and_never_twice_at_once(
    message, busy, draw, chance, answers
):
    assert should_answer(message, "Lenny", busy, draw, chance) is answers


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("Ahoy! STOP", "Ahoy!"),
        ("Ahoy!STOP and more STOP", "Ahoy!"),
        (" \n Ahoy, matey \nada: Hi!\nYOU: Ahoy!", "Ahoy, matey"),
        ("YOU: Ahoy!", "Ahoy!"),
        ("YOU:\nAhoy!\nYOU: And more.", "Ahoy!"),
        ("STOP", ""),
        ("", ""),
        ("stop it", "stop it"),
        ("a\x1b[2Jb\x00", "a[2Jb"),
    ],
)
def test_a_reply_is_cut_at_stop_and_is_one_line(text, reply):
    assert cut(text) == reply


class PlayedRoom:
    def __init__(self, *before):
        self.before = list(before)
        self.coming = queue.Queue()
        self.said = []
        self.left = False
        self.replied = threading.Event()

    def last(self, count):
        return self.before[-count:]

    def listen(self, after):
        self.after = after
        while (one := self.coming.get()) is not None:
            yield one

    def say(self, text):
        self.said.append(text)
        self.replied.set()

    def leave(self):
        self.left = True


class PlayedHerd:
    """Answers an order when it is told to."""

    def __init__(self, text="Ahoy! STOP"):
        self.text = text
        self.asked = []
        self.go = threading.Event()
        self.taken = threading.Event()
        self.cancelled = False

    def submit(self, prompt, tokens, **call):
        self.asked.append((prompt, tokens, call))
        self.taken.set()
        return self

    def result(self):
        assert self.go.wait(30)
        if self.cancelled:
            raise OrderCancelled("It was cancelled.", ANSWER)
        return SimpleNamespace(text=self.text, receipt=SimpleNamespace(charged=7))

    def cancel(self):
        self.cancelled = True
        self.go.set()


ANSWER = SimpleNamespace(order="o", receipt=SimpleNamespace(state="cancelled"))


def start(room, herd, chance=ALWAYS):
    bot = Chatbot(room, "Lenny", "a sailor", herd.submit)
    thread = threading.Thread(target=bot.listen, args=(chance, lambda: 0))
    thread.start()
    return bot, thread


def test_it_pays_for_an_answer_and_says_it():
    room, herd = PlayedRoom(*(said("bob", str(n), n) for n in range(9))), PlayedHerd()
    _, thread = start(room, herd)
    room.coming.put(said("ada", "Hi there!", 9))
    herd.go.set()
    assert room.replied.wait(30)
    room.coming.put(None)
    thread.join(30)
    assert room.said == ["Ahoy!"]
    assert room.after == 8, "from the last that it knew"
    ((prompt, tokens, call),) = herd.asked
    assert tokens == TOKENS == 15
    assert call == {"stop": [STOP, "\n"], "raw": True}
    about, _, chat = prompt.partition("\n\n")
    assert "a sailor" in about
    assert chat == "bob: 6\nbob: 7\nbob: 8\nada: Hi there!\nYOU:"
    assert HISTORY == 4


def test_what_is_said_while_it_answers_is_heard_and_not_answered():
    room, herd = PlayedRoom(), PlayedHerd()
    _, thread = start(room, herd)
    room.coming.put(said("ada", "one"))
    assert herd.taken.wait(30)
    room.coming.put(said("bob", "two"))
    room.coming.put(said("cyd", "three"))
    room.coming.put(None)
    thread.join(30)
    herd.go.set()
    assert room.replied.wait(30)
    assert len(herd.asked) == 1
    assert room.said == ["Ahoy!"]


def test_at_its_end_it_gives_up_what_it_waits_for_and_its_name():
    room, herd = PlayedRoom(), PlayedHerd()
    bot, thread = start(room, herd)
    room.coming.put(said("ada", "one"))
    assert herd.taken.wait(30)
    room.coming.put(None)
    thread.join(30)
    bot.stop()
    assert herd.cancelled
    assert room.left
    assert room.said == []


def test_without_money_it_says_so_and_goes_on_listening(capsys):
    room, tried = PlayedRoom(), threading.Semaphore(0)

    def submit(*_, **__):
        tried.release()
        raise InsufficientBalance("bots", 0, 20)

    bot = Chatbot(room, "Lenny", "a sailor", submit)
    thread = threading.Thread(target=bot.listen, args=(ALWAYS, lambda: 0))
    thread.start()
    room.coming.put(said("ada", "one"))
    assert tried.acquire(timeout=30)
    bot._answering.join(30)
    room.coming.put(said("ada", "two"))
    assert tried.acquire(timeout=30), "it tries again"
    room.coming.put(None)
    thread.join(30)
    bot._answering.join(30)
    printed = capsys.readouterr().err
    assert "Account 'bots' has 0 winston" in printed
    assert "herd account" not in printed
    assert (bot.orders, bot.paid) == (0, 0)
