"""The database goes away and comes back, for everybody at once, and buyers go on by every door.

At a random moment, or just when something was committed and its answer is on its way. All of that
happens `CHAOS_ROUNDS` times, once unless that is set; ten take some minutes.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from herder.domain.order import State
from tests.chaos.buyers import DOORS
from tests.chaos.clients import LIMIT_S
from tests.chaos.judge_calls import judge_calls
from tests.chaos.world import SETTINGS
from tests.support.cut_proxy import CutProxy
from tests.support.running import UNCOUNTED, RunningHerd
from tests.support.wait import wait_for

pytestmark = pytest.mark.chaos

ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
AWAY_S = (0.3, 1, 3, 10)
AT_COMMITS_S = (0.3, 1, 3)
"""The longest at a random moment alone, where there is one round."""


@pytest.fixture
def proxy(postgres_server):
    with CutProxy(postgres_server.port) as made:
        yield made


@pytest.fixture
def herd(tmp_path, proxy, postgres_server, own_redis, clean_environment):
    name = postgres_server.new_database()
    address = proxy.through(postgres_server.url(name))
    given = {**SETTINGS, "HERD_SLOTS": "4", "HERD_DATABASE_URL": address}
    made = RunningHerd(tmp_path / "herd", own_redis, **given)
    yield made
    proxy.restore()
    made.close()
    print(made.logs[-20_000:])
    postgres_server.drop(name)


def outages(chance):
    """Return (seconds, whether at a commit), in any order."""
    at_commits = AWAY_S if ROUNDS > 1 else AT_COMMITS_S
    each = [*((one, False) for one in AWAY_S), *((one, True) for one in at_commits)]
    return [one for _ in range(ROUNDS) for one in chance.sample(each, len(each))]


def test_each_call_is_answered_or_charged_nothing_and_is_one_order(herd, proxy, seed):
    chance = random.Random(seed)
    herd.start_herder()
    herd.start_worker()
    _, gateway = herd.start_gateway(**UNCOUNTED)
    _, key = herd.client.api_keys.create("default")
    buyers = [door(herd, gateway, key) for door in DOORS]
    for one in buyers:
        one.start()
    for away_s, at_commit in outages(chance):
        time.sleep(chance.uniform(0.3, 1.5))
        print(time.strftime("%H:%M:%S"), away_s, "at a commit" if at_commit else "")
        if at_commit:
            assert proxy.cut_at(b"COMMIT").wait(LIMIT_S), "somebody commits"
        else:
            proxy.refuse()
        time.sleep(away_s)
        proxy.restore()
    wait_for(lambda: all(answered(one) for one in buyers), "every door has answered", LIMIT_S)
    for one in buyers:
        one.stop()
    for one in buyers:
        one.finish()
    wait_for(
        lambda: all(State(one.state).ended for one in herd.client.orders()), "all end", LIMIT_S
    )
    assert all(child.alive for child in herd.children if not child.name.startswith("submit"))
    for child in herd.children:
        if child.alive:
            child.stop()
    for one in buyers:
        errors = [call.error for call in one.asked if call.error]
        print(f"{one.name}: {len(one.asked)} calls, {len(errors)} errors", *errors, sep="\n  ")
    calls = [call for one in buyers for call in one.asked]
    ends = judge_calls(herd.database, calls, max_attempts=int(SETTINGS["HERD_MAX_ATTEMPTS"]))
    assert ends["completed"] >= len(DOORS)


def answered(buyer):
    """Whether somebody was answered since everything is well again; fail for what went wrong."""
    if not buyer.is_alive():
        buyer.finish()
    return bool(buyer.asked) and any(call.text is not None for call in buyer.asked[-3:])
