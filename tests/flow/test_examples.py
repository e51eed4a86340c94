"""The example programs as a person starts them; the model is the deterministic one."""

from __future__ import annotations

import re
import signal
from uuid import uuid4

import httpx
import pytest

from herder.examples.room.client import Room
from tests.support.running import HERD
from tests.support.wait import wait_for

LINES = ("It is a fine day.", "I am happy.", "What shall we eat?")


@pytest.fixture
def places(herd):
    """A herd with a worker, a gateway and a room; an account for each program."""
    herd.start_worker()
    _, url = herd.start_gateway()
    room = herd.start("room", ["room", "--port", "0"], HERD)
    room.says("room_ready")
    (port,) = re.findall(r"room_ready +host=\S+ port=(\d+)", room.log)
    keys = {}
    for account in ("bot", "agent", "exchange"):
        herd.client.accounts.create(account)
    for account in ("bot", "agent"):
        herd.client.accounts.deposit(account, 100_000, str(uuid4()), "")
        _, keys[account] = herd.client.api_keys.create(account)
    return herd, url, f"http://127.0.0.1:{port}", keys


def program(herd, name, url, key, *arguments):
    env = {"HERD_URL": url, "HERD_API_KEY": key, "PYTHONUNBUFFERED": "1"}
    return herd.start(name, list(arguments), ("-m", f"herder.examples.{name}"), **env)


def answers(room):
    return sum(one.name == "Lenny" for one in room.last(20))


def interrupted(child):
    child.process.send_signal(signal.SIGINT)
    return child.ended()


def test_the_chatbot_answers_pays_and_gives_its_name_back(places):
    herd, url, room_url, keys = places
    bot = program(herd, "chatbot", url, keys["bot"], "--room-url", room_url, "--chance", "100")
    members = f"{room_url}/v1/rooms/lobby/members"
    wait_for(lambda: "Lenny" in httpx.get(members).json()["members"], "it joins")
    with Room(room_url) as room:
        room.join("ada")
        for n, line in enumerate(LINES, 1):
            room.say(line)
            wait_for(lambda n=n: answers(room) == n, f"its answer {n}")
            done = herd.client.orders(account="bot", state="completed")
            assert len(done) == n, "none to itself"
    assert interrupted(bot) == 0
    paid = sum(order.charged for order in done)
    assert f"Lenny answered 3 times and paid {paid} winston." in bot.log
    assert "Traceback" not in bot.log
    assert "ada: It is a fine day." in bot.log
    assert httpx.get(members).json()["members"] == ["ada"]
    assert herd.client.accounts.balance("bot").posted == 100_000 - paid


def test_the_agent_asks_and_decides_and_goes_on_when_the_gateway_was_away(places):
    herd, url, room_url, keys = places
    with Room(room_url) as room:
        room.join("ada")
        for line in LINES:
            room.say(line)
    arguments = ("--room-url", room_url, "--every", "0.5")
    agent = program(herd, "sentiment", url, keys["agent"], *arguments)

    def counts():
        found = re.findall(r"requests=(\d+) buys=(\d+) skips=(\d+) errors=(\d+)", agent.log)
        return [int(count) for count in found[-1]] if found else [0] * 4

    wait_for(lambda: sum(counts()[1:]) >= 3, "three decisions")
    gateway = next(child for child in herd.children if child.name.startswith("gateway"))
    gateway.kill()
    wait_for(lambda: "ConnectError" in agent.log or "refused)" in agent.log, "it notices")
    herd.start_gateway(int(url.rpartition(":")[2]))
    before = counts()
    wait_for(lambda: sum(counts()[1:]) >= sum(before[1:]) + 3, "three more")
    assert interrupted(agent) == 0
    assert "Traceback" not in agent.log
    wait_for(lambda: herd.client.accounts.balance("agent").held == 0, "nothing is open")
    requests, buys, *_ = counts()
    orders = herd.client.orders(account="agent")
    assert {(order.fee, order.tokens) for order in orders} == {(100, 10)}
    assert requests <= len(orders) <= requests + 1
    bought = herd.client.accounts.balance("exchange").posted
    assert bought in (buys * 50, (buys + 1) * 50)
    paid = sum(order.charged for order in orders) + bought
    assert herd.client.accounts.balance("agent").posted == 100_000 - paid


def test_a_program_whose_key_is_none_says_so_and_ends(places):
    herd, url, room_url, _ = places
    with Room(room_url) as room:
        room.join("ada")
        room.say("Hi!")
    agent = program(herd, "sentiment", url, "herd_x", "--room-url", room_url)
    assert agent.ended() == 1
    assert "401" in agent.log
    away = program(herd, "chatbot", url, "herd_x", "--room-url", "http://127.0.0.1:1")
    assert away.ended() == 1
    assert "cannot be reached" in away.log
    assert "Traceback" not in agent.log + away.log
