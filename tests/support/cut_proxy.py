"""A TCP proxy between a herd and its database, by which a test takes the database away.

with CutProxy(server.port) as proxy:
    url = proxy.through(server.url(name))
    proxy.refuse()      # connections are cut, new ones are refused
    proxy.hold()        # nothing is passed on; connections stay open, new ones get no answer
    proxy.restore()
    proxy.refuse_for(3) # the database is back three seconds later
    proxy.cut_at(b"COMMIT")  # the next one reaches the server; its answer never comes back
"""

from __future__ import annotations

import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Self

from sqlalchemy import make_url

Mode = Literal["open", "held", "refused"]
_CHUNK = 65_536
_LOOK_S = 0.02


class CutProxy:
    """Passes bytes between clients and one server, until it is told otherwise."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Listen on a free port.

        Args:
            port: the server's.
            host: the server's.
        """
        self._server = (host, port)
        self._lock = threading.Lock()
        self._mode: Mode = "open"
        self._closing = False
        self._pairs: set[_Pair] = set()
        self._cut_at: _Cut | None = None
        self._timers: list[threading.Timer] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self._listen()

    def through(self, url: str) -> str:
        """The address of the same database, over this proxy."""
        parts = make_url(url).set(host="127.0.0.1", port=self.port)
        return parts.render_as_string(hide_password=False)

    # What a test does to it

    def refuse(self) -> None:
        """Cut every connection, and refuse new ones."""
        with self._lock:
            self._refuse()

    def hold(self) -> None:
        """Pass nothing on, either way; what is sent meanwhile arrives after `restore`."""
        with self._lock:
            self._mode = "held"

    def restore(self) -> None:
        """Pass everything on, and take new connections again."""
        with self._lock:
            self._mode = "open"
            if self._listener is None and not self._closing:
                self._listen()

    def refuse_for(self, seconds: float) -> None:
        """Refuse, and restore it after that time; returns at once."""
        self.refuse()
        self._restore_after(seconds)

    def cut_at(
        self,
        statement: bytes,
        then: Mode = "refused",
        *,
        after: bytes = b"",
        answered: bool = False,
    ) -> threading.Event:
        """Pass on the next message that ends so, and cut its connection before the answer.

        A transaction that began as `READ ONLY` is not meant: a herd reads when it likes (the
        version of its tables, say), and a test that cuts a commit is about what was changed.

        Args:
            statement: of SQL, such as `COMMIT`; its end, to be exact: what begins a transaction
                has `READ COMMITTED` in it.
            then: how the proxy behaves to everybody from that moment on.
            after: what its connection has to have sent before, such as `INSERT INTO orders`.
                Statements that are prepared are sent without words: connections have to be new.
            answered: let the answer through, and cut after it.

        Returns:
            Set once it has happened.
        """
        happened = threading.Event()
        with self._lock:
            self._cut_at = _Cut(statement + b"\0", then, after, answered, happened)
        return happened

    def close(self) -> None:
        """Cut everything, and end."""
        for timer in self._timers:
            timer.cancel()
        with self._lock:
            self._closing = True
            self._refuse()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How it is done

    def _restore_after(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self.restore)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _refuse(self, but: _Pair | None = None) -> None:
        self._mode = "refused"
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for pair in self._pairs:
            if pair is not but:
                pair.cut()

    def _listen(self) -> None:
        listener = _bound(self.port)
        listener.settimeout(_LOOK_S)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)

    def _run(self, target: object, *given: object) -> None:
        thread = threading.Thread(target=target, args=given, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except (OSError, ValueError):
                return  # it was closed
            with self._lock:
                if self._listener is not listener:
                    client.close()
                    return
                pair = _Pair(client)
                self._pairs.add(pair)
                self._run(self._serve, pair)

    def _serve(self, pair: _Pair) -> None:
        try:
            while self._mode == "held" and not pair.is_cut:
                time.sleep(_LOOK_S)
            if pair.is_cut:
                return
            with suppress(OSError):
                pair.server = socket.create_connection(self._server)
                self._pump(pair)
        finally:
            with self._lock:
                self._pairs.discard(pair)
            pair.close()

    def _pump(self, pair: _Pair) -> None:
        client, server = pair.client, pair.server
        assert server is not None
        while not pair.is_cut:
            if self._mode == "held":
                time.sleep(_LOOK_S)
                continue
            ready, _, _ = select.select([client, server], [], [], _LOOK_S)
            for one in ready:
                if self._mode == "held" or pair.is_cut:
                    break
                data = one.recv(_CHUNK)
                if not data:
                    return
                if one is client and self._is_cut_here(pair, data):
                    return
                (server if one is client else client).sendall(data)

    def _is_cut_here(self, pair: _Pair, data: bytes) -> bool:
        if b"BEGIN" in data:
            pair.only_reads = b"READ ONLY" in data
        with self._lock:
            cut = self._cut_at
            if cut is None:
                return False
            pair.is_marked = pair.is_marked or cut.after in data
            if pair.only_reads or not pair.is_marked or cut.statement not in data:
                return False
            self._cut_at = None
        assert pair.server is not None
        pair.server.sendall(data)
        # The server has done it when it has answered.
        pair.server.settimeout(60)
        answer = pair.server.recv(_CHUNK)
        with self._lock:
            if cut.then == "refused":
                self._refuse(but=pair)
            else:
                self._mode = cut.then
        cut.happened.set()
        # All others are cut first: who gets the answer finds no connection to go on with. What
        # was sent before the line is cut is read before its end.
        if cut.answered:
            pair.client.sendall(answer)
        pair.cut()
        return True


@dataclass(frozen=True)
class _Cut:
    """What `cut_at` was asked."""

    statement: bytes
    then: Mode
    after: bytes
    answered: bool
    happened: threading.Event


def _bound(port: int) -> socket.socket:
    """A listener on this port; one that was just closed there is let go within moments."""
    until_s = time.monotonic() + 60
    while True:
        try:
            return socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(_LOOK_S)


class _Pair:
    """A client's connection and the one to the server that stands for it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.is_cut = False
        self.is_marked = False
        self.only_reads = False

    def cut(self) -> None:
        """Have its thread close it."""
        self.is_cut = True
        with suppress(OSError):
            self.client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        if self.server is not None:
            self.server.close()
