"""The room, a process of its own on a real socket, and programs that join it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from herder.errors import InvalidName, RateLimited, Unauthorized
from herder.examples.room.client import Room
from herder.examples.room.rules import MAX_CHARS, MAX_MESSAGES_AT_ONCE, NameTaken
from tests.support.running import HERD, Child
from tests.support.wait import wait_for


class RunningRoom:
    def __init__(self, folder, **settings):
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
        self.env = {**clean, "HERD_HOME": str(folder / "home"), **settings}
        self.child = None
        self.port = 0
        self.count = 0

    def begin(self, *arguments):
        self.count += 1
        name = f"room{self.count}"
        return Child(name, ["room", *arguments], self.env, self.folder, HERD)

    def start(self):
        self.child = self.begin("--port", str(self.port))
        self.child.says("room_ready")
        (host, port) = re.findall(r"room_ready +host=(\S+) port=(\d+)", self.child.log)[0]
        self.port, self.url = int(port), f"http://{host}:{port}"
        return self.url


@pytest.fixture
def make_room(tmp_path):
    made = []

    def make(**settings):
        made.append(RunningRoom(tmp_path, **settings))
        made[-1].start()
        return made[-1]

    yield make
    for room in made:
        if room.child.alive:
            room.child.kill()
        print(room.child.log)


@pytest.fixture
def room(make_room):
    return make_room()


@pytest.fixture
def web(room):
    with httpx.Client(base_url=room.url, timeout=60) as client:
        yield client


def told(answer, status, code):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"].endswith(".")
    return error


def test_two_programs_join_and_hear_each_other(room):
    with Room(room.url) as ada, Room(room.url) as bob:
        ada.join("ada")
        bob.join("bob")
        heard = []

        def listen():
            for said in bob.listen(after=0):
                heard.append((said.name, said.text))
                if said.name == "ada":
                    bob.say(f"You said: {said.text}")
                if len(heard) == 4:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        ada.say("Good morning!")
        wait_for(lambda: len(heard) == 2, "bob hears himself too")
        ada.say("  Grüße, 🦙\n")
        thread.join(timeout=60)
        conversation = [
            ("ada", "Good morning!"),
            ("bob", "You said: Good morning!"),
            ("ada", "Grüße, 🦙"),
            ("bob", "You said: Grüße, 🦙"),
        ]
        assert heard == conversation
        assert [(said.name, said.text) for said in ada.last(3)] == conversation[1:]


def test_a_name_is_had_by_one_and_is_free_when_it_is_given_back(room, web):
    with Room(room.url) as ada, Room(room.url) as other:
        ada.join("Ada")
        for name in ("Ada", "ADA", "ada"):
            with pytest.raises(NameTaken, match="taken"):
                other.join(name)
        with pytest.raises(InvalidName):
            other.join("a b")
        with pytest.raises(Unauthorized, match="got when joining"):
            other.say("I am Ada.")
        assert web.get("/v1/rooms/lobby/members").json() == {"members": ["Ada"]}
        first = ada.say("It is me.").member
        ada.leave()
        other.join("ada")
        assert other.say("It is another.").member != first, "who reads can tell them apart"
        with pytest.raises(Unauthorized):
            ada.say("And I?")


def test_of_many_that_want_a_name_at_once_one_has_it(room):
    def join(_):
        with Room(room.url) as one:
            try:
                one.join("only")
            except NameTaken:
                return "taken"
            return "had"

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(join, range(8))) == ["had"] + ["taken"] * 7


def test_after_a_restart_everything_said_is_there_and_listeners_go_on(room):
    with Room(room.url) as ada, Room(room.url) as bob:
        ada.join("ada")
        heard = []

        def listen():
            for said in bob.listen(after=0):
                heard.append(said.text)
                if said.text == "two":
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        ada.say("one")
        wait_for(lambda: heard == ["one"], "the first")
        room.child.kill()
        room.start()
        ada.say("two")  # the token holds the name, which another still may not take
        with pytest.raises(NameTaken):
            bob.join("ada")
        thread.join(timeout=60)
        assert heard == ["one", "two"]


def test_it_ends_at_once_though_lines_are_open(room, web):
    asked = threading.Event()

    def note(step, _info):
        if step == "http11.send_request_body.complete":
            asked.set()

    poll = {"params": {"after": 0, "wait": 60}, "extensions": {"trace": note}}
    with (
        ThreadPoolExecutor(1) as pool,
        web.stream("GET", "/v1/rooms/lobby/events") as answer,
    ):
        polling = pool.submit(web.get, "/v1/rooms/lobby/messages", **poll)
        assert asked.wait(60)
        wait_for(lambda: unread(room) == [0, 0], "the room has read what it is asked")
        room.child.process.send_signal(signal.SIGINT)
        # Lines that were cut after the ten seconds that they are given would raise here.
        assert polling.result(timeout=60).json()["messages"] == []
        answer.read()
    assert room.child.ended() == 0
    assert "Traceback" not in room.child.log


def unread(room):
    """Of each connection to the room: how many bytes wait to be read there."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    ours = [row for row in rows if row[1].endswith(f":{room.port:04X}") and row[3] == "01"]
    return [int(row[4].partition(":")[2], 16) for row in ours]


