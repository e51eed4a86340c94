"""The sentiment agent: it has the herd grade what is said in a room, and buys when it is good.

Every few seconds it pays the herd 100 winston to grade the last three messages of a chat room from
1 to 5; above 3 it buys. All by raw messages, as in the original: tags are sent, what is answered
comes later. With `herd up`, `herd gateway`, `herd room`, and `herd account create exchange`:

    HERD_URL=http://127.0.0.1:8080 HERD_API_KEY=herd_... python -m herder.examples.sentiment
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from uuid import uuid4

import httpx

from herder import HerdError
from herder.examples import messages
from herder.examples.exchange import ChatRoom, Exchange, LedgerExchange, Tags
from herder.examples.room.client import Room
from herder.examples.room.rules import Said

HISTORY, FEE, TOKENS, BUY_ABOVE = 3, 100, 10, 3
MAX_CHARS = 100  # of each message: longer ones would need more than the fee
Decision = Enum("Decision", ["BUY", "SKIP", "ERROR"])


def prompt_of(history: Sequence[Said]) -> str:
    """Return the prompt for the herd."""
    words = " ".join(" ".join(said.text.split())[:MAX_CHARS] for said in history)
    grades = "1 (very sad), 2 (sad), 3 (neutral), 4 (happy) or 5 (very happy)?"
    return f"Grade sentiment 1 to 5: {grades}\n\n{words}\n\nAnswer with one number."


def decide(answer: str) -> Decision:
    """Return the decision on an answer, whose first number is the grade."""
    grade = re.search(r"[0-9]+", answer)
    if grade is None:
        return Decision.ERROR
    return Decision.BUY if int(grade[0][:9]) > BUY_ABOVE else Decision.SKIP


class Agent:
    """Asks, decides and buys; counts what became of it."""

    def __init__(self, send: Callable[[Tags], str], room: ChatRoom, exchange: Exchange) -> None:
        self._send, self._room, self._exchange = send, room, exchange
        self.counts = dict.fromkeys(["requests", "buys", "skips", "errors", "refused"], 0)
        self._open: set[str] = set()  # references of what is not answered yet

    def ask(self) -> None:
        """Have the latest messages graded; the periodic job."""
        if history := self._room.last(HISTORY):
            self._open.add(reference := f"grade-{uuid4()}")
            paid = {"Action": "Transfer", "Recipient": "herder", "Quantity": str(FEE)}
            prompt = {"X-Prompt": prompt_of(history), "X-Tokens": str(TOKENS)}
            self._send({**paid, **prompt, "X-Reference": reference})
            self._count("requests", "asked")

    def take(self, tags: Tags) -> None:
        """Handle a message of the inbox."""
        if (reference := tags.get("X-Reference", "")) not in self._open:
            return  # it is another program's, or of another time
        self._open.remove(reference)
        if tags["Action"] == "Inference-Response":
            self._follow(" ".join(tags["Data"].split()))
        elif self._exchange.confirms(tags):
            self._count("buys", "bought")
        else:  # the payment back, an order that failed, a trade that was refused
            self._count("refused", tags.get("X-Reason") or tags.get("Error", tags["Action"]))

    def _follow(self, answer: str) -> None:
        if (decision := decide(answer)) is Decision.BUY:
            print(f"buy: {answer}", flush=True)
            self._open.add(trade := f"trade-{uuid4()}")
            self._exchange.buy(trade)  # counted when it is confirmed
        else:
            self._count(f"{decision.name.lower()}s", f"{decision.name.lower()}: {answer}")

    def _count(self, name: str, why: str) -> None:
        self.counts[name] += 1
        counts = " ".join(f"{name}={count}" for name, count in self.counts.items())
        print(f"{why} [{counts}]", flush=True)


def run(agent: Agent, receive: Callable[[], Iterator[Tags]], every_s: float) -> None:
    """Ask again and again, and take what comes; another thread listens."""
    news: queue.Queue[Tags | httpx.HTTPError] = queue.Queue()

    def listen() -> None:
        while True:
            try:
                for tags in receive():
                    news.put(tags)
            except httpx.HTTPError as error:
                news.put(error)
            time.sleep(1)

    threading.Thread(target=listen, daemon=True).start()
    due_s = time.monotonic()
    while True:
        try:
            one = news.get(timeout=max(0.0, due_s - time.monotonic()))
        except queue.Empty:
            due_s, one = time.monotonic() + every_s, None
        try:
            if isinstance(one, httpx.HTTPError):
                raise one
            agent.ask() if one is None else agent.take(one)
        except (httpx.HTTPError, HerdError) as error:  # the gateway or the room is away
            print(f"({error})", file=sys.stderr, flush=True)
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
                sys.exit(1)  # no key: that does not pass


def main() -> None:
    """Run it until Ctrl-C."""
    name, raw = "python -m herder.examples.sentiment", argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(name, description=__doc__, formatter_class=raw)
    option = partial(parser.add_argument, metavar="X")
    option("--room-url", default="http://127.0.0.1:8081", help="of `herd room` (%(default)s)")
    option("--room", default="lobby", help="which room (%(default)s)")
    option("--every", type=float, default=10, help="seconds between two grades (%(default)s)")
    option("--exchange", default="exchange", help="the account that sells (%(default)s)")
    option("--price", type=int, default=50, help="winston for each buy (%(default)s)")
    given = parser.parse_args()
    if not (url := os.environ.get("HERD_URL")) or not (key := os.environ.get("HERD_API_KEY")):
        parser.error("HERD_URL and HERD_API_KEY must say which herd, and who pays")
    herd = messages.connect(url, key)
    send = partial(messages.send, herd)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as by Ctrl-C
    with Room(given.room_url, given.room) as room, suppress(KeyboardInterrupt):
        agent = Agent(send, room, LedgerExchange(send, given.exchange, given.price))
        run(agent, partial(messages.receive, herd), given.every)


if __name__ == "__main__":
    main()
