"""A model is tried out before it is used: beside others, in one batch, and whether it crashes."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from workers.engine.sequences import BatchRow
from workers.errors import ModelError
from workers.llama import trial
from workers.llama.model import LlamaModel
from workers.llama.options import LlamaOptions
from workers.tuning import check


def options_for(path: Any) -> LlamaOptions:
    return LlamaOptions(path=path, slots=4, cells=1024, threads=1)


class Wrong(LlamaModel):
    """Computes another token where `mixes` says so: as llama.cpp does for some architectures."""

    def mixes(self, rows: Sequence[BatchRow]) -> bool:
        return len(rows) > 1

    def _compute(self, rows: Sequence[BatchRow]) -> bool:
        if self.mixes(rows):
            rows = [
                row._replace(tokens=[*row.tokens[:-1], 3 + row.tokens[-1] % 99]) for row in rows
            ]
        return super()._compute(rows)


class WrongAlone(Wrong):
    def mixes(self, rows: Sequence[BatchRow]) -> bool:
        return len(rows[0].tokens) > 4


class WrongBeside(Wrong):
    """Only where the other sequence has something in the cache."""

    def mixes(self, rows: Sequence[BatchRow]) -> bool:
        return len(rows) > 1 and rows[0].start > 0


@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3", "mamba2", "lfm2", "qwen3next"])
def test_what_is_computed_right_shares_batches(small_model, name):
    assert trial.outcome_for(options_for(small_model(name))) == "together"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(LlamaModel, "together"), (Wrong, "alone"), (WrongBeside, "alone"), (WrongAlone, "wrong")],
)
def test_what_is_wrong_beside_others_is_computed_alone(small_model, kind, outcome):
    model = kind(options_for(small_model("llama")))
    assert trial.try_out(model) == outcome
    assert all(past == 0 for past in model._past), "its cache is empty"
    model.close()


def test_a_slow_model_is_tried_with_fewer_tokens(small_model):
    model = LlamaModel(options_for(small_model("llama")))
    seconds = count()
    steps = 0

    def clock() -> float:
        nonlocal steps
        steps += 1
        return next(seconds) * 6.0

    assert trial.try_out(model, clock) == "together"
    assert steps < 12
    model.close()


def test_noise_is_judged_with_numbers_of_32_bits(small_model, monkeypatch):
    """What differs only as the settings have it, is no fault of the architecture."""
    tried = []

    def try_out(model: LlamaModel) -> trial.Outcome:
        tried.append(model.facts.kv_bytes)
        return "alone" if len(tried) == 1 else "together"

    monkeypatch.setattr(trial, "try_out", try_out)
    assert trial.outcome_for(options_for(small_model("llama"))) == "together"
    assert tried[1] == pytest.approx(2 * tried[0], rel=0.1)


def test_a_child_tries_it(small_model, clean_environment):
    options = options_for(small_model("llama"))
    assert trial.tried_in_child(options) == options
    missing = options_for("/nowhere/model.gguf")
    assert trial.tried_in_child(missing) == missing, "whoever loads it tells why not"


@pytest.fixture
def child(monkeypatch):
    """What the child came to."""

    def end(code: int, said: str = "") -> None:
        def run(command: Any, **_: Any) -> Any:
            return subprocess.CompletedProcess(command, code, said, "")

        monkeypatch.setattr(trial.subprocess, "run", run)

    return end


def test_a_crash_is_told_and_ends_no_worker_without_a_word(child):
    child(-signal.SIGABRT)
    with pytest.raises(ModelError, match=r"crashes with the model in a\.gguf \(SIGABRT\)"):
        trial.tried_in_child(options_for("a.gguf"))


def test_what_a_child_finds_is_heeded(child):
    options = options_for("a.gguf")
    child(0, "together\n")
    assert trial.tried_in_child(options) == options
    child(0, "alone\n")
    assert trial.tried_in_child(options).one_a_batch
    child(0, "wrong\n")
    with pytest.raises(ModelError, match=r"computes the model in a\.gguf wrong"):
        trial.tried_in_child(options)


def test_one_a_batch_is_told_and_has_a_part_for_each_slot(small_model):
    path = small_model("llama")
    model = LlamaModel(LlamaOptions(path=path, slots=2, cells=512, unified=True, one_a_batch=True))
    model.close()
    assert model.facts.separate
    assert "orders take turns" in model.facts.notes[0]


@pytest.mark.parametrize("outcome", ["alone", "wrong"])
def test_the_check_says_so(small_model, monkeypatch, clean_environment, capsys, outcome):
    monkeypatch.setattr(trial, "outcome_for", lambda _: outcome)
    code = check.main(["--model-path", str(small_model("llama")), "--seconds", "0.1"])
    said = capsys.readouterr()
    if outcome == "alone":
        assert code == 0
        assert "orders take turns" in said.out
    else:
        assert code == 2
        assert said.err.count("\n") == 1
        assert "wrong" in said.err
