"""A receiver of webhooks on a real socket, as well or badly behaved as a test has it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Taken:
    """A request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    at_s: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


def answer(status: int, *lines: str, body: bytes = b"") -> bytes:
    """An HTTP answer."""
    head = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode() + body


class Receiver:
    """Listens on 127.0.0.1, and answers each request by `behave`.

    `behave` is given the socket and the request; by default it says 204.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.taken: list[Taken] = []
        self.connections = 0
        self.behave: Callable[[socket.socket, Taken], None] = says(204)
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        self._open.add(plain)
        try:
            line = plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)
            with line:
                taken = _read(line)
                self.taken.append(taken)
                self.behave(line, taken)
        except (OSError, ValueError):
            return  # the other side went away, or never spoke HTTP
        finally:
            self._open.discard(plain)

    @property
    def ids(self) -> list[str]:
        return [one.id for one in self.taken]

    def close(self) -> None:
        """Go away: connections are refused, and those that were open are cut."""
        if self._listening.fileno() < 0:
            return
        self._listening.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who accepts
        self._listening.close()
        for one in list(self._open):
            one.close()


def _read(line: socket.socket) -> Taken:
    had = b""
    while b"\r\n\r\n" not in had:
        had += _some(line)
    head, _, body = had.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)
    }
    while len(body) < int(headers.get("content-length", "0")):
        body += _some(line)
    return Taken(first, headers, body, time.monotonic())


def _some(line: socket.socket) -> bytes:
    part = line.recv(65_536)
    if not part:
        raise ValueError("cut off")
    return part


def says(status: int, *lines: str, body: bytes = b"") -> Any:
    """Behaves: answers so."""
    return lambda line, _taken: line.sendall(answer(status, *lines, body=body))


def drips(piece: bytes) -> Any:
    """Behaves: sends a piece every 50 ms, and never ends."""

    def behave(line: socket.socket, _taken: Taken) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            line.sendall(piece)
            time.sleep(0.05)

    return behave


def holds(line: socket.socket, _taken: Taken) -> None:
    """Behaves: never answers; ends when the other side does."""
    line.settimeout(120)
    line.recv(1)
