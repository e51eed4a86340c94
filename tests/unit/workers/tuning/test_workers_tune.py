"""What `herd worker tune` tries, and what it takes for better; no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from workers.engine.engine import Engine
from workers.engine.stub import StubModel
from workers.settings import WorkerSettings
from workers.tuning.search import STAGES, Search, Trial, advice, better, environment, report, stages
from workers.tuning.tune import put_load

pytestmark = pytest.mark.usefixtures("clean_environment")


def settings(**values: Any) -> WorkerSettings:
    return WorkerSettings(redis_url="redis://127.0.0.1:1/0", **values)


def all_stages() -> list[list[Mapping[str, int | str]]]:
    return [*stages(settings(), 2, gpu=False).values()][:-1]


def machine(speeds: Mapping[tuple[str, int | str], float], noise: list[float] | None = None) -> Any:
    """A machine on which each setting multiplies the speed of 100 tokens a second."""
    asked: list[dict[str, int | str]] = []
    drift = iter(noise or [])

    def measure(changes: Mapping[str, int | str]) -> Trial:
        asked.append(dict(changes))
        rate = 100.0 * next(drift, 1.0)
        for change in changes.items():
            rate *= speeds.get(change, 1.0)
        return Trial(dict(changes), rate, 50.0, 10.0)

    measure.asked = asked  # type: ignore[attr-defined]
    return measure


def test_better_is_faster_by_more_than_noise_or_as_fast_and_calmer() -> None:
    base = Trial({}, 100, 50, 10)
    assert better(Trial({}, 106, 50, 90), base)
    assert not better(Trial({}, 104, 50, 10), base)
    assert better(Trial({}, 100, 50, 7), base)
    assert not better(Trial({}, 95, 50, 1), base)
    assert not better(Trial({}, error="no memory"), base)
    assert better(base, Trial({}, error="no memory"))


def test_it_tries_what_is_not_so_already() -> None:
    found = stages(settings(), 8, gpu=False)
    assert tuple(found) == STAGES
    threads, layouts, slots, steps, weights = found.values()
    assert weights == [{"requantize": "q8_0"}, {"requantize": "q4_0"}]
    assert stages(settings(requantize="q4_0"), 8, gpu=False)["weights"] == []
    assert threads == [{"threads": 4}, {"threads": 7}]
    assert {"kv_layout": "separate", "flash_attention": "auto"} not in layouts
    assert len(layouts) == 3
    assert slots == [{"slots": 8}, {"slots": 32}, {"slots": 64}]
    assert steps == [{"step_tokens": 128}, {"step_tokens": 256}]
    assert stages(settings(), 2, gpu=False)["threads"] == []
    assert stages(settings(), 8, gpu=True)["threads"] == []
    assert stages(settings(threads=4), 8, gpu=False)["threads"] == [{"threads": 7}, {"threads": 8}]
    quantised = stages(settings(kv_type="q8_0"), 2, gpu=False)["cache"]
    assert quantised == [{"kv_layout": "unified", "flash_attention": "auto"}]


def test_it_finds_the_best_one_thing_at_a_time() -> None:
    measure = machine({("flash_attention", "off"): 1.5, ("slots", 32): 1.2, ("slots", 64): 0.3})
    search = Search(all_stages(), [{"requantize": "q4_0"}], measure)
    assert len(list(search.run())) == search.planned == len(measure.asked)
    assert search.best.changes == {
        "kv_layout": "unified",
        "flash_attention": "off",
        "slots": 32,
    }
    assert environment(search.best.changes)["HERD_SLOTS"] == "32"
    assert measure.asked[-1] == {**search.best.changes, "requantize": "q4_0"}
    assert "HERD_FLASH_ATTENTION=off" in advice(search, settings())
    assert report(search)["environment"] == environment(search.best.changes)


def test_what_is_within_the_noise_changes_nothing() -> None:
    measure = machine({("slots", 32): 1.04, ("step_tokens", 128): 0.98})
    search = Search(all_stages(), [], measure)
    list(search.run())
    assert search.best.changes == {}
    assert advice(search, settings()) == [
        "Nothing was clearly better than the settings as they are."
    ]


def test_a_lead_that_the_second_measurement_of_the_start_takes_away_is_none() -> None:
    count = 1 + 3 + 3 + 2
    measure = machine({("slots", 32): 1.2}, [1.0] * count + [1.3])
    search = Search(all_stages(), [], measure)
    list(search.run())
    assert search.best.changes == {}
    assert search.spread == pytest.approx(0.3)
    assert any("measured twice" in line for line in advice(search, settings()))


def test_a_conversion_is_named_and_never_chosen() -> None:
    search = Search([], [{"requantize": "q4_0"}], machine({("requantize", "q4_0"): 2.0}))
    list(search.run())
    assert search.best.changes == {}
    assert any("no longer those of the file" in line for line in advice(search, settings()))


def test_what_cannot_be_used_ends_it_or_is_passed_over() -> None:
    def broken(changes: Mapping[str, int | str]) -> Trial:
        return Trial(dict(changes), error="no such file")

    search = Search([[{"slots": 8}]], [], broken)
    assert len(list(search.run())) == 1
    assert search.best.error == "no such file"

    def small(changes: Mapping[str, int | str]) -> Trial:
        failed = changes.get("slots") == 64
        return Trial(dict(changes), error="no memory") if failed else Trial(dict(changes), 100)

    search = Search([[{"slots": 64}]], [], small)
    list(search.run())
    assert search.best.changes == {}


def test_stopped_between_two_trials_it_holds_what_was_found() -> None:
    measure = machine({("slots", 8): 2.0})
    search = Search([[{"slots": 8}, {"slots": 32}]], [], measure)
    running = search.run()
    next(running), next(running)
    assert search.best.changes == {"slots": 8}
    assert search.spread is None
    assert report(search)["again"] is None
    assert "HERD_SLOTS=8" in advice(search, settings())


def test_separate_caches_are_recommended_with_what_they_cost() -> None:
    search = Search([[{"kv_layout": "separate"}]], [], machine({("kv_layout", "separate"): 2.0}))
    list(search.run())
    assert any("2048 tokens at most" in line for line in advice(search, settings()))
    assert not any("at most" in line for line in advice(search, settings(context=512)))


def test_more_slots_are_recommended_with_what_they_leave_to_each() -> None:
    search = Search([[{"slots": 64}]], [], machine({("slots", 64): 2.0}))
    list(search.run())
    assert any("512 tokens at most" in line for line in advice(search, settings()))
    assert not any("at most" in line for line in advice(search, settings(kv_layout="unified")))


def test_the_load_keeps_all_slots_busy() -> None:
    engine = Engine(StubModel(slots=4, step_s=0.001))
    rate, first_ms, gap_ms = put_load(engine, 0.3)
    assert engine.stop()
    assert 400 < rate < 5000
    assert first_ms > 0
    assert gap_ms >= 1
    assert engine.metrics.rows / engine.metrics.steps > 3.5


class Child:
    """A child process that ends as it is told to."""

    def __init__(self, *ends: int | BaseException) -> None:
        self.ends = list(ends)
        self.command: list[str] = []

    def __call__(self, command: list[str]) -> Child:
        self.command = command
        return self

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        assert not self.ends, "it was waited for"

    def wait(self) -> int:
        end = self.ends.pop(0)
        if isinstance(end, BaseException):
            raise end
        return end


def test_the_command_runs_it_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from herder.cli import workers
    from herder.cli.app import app

    def typed(child: Child, *words: str) -> Any:
        monkeypatch.setattr(workers.subprocess, "Popen", child)
        return CliRunner().invoke(app, ["worker", "tune", "--model-path", "some.gguf", *words])

    child = Child(0)
    assert typed(child, "--seconds", "2", "--json").exit_code == 0
    assert child.command[1:] == [
        *("-m", "workers.tuning.tune", "--model-path", "some.gguf"),
        *("--seconds", "2", "--json"),
    ]
    assert typed(child := Child(0), "--only", "slots,step").exit_code == 0
    assert child.command[-2:] == ["--only", "slots,step"]
    assert typed(Child(2)).exit_code == 2
    assert typed(Child(KeyboardInterrupt(), 130)).exit_code == 130, "the child has the last word"
    died = typed(Child(-11))
    assert died.exit_code == 1
    assert "SIGSEGV" in died.stderr
