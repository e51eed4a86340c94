"""What `make bench-engine` puts on its contenders, and what it makes of their figures."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.bench.engine_loads import (
    NAMES,
    Request,
    Timing,
    arrivals,
    figures,
    from_json,
    make_loads,
    p95,
    put,
    to_json,
)
from tests.bench.engine_report import ratios, table, verdict


def tokenize(text: str) -> list[int]:
    return [hash(word) % 50_000 for word in text.split()]


def test_the_loads_are_those_of_the_rule_and_the_same_each_time() -> None:
    loads = make_loads(tokenize, NAMES)
    assert loads == make_loads(tokenize, NAMES)
    assert {name: len(load) for name, load in loads.items()} == {
        "w1": 64,
        "w2": 64,
        "w3": 48,
        "w3_burst": 48,
        "w4": 12,
    }
    assert {one.new for one in loads["w1"]} == {64}
    system = loads["w2"][0].tokens[:400]
    assert all(one.tokens[:400] == system for one in loads["w2"])
    assert len({one.text for one in loads["w2"]}) == 64
    assert all(20 <= len(one.tokens) <= 800 and 8 <= one.new <= 128 for one in loads["w3"])
    sizes = [[(len(one.tokens), one.new) for one in loads[name]] for name in ("w3", "w3_burst")]
    assert sizes[0] == sizes[1]
    assert loads["w3"][0].text != loads["w3_burst"][0].text, "none may find the other's cells"
    assert from_json(to_json(loads)) == loads
    assert len(make_loads(tokenize, ["w1"], 0.25)["w1"]) == 16


def test_arrivals_keep_the_rate_and_the_order() -> None:
    spread = arrivals([Request("a", [1], 1)] * 2000, 4.0)
    moments = [one.at_s for one in spread]
    assert moments == sorted(moments)
    assert 2000 / moments[-1] == pytest.approx(4.0, rel=0.1)


class Fake:
    def __init__(self, at_once: int = 1) -> None:
        self.at_once = at_once
        self.running = self.most = 0
        self.changed = threading.Condition()

    def run(self, request: Request) -> Timing:
        sent_s = time.perf_counter()
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
            # None ends before as many run as should: who would let more run at once shows it.
            assert self.changed.wait_for(lambda: self.most >= self.at_once, timeout=60)
        time.sleep(0.005)
        with self.changed:
            self.running -= 1
        assert request.text != "wrong"
        return Timing(sent_s, sent_s + 0.001, time.perf_counter(), request.new)


def test_a_load_has_as_many_at_once_as_it_says() -> None:
    loads = make_loads(tokenize, ["w1", "w3_burst", "w4"])
    for name, at_once in (("w1", 16), ("w3_burst", 48), ("w4", 1)):
        fake = Fake(at_once)
        found = put(fake, name, loads[name])
        assert fake.most == at_once
        assert found.tokens_per_s > 0
    with pytest.raises(AssertionError):
        put(Fake(), "w1", [Request("wrong", [1], 1)])


def test_figures_are_worked_out_from_moments() -> None:
    found = figures([Timing(0.0, 0.5, 1.5, 11), Timing(1.0, 1.1, 4.0, 30)])
    assert found.tokens_per_s == pytest.approx(41 / 4)
    assert found.requests_per_s == pytest.approx(0.5)
    assert found.ttft_p95_ms == pytest.approx(500)
    assert found.tpot_p50_ms == pytest.approx(100)
    assert p95(range(1, 101)) == 95


def round_of(speed: float, ttft_ms: float) -> dict[str, Any]:
    def one(tokens_per_s: float, first_ms: float) -> dict[str, Any]:
        times = {"ttft_p50_ms": first_ms, "ttft_p95_ms": first_ms}
        return {"tokens_per_s": tokens_per_s, "tpot_p50_ms": 1, "tpot_p95_ms": 2, **times}

    profile = dict.fromkeys(("decode_share", "sampling_share", "python_share"), 0.3)
    profile |= {"step_ms": 5.0, "rows_per_step": 12.0, "prefilled": 100, "reused": 10}
    ours = {name: {**one(speed, ttft_ms), "profile": profile} for name in ("w1", "w3")}
    return {
        "ours": ours,
        "server": {name: one(100, 200) for name in ("w1", "w3")},
        "prefork": {"w1": one(50, 200)},
    }


def test_ratios_are_medians_of_those_within_a_round() -> None:
    rounds = [round_of(110, 100), round_of(130, 300), round_of(90, 180)]
    found = ratios(rounds)
    assert found == {
        "w1_vs_server": 1.1,
        "w3_vs_server": 1.1,
        "w3_ttft_p95_vs_server": 0.9,
        "w1_vs_prefork": 2.2,
    }
    shown = table({**found, "rounds": rounds, "circumstances": {"cpu": "some"}})
    assert "110.0 [90.0-130.0]" in shown
    assert "aim 1.4: met" in shown
    assert verdict("w3_ttft_p95_vs_server", 1.2) == "aim 1: missed by 20%"
    assert verdict("w4_vs_server", 0.9) == "aim 1: missed by 10%"
    assert verdict("amx", 0) == ""
