"""Full servers: nothing is lost, a log is short, and a command says in a sentence what to do."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from tests.support.running import RunningHerd
from tests.support.typed import answered
from tests.support.wait import wait_for

WATCHED_S = 6.0
"""Less than the ten seconds in which one kind of failure is a line."""


def type_in(herd: RunningHerd, *words: str) -> tuple[int, str]:
    """Type a command; its exit code and what it says on standard error."""
    done = answered(herd, *words)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def kinds(lines: list[str]) -> Counter[str]:
    """How often each event was logged as a warning or an error, for each reason."""
    found = (
        re.search(r"\[(?:warning|error) *\] (\w+).*?(reason=(?:'[^']*'|\S+)|$)", line)
        for line in lines
    )
    return Counter(f"{one[1]} {one[2]}" for one in found if one is not None)


@pytest.mark.parametrize(
    ("full", "empty", "advice"),
    [
        ({"maxmemory": "1", "maxmemory-policy": "noeviction"}, {"maxmemory": "0"}, "maxmemory"),
        ({"maxclients": "1"}, {"maxclients": "10000"}, "maxclients"),
    ],
    ids=["memory", "connections"],
)
def test_a_full_redis_loses_nothing_and_is_named_in_a_line(
    own_redis, make_herd, full, empty, advice
):
    herd = make_herd(own_redis)
    herder, worker = herd.start_herder(), herd.start_worker(HERD_STUB_STEP_MS="20")
    orders = [herd.submit(f"Number {n}", 20 if n else 200) for n in range(6)]
    herd.running(orders[0])
    before = len(herder.log.splitlines())
    setter = own_redis.client()  # keeps its connection, should no more be taken
    for name, value in full.items():
        setter.config_set(name, value)
    began_s = time.monotonic()
    code, said = type_in(herd, "worker", "drain", worker.name)
    assert (code, said.count("\n")) == (1, 1)
    assert advice in said
    code, said = type_in(herd, "submit", "hello", "-n", "3", "--no-wait")
    # It is taken, since the database has it, and told in its usual line.
    assert (code, said.count("\n"), "5 winston held" in said) == (0, 1, True)
    time.sleep(max(0.0, WATCHED_S - (time.monotonic() - began_s)))
    lines = herder.log.splitlines()[before:]
    for name, value in empty.items():
        setter.config_set(name, value)
    assert {order.result(timeout=120).receipt.state for order in orders} == {"completed"}
    assert "Traceback" not in herder.log
    # On a busy machine the commands above took longer than that.
    most = 2 * max(1.0, (time.monotonic() - began_s) / WATCHED_S)
    often = {kind: count for kind, count in kinds(lines).items() if count > most}
    assert not often, often
    wait_for(lambda: herd.client.accounts.balance("default").held == 0, "all is settled")