def test_events_bring_what_is_said_and_go_on_behind_the_last(room, web):
    with Room(room.url) as ada:
        ada.join("ada")
        first = ada.say("one").id
        ada.say("two")

        def read(last, until):
            found = []
            headers = {"Last-Event-ID": str(last)}
            with web.stream("GET", "/v1/rooms/lobby/events", headers=headers) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "data":
                        found.append(json.loads(value)["text"])
                    if found and found[-1] == until:
                        return found
            return found

        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read, 0, "three")
            ada.say("three")
            assert reading.result(timeout=60) == ["one", "two", "three"]
        assert read(first, "three") == ["two", "three"]
    headers = {"Last-Event-ID": "x"}
    refused = web.get("/v1/rooms/lobby/events", headers=headers)
    assert told(refused, 400, "invalid_request")["param"] == "Last-Event-ID"


def test_history_is_bounded_and_a_reader_who_missed_something_is_told(make_room):
    room = make_room(HERD_ROOM_HISTORY="3", HERD_ROOM_NAMES="lobby, market")
    with Room(room.url) as ada, Room(room.url, "market") as market:
        ada.join("ada")
        market.join("ada")  # a name is had in a room, not in all
        market.say("apples")
        ids = [ada.say(str(n)).id for n in range(5)]
        assert [said.text for said in ada.last(20)] == ["2", "3", "4"]
        assert [said.text for said in market.last(20)] == ["apples"]
    web = httpx.Client(base_url=room.url)
    found = web.get("/v1/rooms/lobby/messages", params={"after": ids[0], "limit": 2}).json()
    assert [one["text"] for one in found["messages"]] == ["2", "3"]
    assert found["missed"]
    found = web.get("/v1/rooms/lobby/messages", params={"after": found["next"]}).json()
    assert ([one["text"] for one in found["messages"]], found["missed"]) == (["4"], False)
    assert web.get("/v1/rooms").json()["rooms"] == [
        {"room": "lobby", "messages": 3},
        {"room": "market", "messages": 1},
    ]


def test_who_speaks_too_fast_is_told_when_to_go_on(make_room):
    room = make_room(HERD_ROOM_MESSAGES_PER_MINUTE="20")
    with Room(room.url) as ada, Room(room.url) as bob:
        ada.join("ada")
        bob.join("bob")

        def chatter():
            for n in range(MAX_MESSAGES_AT_ONCE + 50):
                ada.say(str(n))

        with pytest.raises(RateLimited) as refused:
            chatter()
        assert 1 <= refused.value.retry_after_s <= 3
        assert len(ada.last(100)) >= MAX_MESSAGES_AT_ONCE
        bob.say("I may.")


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'"text"',
    b"{}",
    b'{"text": null}',
    b'{"text": 5}',
    b'{"text": ["a"]}',
    b'{"text": "a", "name": "bob"}',
    b'{"text": ""}',
    b'{"text": " \\n\\t "}',
    b'{"text": "\\u0000"}',
    b'{"text": "\\u001b[2J"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\xff"}',
    b'{"text": "' + b"a" * (MAX_CHARS + 1) + b'"}',
    b"[" * 20_000,
]


