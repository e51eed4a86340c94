"""A model is tried out before it is used: beside others, in one batch, and whether it crashes."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.faulty_trial import path_with
from tests.support.small_models import gguf, keys_of, random_weights, tensors_of
from tests.support.wait import wait_for
from workers.engine.sequences import BatchRow
from workers.errors import DecodeFailed, ModelError, ModelFileError
from workers.llama import trial
from workers.llama.model import LlamaModel
from workers.llama.options import LlamaOptions, llama_options
from workers.llama.verdicts import Verdict
from workers.settings import load_settings
from workers.tuning import check
from workers.tuning.tune import Bench


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
    outcome, difference = trial.verdict_for(options_for(small_model(name)))
    assert outcome == "together"
    assert 0 <= difference < 0.01


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(LlamaModel, "together"), (Wrong, "alone"), (WrongBeside, "alone"), (WrongAlone, "wrong")],
)
def test_what_is_wrong_beside_others_is_computed_alone(small_model, kind, outcome):
    model = kind(options_for(small_model("llama")))
    found = trial.try_out(model)
    assert found.outcome == outcome
    assert (found.difference > 0.5) == (outcome == "wrong")
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

    assert trial.try_out(model, clock).outcome == "together"
    assert steps < 12
    model.close()


class NoNumbersAsServed(LlamaModel):
    """With a cache of 32 bits, and without flash attention, it would be right."""

    def __init__(self, options: LlamaOptions) -> None:
        super().__init__(options)
        self.broken = options.kv_type != "f32"

    def logits(self, rows: int) -> Any:
        found = super().logits(rows).copy()
        if self.broken:
            found[:, 0] = np.nan
        return found


def test_what_is_served_is_judged_and_not_what_other_settings_would_give(small_model, monkeypatch):
    monkeypatch.setattr("workers.llama.model.LlamaModel", NoNumbersAsServed)
    options = options_for(small_model("llama"))
    verdict = trial.verdict_for(options)
    assert verdict == ("wrong", math.inf)
    with pytest.raises(ModelError, match=r"HERD_KV_TYPE is f16 .* is not a number"):
        trial.judged(options, verdict)


def noisy(amount: float) -> type[LlamaModel]:
    """A model whose logits beside others are off by so many standard deviations."""

    class Noisy(LlamaModel):
        def logits(self, rows: int) -> Any:
            found = super().logits(rows)
            if rows < 2 or self.one_a_batch:
                return found
            off = np.random.default_rng(1).standard_normal(found.shape).astype(np.float32)
            return found + amount * found.std(axis=1, keepdims=True) * off

    return Noisy


@pytest.mark.parametrize(
    ("amount", "outcome"),
    [(0.05, "together"), (0.3, "together"), (0.42, "together"), (0.6, "alone")],
)
def test_a_model_that_rounds_more_than_others_is_served(small_model, amount, outcome):
    model = noisy(amount)(options_for(small_model("llama")))
    verdict = trial.try_out(model)
    model.close()
    assert verdict.outcome == outcome
    if outcome == "together":
        assert verdict.difference == pytest.approx(amount, rel=0.2)


def test_what_is_between_rounding_and_wrong_is_noted_with_its_figure(small_model):
    options = options_for(small_model("llama"))
    assert trial.judged(options, Verdict("together", 0.14)) == options
    model = LlamaModel(trial.judged(options, Verdict("together", 0.31)))
    model.close()
    assert len(model.facts.notes) == 1
    assert "off by 0.31 standard deviations" in model.facts.notes[0]


# In a process of its own


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "workers.llama.trial")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_child_tries_it(small_model, clean_environment, events):
    options = options_for(small_model("llama"))
    assert trial.tried_in_child(options) == options
    assert len(events()) == 1
    assert events()[0].startswith("model_tried outcome=together difference=0.0")


def test_the_child_says_what_it_found_and_ends_with_0(small_model, clean_environment):
    command = [sys.executable, "-m", "workers.llama.trial", str(small_model("llama"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert trial._VERDICT.fullmatch(done.stdout.strip())
    assert done.stdout.startswith("together 0.0")


@pytest.fixture
def faulty(small_model, clean_environment, monkeypatch, tmp_path):
    """Has a child with a fault try a model out."""

    def ask(fault: str) -> LlamaOptions:
        monkeypatch.setenv("PYTHONPATH", path_with(fault, tmp_path))
        return trial.tried_in_child(options_for(small_model("llama")))

    return ask


def test_what_a_child_finds_is_heeded(faulty, events):
    assert faulty("alone").one_a_batch
    with pytest.raises(
        ModelError, match=r"computes the model in .* wrong .*HERD_MODEL_TRIAL=false"
    ):
        faulty("wrong")
    assert [event.split(" diff")[0] for event in events()] == [
        "model_tried outcome=alone",
        "model_tried outcome=wrong",
    ]


def test_a_crash_is_told_with_what_was_said_last(faulty):
    with pytest.raises(
        ModelError, match=r"\(SIGABRT: ggml\.c:7: GGML_ASSERT\(planted\) failed\)\.$"
    ):
        faulty("crash")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("killed", "exit_code=-9 reason='no verdict'"),
        ("raises", "exit_code=1 reason='no verdict'"),
        ("mute", "exit_code=0 reason='no verdict'"),
        ("fails", "exit_code=3 reason='llama_decode returned -2 (no room).'"),
    ],
)
def test_any_other_end_is_told_and_the_model_loaded(faulty, events, small_model, fault, said):
    assert faulty(fault) == options_for(small_model("llama"))
    assert events() == [f"model_not_tried {said}"]


def test_what_computes_nothing_in_this_process_is_not_judged(small_model, monkeypatch, events):
    def fail(*_: Any) -> Any:
        raise DecodeFailed("llama_decode returned -2.")

    monkeypatch.setattr(trial, "verdict_for", fail)
    options = options_for(small_model("llama"))
    assert trial.tried(options) == options
    assert events() == ["model_not_tried reason='llama_decode returned -2.'"]


def test_what_cannot_be_loaded_is_for_whoever_loads_it_to_tell(clean_environment, events):
    missing = options_for("/nowhere/model.gguf")
    assert trial.tried_in_child(missing) == missing
    assert events() == []


def test_a_damaged_file_is_told_as_such(tmp_path, clean_environment, capsys, events):
    keys = keys_of("llama")
    weights = random_weights(tensors_of(tmp_path / "keys.gguf", keys), 1)
    weights["blk.0.ffn_up.weight"][3, 5] = np.nan
    path = tmp_path / "damaged.gguf"
    path.write_bytes(gguf(keys, weights))
    options = trial.tried_in_child(options_for(path))
    assert events() == []
    with pytest.raises(ModelFileError, match="cannot be loaded") as refusal:
        LlamaModel(options)
    assert check.main(["--model-path", str(path)]) == 2
    assert capsys.readouterr().err == f"{refusal.value.message}\n"


def test_the_trial_can_be_left_out(monkeypatch, clean_environment):
    assert llama_options(load_settings()).trial
    monkeypatch.setenv("HERD_MODEL_TRIAL", "false")
    options = llama_options(load_settings())
    monkeypatch.setattr(trial, "verdict_for", None)
    monkeypatch.setattr(trial.subprocess, "run", None)
    assert trial.tried(options) == trial.tried_in_child(options) == options


PARENT = """
import sys
from pathlib import Path
from workers.llama.options import LlamaOptions
from workers.llama.trial import tried_in_child
tried_in_child(LlamaOptions(path=Path(sys.argv[1])))
"""


def opened_for_writing(pipe: Path) -> int | None:
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # nobody reads it yet
        return None


def test_a_child_does_not_outlive_its_worker(tmp_path, clean_environment):
    """It reads a pipe as its model, so that it waits until the test lets it go."""
    model = tmp_path / "model.gguf"
    os.mkfifo(model)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(model)])
    try:
        writer = wait_for(lambda: opened_for_writing(model), "the child opens the model")
        try:
            watch = select.poll()
            watch.register(writer, select.POLLERR)
            assert watch.poll(0) == [], "it reads"
            parent.send_signal(signal.SIGKILL)
            parent.wait(60)
            assert watch.poll(60_000) == [(writer, select.POLLERR)], "nobody reads any more"
        finally:
            os.close(writer)
    finally:
        parent.kill()
        parent.wait(60)


def test_one_a_batch_is_told_and_has_a_part_for_each_slot(small_model):
    path = small_model("llama")
    model = LlamaModel(LlamaOptions(path=path, slots=2, cells=512, unified=True, one_a_batch=True))
    model.close()
    assert model.facts.separate
    assert "orders take turns" in model.facts.notes[0]


@pytest.mark.parametrize("verdict", [Verdict("alone", 0.0), Verdict("wrong", 1.2)])
def test_the_check_says_so(small_model, monkeypatch, clean_environment, capsys, verdict):
    monkeypatch.setattr(trial, "verdict_for", lambda _: verdict)
    code = check.main(["--model-path", str(small_model("llama")), "--seconds", "0.1"])
    said = capsys.readouterr()
    if verdict.outcome == "alone":
        assert code == 0
        assert "orders take turns" in said.out
    else:
        assert code == 2
        assert said.err.count("\n") == 1
        assert "wrong" in said.err
        assert "1.20 standard deviations" in said.err


@pytest.mark.parametrize("outcome", ["alone", "wrong"])
def test_the_search_for_settings_tries_it_once(
    small_model, monkeypatch, clean_environment, outcome
):
    asked = []
    loaded = []

    class Seen(LlamaModel):
        def __init__(self, options: LlamaOptions) -> None:
            loaded.append((options.one_a_batch, options.check_tensors))
            super().__init__(options)

    def verdict_for(options: LlamaOptions) -> Verdict:
        asked.append(options)
        return Verdict(outcome, 1.2 if outcome == "wrong" else 0.0)

    monkeypatch.setattr(trial, "verdict_for", verdict_for)
    monkeypatch.setattr("workers.llama.model.LlamaModel", Seen)
    changes = {"model_path": str(small_model("llama")), "slots": 2, "cells": 4096, "threads": 1}
    bench = Bench(load_settings().model_copy(update=changes), 0.05, lambda: False)
    first = bench.measure({})
    if outcome == "wrong":
        assert "wrong" in first.error
        assert loaded == []
    else:
        assert bench.measure({"kv_layout": "unified"}).tokens_per_s > 0 < first.tokens_per_s
        assert loaded == [(True, True), (True, False)]
        assert len(asked) == 1
