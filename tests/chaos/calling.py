"""Drives the client's program that dies at its points, and repeats each call that it died in."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import count
from typing import Any

from herder.clock import clock_us
from tests.chaos.clients import LIMIT_S
from tests.chaos.points import REACH_S, Points
from tests.chaos.world import World


class Calls:
    """Calls of `tests.chaos.caller`, run again as often as it dies.

    Args:
        world: whose herd is called.
        points: where the program is to die.
    """

    def __init__(self, world: World, points: Points) -> None:
        self._world = world
        self._points = points
        self._numbers = count(1)
        self._process: subprocess.Popen[str] | None = None
        self.deaths = 0

    def die_at_all(self) -> None:
        """Call until each point was reached."""
        until = time.monotonic() + REACH_S
        while self._points.left:
            assert time.monotonic() < until, f"never reached: {self._points.left}"
            self._message()
            self._bid()
            for when in ("queued", "dispatched", "running"):
                self._cancel(when)
        self.close()

    def _bid(self) -> None:
        order = self._submit(tokens=10, fee=15)
        for fee in (20, 25):
            again = self._made({"do": "rebid", "order": order, "fee": fee})
            if "refused" in again:
                return
            assert again["fee"] == fee
            self._world.own[order].bids.append((clock_us(), fee))

    def _cancel(self, when: str) -> None:
        # Those that are to be taken at once offer more than anybody.
        order = self._submit(tokens=100, fee=110 if when == "queued" else 2000)
        for _ in range(2):
            answer = self._made({"do": "cancel", "order": order, "when": when})
            assert answer["order"] == order

    def _message(self) -> None:
        """Order by a message, which the judge wants answered once."""
        tags = {
            "Action": "Transfer",
            "Recipient": "herder",
            "Quantity": "20",
            "X-Prompt": "Wait for the others",
            "X-Tokens": "10",
        }
        call = {"do": "message", "key": f"message-{next(self._numbers)}", "tags": tags}
        answer = self._made(call)
        acked_us = clock_us()
        assert self._made(call) == answer, "one key is one message"
        self._world.note(self._world.herd.client.receipt(answer["order"]), acked_us)

    def _submit(self, *, tokens: int, fee: int) -> str:
        key = f"call-{next(self._numbers)}"
        call = {"prompt": "Wait for the others", "tokens": tokens, "fee": fee}
        answer = self._made({"do": "submit", "key": key, "call": call})
        acked_us = clock_us()
        again = self._made({"do": "submit", "key": key, "call": call})
        assert again["order"] == answer["order"], "one key is one order"
        self._world.note(self._world.herd.client.receipt(answer["order"]), acked_us)
        return str(answer["order"])

    def _made(self, call: dict[str, Any]) -> dict[str, Any]:
        """What a call came to, made again wherever the program died in it."""
        while True:
            process = self._running()
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(call) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if answer:
                return dict(json.loads(answer))
            self._note_death(process)

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            herd = self._world.herd
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.caller"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**herd.env, **self._points.env},
                cwd=herd.folder,
            )
        return self._process

    def _note_death(self, process: subprocess.Popen[str]) -> None:
        code = process.wait(timeout=LIMIT_S)
        assert code == -signal.SIGKILL, f"the client's program ended with {code}"
        assert self._points.ended(process.pid), "it died where it was not to"
        self._process = None
        self.deaths += 1

    def close(self) -> None:
        """Let the program end by itself."""
        process, self._process = self._process, None
        if process is not None:
            process.communicate(timeout=LIMIT_S)