def test_what_is_no_message_is_refused_in_the_gateways_form(room, web):
    token = web.post("/v1/rooms/lobby/members", json={"name": "ada"}).json()["token"]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for body in HOSTILE:
        answer = web.post("/v1/rooms/lobby/messages", content=body, headers=headers)
        assert answer.status_code == 400, (body[:40], answer.text)
        assert {"message", "type", "param", "code"} <= answer.json()["error"].keys()
    long = web.post("/v1/rooms/lobby/messages", content=b"a" * 100_000, headers=headers)
    told(long, 413, "body_too_long")
    for name in ("", " ", "a b", "é", "-a", "a" * 33, "a\u0000", "a\n"):
        told(web.post("/v1/rooms/lobby/members", json={"name": name}), 400, "invalid_name")
    told(web.post("/v1/rooms/lobby/members", json={"name": "ADA"}), 409, "name_taken")
    for room_name in ("attic", "lobby%00", "..%2f", "%F0%9F%A6%99", "x" * 64):
        for path in ("messages", "events", "members"):
            answer = web.get(f"/v1/rooms/{room_name}/{path}")
            told(answer, 404, "not_found")
    for query in ("after=-1", "after=x", f"after={2**63}", "limit=0", "limit=101", "wait=61"):
        told(web.get(f"/v1/rooms/lobby/messages?{query}"), 400, "invalid_request")
    for shown in ("room_x", "\u00ff" * 8):
        headers = {"Authorization": f"Bearer {shown}".encode("latin-1")}
        answer = web.post("/v1/rooms/lobby/messages", json={"text": "Hi"}, headers=headers)
        told(answer, 401, "unauthorized")
    assert web.get("/v1/rooms/lobby/messages").json()["messages"] == []
    assert web.get("/healthz").json() == {"status": "ok"}
    assert token not in room.child.log
    assert "call_broke" not in room.child.log
    assert "Traceback" not in room.child.log


def test_a_room_that_cannot_be_served_says_why_in_one_line(room, tmp_path):
    def refused(*arguments, **env):
        one = RunningRoom(tmp_path, **env)
        one.count = 100 + len(list(tmp_path.iterdir()))
        child = one.begin("--port", "0", *arguments)
        assert child.ended() == 2
        (line,) = child.log.splitlines()
        return line

    assert "already uses" in refused()
    (tmp_path / "other.db").write_text("This is a diary.")
    assert "cannot be used" in refused("--file", str(tmp_path / "other.db"))
    import sqlite3

    with sqlite3.connect(tmp_path / "herd.db") as connection:
        connection.execute("CREATE TABLE account (id INTEGER)")
    assert "was not made by this version's room" in refused("--file", str(tmp_path / "herd.db"))
    assert "HERD_ROOM_NAMES" in refused(HERD_ROOM_NAMES="lobby,,b")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ("--port", port, "--file", str(tmp_path / "new.db"))
        assert "HERD_ROOM_PORT" in refused(*arguments)


# The bounds are the gateway's


def test_a_head_that_is_too_long_is_refused_as_the_gateway_does(room, web):
    told(web.get("/v1/rooms", headers={"X-Long": "x" * 40_000}), 431, "head_too_long")
    assert web.get("/v1/rooms", headers={"X-Long": "x" * 20_000}).status_code == 200


def test_half_a_request_and_an_answer_that_nobody_reads_are_cut(make_room):
    room = make_room(HERD_MAX_REQUEST_S="1", HERD_SLOW_READER_S="1")
    with socket.create_connection(("127.0.0.1", room.port), timeout=60) as line:
        line.sendall(b"GET /v1/rooms HTTP/1.1\r\nHost: ")
        assert line.recv(1000) == b""  # cut, after a second
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: room\r\n\r\n" * 5000
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(0.5)
        line.connect(("127.0.0.1", room.port))
        with suppress(TimeoutError, ConnectionError):  # it is no longer read either
            line.sendall(asked)
        room.child.says("slow_reader_cut")
