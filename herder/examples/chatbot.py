"""A chatbot: it joins a room under a name, listens, and now and then answers as a character.

With a herd up (`herd up`) and a room open (`herd room`), in a third terminal:

    python -m herder.examples.chatbot --name Lenny --character "a cheerful old sailor"

It asks the herd of HERD_HOME, or the one at HERD_URL with the key in HERD_API_KEY, and pays the
going rate for each answer.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import herder
from herder.examples.room.client import Room
from herder.examples.room.rules import Said

HISTORY = 4  # messages that it remembers
TOKENS = 15  # the longest answer
STOP = "STOP"  # what it is told to end with; the end of the line ends it too
YOU = "YOU"  # what its own messages are shown to it as


def prompt_of(history: Sequence[Said], me: str) -> str:
    """Return the last messages, a line each, and whose turn it is: its own."""
    lines = [
        f"{YOU if said.name == me else said.name}: {' '.join(said.text.split())}"
        for said in history[-HISTORY:]
    ]
    return "\n".join([*lines, f"{YOU}:"])


def should_answer(said: Said, me: str, busy: bool, draw: int, chance: int) -> bool:
    """Return whether to answer a message: never itself, never twice at once, else `chance` of 100.

    Args:
        said: the message.
        me: its own name.
        busy: it is answering another message.
        draw: a number from 0 to 99, drawn anew for each message.
        chance: of how many of these numbers it answers.
    """
    return said.name != me and not busy and draw < chance


def cut(text: str) -> str:
    """Return the part of an answer that it says.

    Its first line, up to STOP, without its own name before it.
    """
    said = text.partition(STOP)[0].strip().removeprefix(f"{YOU}:").strip()
    return "".join(filter(str.isprintable, said.partition("\n")[0])).strip()


class Chatbot:
    """Hears everything on one thread, and answers on another, so that it goes on hearing."""

    def __init__(self, room: Room, me: str, character: str, submit: Callable[..., Any]) -> None:
        self.room = room
        self.me = me
        self.submit = submit
        self.orders = self.paid = 0
        self._open: Any = None  # the order that it waits for
        self._answering: threading.Thread | None = None
        self._about = (
            f"A chat with {character}, who is {YOU}. {YOU} says one short sentence, then {STOP}."
        )

    def listen(self, chance: int, draw: Callable[[], int]) -> None:
        """Hear what is said, and answer some of it, until interrupted."""
        history = deque(self.room.last(HISTORY), maxlen=HISTORY)
        for said in self.room.listen(after=history[-1].id if history else 0):
            history.append(said)
            print(f"{said.name}: {said.text}", flush=True)
            busy = self._answering is not None and self._answering.is_alive()
            if should_answer(said, self.me, busy, draw(), chance):
                asked = (prompt_of(list(history), self.me),)
                self._answering = threading.Thread(target=self._answer, args=asked, daemon=True)
                self._answering.start()

    def _answer(self, prompt: str) -> None:
        try:  # raw: the model goes on with the chat as with any text
            whole = f"{self._about}\n\n{prompt}"
            self._open = self.submit(whole, TOKENS, stop=[STOP, "\n"], raw=True)
            result = self._open.result()
            self.orders, self.paid = self.orders + 1, self.paid + result.receipt.charged
            if reply := cut(result.text):
                self.room.say(reply)
        except herder.HerdError as error:  # no money, the herd is away: it goes on listening
            print(f"({error.message})", file=sys.stderr, flush=True)
        finally:
            self._open = None

    def stop(self) -> None:
        """Give up the answer that is on its way, and the name."""
        try:
            if (order := self._open) is not None:
                order.cancel()
        finally:
            self.room.leave()


def main() -> int:
    """Run it until Ctrl-C."""
    name, raw = "python -m herder.examples.chatbot", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=raw)
    option = partial(parser.add_argument, metavar="X")
    option("--room-url", default="http://127.0.0.1:8081", help="of `herd room` (%(default)s)")
    option("--room", default="lobby", help="which room (%(default)s)")
    option("--name", default="Lenny", help="its name there (%(default)s)")
    option("--character", default="a cheerful old sailor", help="who it is (%(default)s)")
    option("--chance", type=int, default=50, help="of 100, that it answers (%(default)s)")
    option("--seed", type=int, help="the same draws each time")
    given = parser.parse_args()
    draws = random.Random(given.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C
    try:
        with Room(given.room_url, given.room) as room:
            room.join(given.name)
            bot = Chatbot(room, given.name, given.character, herder.submit)
            try:
                bot.listen(given.chance, lambda: draws.randrange(100))
            except KeyboardInterrupt:
                bot.stop()
                print(f"{given.name} answered {bot.orders} times and paid {bot.paid} winston.")
    except herder.HerdError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
