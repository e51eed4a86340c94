"""A room, for a program that joins it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx

from herder.client.http.calls import ANSWER_S
from herder.client.http.failures import PASSING, error_of
from herder.client.http.retrying import MAX_TRIES, pause_s
from herder.errors import HerdUnavailable
from herder.examples.room.rules import NameTaken, Said

WAIT_S = 30


class Room:
    """One room.

        with Room("http://127.0.0.1:8081") as room:
            room.join("ada")
            room.say("Good morning!")
            for said in room.listen():
                print(said.name, said.text)

    Args:
        url: of `herd room`.
        room: its name.
        transport: carries the requests; a test's own, else httpx's.
    """

    def __init__(
        self, url: str, room: str = "lobby", *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.name = room
        self._path = f"/v1/rooms/{room}"
        self._chance = random.Random()  # noqa: S311 (it only spreads retries)
        self._http = httpx.Client(
            base_url=url.rstrip("/"), timeout=ANSWER_S + WAIT_S, transport=transport
        )
        self._joined = False

    def join(self, name: str) -> None:
        """Take a name, until `leave`; what is said and read from now on holds it.

        Raises:
            NameTaken: another has it.
            InvalidName: it may not be one.
            RateLimited: the room is full, or it was asked too often.
            HerdUnavailable: the room does not answer.
        """
        answer = self._send("POST", "/members", {"name": name}, name=name)
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"
        self._joined = True

    def leave(self) -> None:
        """Give the name back."""
        if self._joined:
            self._joined = False
            self._send("DELETE", "/members/me")
            del self._http.headers["Authorization"]

    def say(self, text: str) -> Said:
        """Say something. It is said twice or not at all where the answer is lost: so not retried.

        Raises:
            InvalidText, RateLimited, Unauthorized: as the room has it.
            HerdUnavailable: the room does not answer; perhaps it was said.
        """
        return Said.of(self._send("POST", "/messages", {"text": text}))

    def last(self, count: int) -> list[Said]:
        """Return the messages that were said last, oldest first, `count` of them at most."""
        return self._read({"limit": count})

    def listen(self, after: int | None = None) -> Iterator[Said]:
        """Yield what is said, for ever; through restarts of the room.

        Args:
            after: the id of the message to begin behind; None: from now on.

        Raises:
            HerdUnavailable: the room does not answer, for some seconds.
        """
        if after is None:
            after = max((said.id for said in self.last(1)), default=0)
        while True:
            for said in self._read({"after": after, "wait": WAIT_S}):
                after = said.id
                yield said

    def _read(self, query: dict[str, int]) -> list[Said]:
        return [Said.of(one) for one in self._send("GET", "/messages", query=query)["messages"]]

    def _send(
        self,
        method: str,
        path: str,
        body: dict[str, str] | None = None,
        *,
        query: dict[str, int] | None = None,
        name: str = "",
    ) -> Any:
        tried = 0
        while True:
            tried += 1
            try:
                answer = self._http.request(method, self._path + path, json=body, params=query)
            except httpx.TransportError as error:
                # Whether what was lost on the way was done, nobody knows: only reading is safe.
                safe = method == "GET" or isinstance(error, httpx.ConnectError)
                if not safe or tried >= MAX_TRIES:
                    raise HerdUnavailable(
                        f"The room at {self._http.base_url} cannot be reached "
                        f"({type(error).__name__})."
                    ) from error
            else:
                if answer.is_success:
                    return answer.json() if answer.content else None
                if answer.status_code == 409:
                    raise NameTaken(name, self.name)
                if answer.status_code not in PASSING or tried >= MAX_TRIES:
                    raise error_of(answer.status_code, answer.content)
            time.sleep(pause_s(tried, None, self._chance))

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
