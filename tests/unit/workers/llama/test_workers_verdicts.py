"""What a trial found is remembered, for as long as all that it depends on stays the same."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.wait import wait_for
from workers.errors import DecodeFailed, ModelError
from workers.llama import trial, verdicts
from workers.llama.options import LlamaOptions, llama_options
from workers.llama.verdicts import MAX_VERDICTS, Verdict, Verdicts, file_facts, key_of
from workers.settings import load_settings
from workers.tuning import check

GOOD = Verdict("together", 0.0123)


@pytest.fixture
def memory(own_home):
    return Verdicts(load_settings().verdicts_path)


@pytest.fixture
def options(small_model, tmp_path):
    """Of a model's file that a test may change."""
    path = shutil.copy(small_model("llama"), tmp_path / "model.gguf")
    return LlamaOptions(path=Path(path), slots=4, cells=1024, threads=1)


@pytest.fixture
def events(caplog):
    caplog.set_level(logging.INFO, "workers.llama.trial")
    return lambda: [record.getMessage() for record in caplog.records]


class Children:
    """What the next child finds, and how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self.says = "together 0.0123"
        self.code = 0
        self.meanwhile: Any = lambda: None

    def run(self, *_: Any, **__: Any) -> Any:
        self.count += 1
        self.meanwhile()
        return SimpleNamespace(returncode=self.code, stdout=f"{self.says}\n", stderr="it broke\n")


@pytest.fixture
def children(monkeypatch):
    found = Children()
    monkeypatch.setattr(trial.subprocess, "run", found.run)
    return found


def test_a_second_start_tries_nothing(options, memory, events, monkeypatch):
    first = trial.tried_in_child(options, memory)
    monkeypatch.setattr(trial.subprocess, "run", None)
    assert trial.tried_in_child(options, memory) == first == options
    one, other = events()
    assert one.startswith("model_tried outcome=together difference=0.0")
    assert one.endswith(" remembered=False")
    assert other == one.replace("False", "True")


@pytest.mark.parametrize("says", ["alone 0.0000", "together 0.3100", "wrong 1.2000", "wrong inf"])
def test_each_verdict_is_heeded_again(options, memory, children, says):
    children.says = says
    if says.startswith("wrong"):
        with pytest.raises(ModelError) as first:
            trial.tried_in_child(options, memory)
        with pytest.raises(ModelError) as again:
            trial.tried_in_child(options, memory)
        told = first.value.message
        assert again.value.message.startswith(told)
        assert again.value.message[len(told) :] == (
            " An earlier trial found it; `herd worker check` tries it anew."
        )
    else:
        first = trial.tried_in_child(options, memory)
        assert trial.tried_in_child(options, memory) == first != options
    assert children.count == 1


def written_to(options, **_):
    data = bytearray(options.path.read_bytes())
    data[-1] ^= 1
    before = options.path.stat()
    with options.path.open("r+b") as file:
        file.write(data)

    def dated_back() -> bool:
        os.utime(options.path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        return options.path.stat().st_ctime_ns != before.st_ctime_ns

    # file systems note the time of a change in ticks of some milliseconds
    wait_for(dated_back, "the clock of the file system has moved on")
    return options


def another(options, **_):
    other = options.path.with_name("other.gguf")
    shutil.copy2(options.path, other)
    other.replace(options.path)
    return options


def variable(options, monkeypatch):
    monkeypatch.setenv("GGML_SOMETHING", "1")
    return options


def library(options, monkeypatch):
    from workers.llama.model import lib

    monkeypatch.setattr(lib, "__version__", "99.0")
    return options


def build(options, monkeypatch):
    from workers.llama.model import lib

    said = lib.llama_print_system_info()
    monkeypatch.setattr(lib, "llama_print_system_info", lambda: b"ROCm : " + said)
    return options


def gpu(options, monkeypatch):
    monkeypatch.setattr("workers.llama.model.gpu_name", lambda: "Another GPU")
    return options


def cpus(options, monkeypatch):
    monkeypatch.setattr(verdicts, "cores", lambda: 999)
    return options


def later_trial(options, monkeypatch):
    monkeypatch.setattr(verdicts, "TRIAL", verdicts.TRIAL + 1)
    return options


def setting(**changes):
    return lambda options, **_: replace(options, **changes)


@pytest.mark.parametrize(
    "change",
    [
        *(written_to, another, variable, library, build, gpu, cpus, later_trial),
        setting(kv_type="q8_0"),
        setting(flash_attention="off"),
        setting(gpu_layers=0),
        setting(threads=2),
        setting(share=False),
    ],
)
@pytest.mark.parametrize("says", ["together 0.0123", "wrong 1.2000"])
def test_what_may_change_it_has_it_tried_again(
    options, memory, children, monkeypatch, change, says
):
    children.says = says
    if says.startswith("wrong"):
        with pytest.raises(ModelError):
            trial.tried_in_child(options, memory)
    else:
        trial.tried_in_child(options, memory)
    children.says = "together 0.0123"
    changed = change(options, monkeypatch=monkeypatch)
    assert trial.tried_in_child(changed, memory) == changed
    assert trial.tried_in_child(changed, memory) == changed
    assert children.count == 2


@pytest.mark.parametrize(
    "changes",
    [
        *({"slots": 9}, {"cells": 9999}, {"context": 300}, {"unified": True}, {"prefixes": 1}),
        *({"batch_tokens": 100}, {"step_tokens": 100}, {"requantize": "q8_0"}),
        *({"chat_template": Path("/chat.jinja")}, {"system": "refuse"}),
    ],
)
def test_what_a_trial_has_of_its_own_changes_nothing(options, memory, children, changes):
    trial.tried_in_child(options, memory)
    other = replace(options, **changes)
    assert trial.tried_in_child(other, memory) == other
    assert children.count == 1


def test_a_file_is_known_under_another_name(options, memory, children):
    trial.tried_in_child(options, memory)
    link = options.path.with_name("link.gguf")
    link.symlink_to(options.path)
    trial.tried_in_child(replace(options, path=link), memory)
    assert children.count == 1


def test_all_parts_of_a_split_count(options, tmp_path):
    paths = [tmp_path / f"a-0000{number}-of-00002.gguf" for number in (1, 2)]
    for path in paths:
        shutil.copy(options.path, path)
    split = replace(options, path=paths[0])
    before = key_of(split, [])
    assert before == key_of(split, []) is not None
    written_to(replace(options, path=paths[1]))
    assert key_of(split, []) not in (None, before)
    paths[1].unlink()
    assert key_of(split, []) is None


def test_what_is_no_file_has_no_key(tmp_path):
    assert file_facts(tmp_path) is None
    assert file_facts(tmp_path / "missing.gguf") is None
    os.mkfifo(tmp_path / "pipe.gguf")
    assert file_facts(tmp_path / "pipe.gguf") is None


def test_a_file_that_changes_meanwhile_is_not_known(options, memory, children):
    children.meanwhile = lambda: written_to(options)
    trial.tried_in_child(options, memory)
    children.meanwhile = lambda: None
    trial.tried_in_child(options, memory)
    assert children.count == 2


@pytest.mark.parametrize("code", [1, 2, 3, -9, -6, -11])
def test_any_end_without_a_verdict_is_not_remembered(options, memory, children, code):
    children.code = code
    for _ in range(2):
        if code in (-6, -11):
            with pytest.raises(ModelError, match="crashes"):
                trial.tried_in_child(options, memory)
        else:
            assert trial.tried_in_child(options, memory) == options
    assert children.count == 2


def test_the_check_tries_it_anew_and_what_it_finds_is_remembered(
    options, memory, children, monkeypatch, capsys
):
    monkeypatch.setenv("HERD_THREADS", "1")
    settings = load_settings().model_copy(update={"model_path": str(options.path)})
    loaded = llama_options(settings)
    children.says = "wrong 1.2000"
    for _ in range(2):
        with pytest.raises(ModelError):
            trial.tried_in_child(loaded, memory)
    assert children.count == 1
    asked = ["--model-path", str(options.path), "--slots", "2", "--seconds", "0.1"]
    assert check.main(asked) == 0
    assert "orders take turns" not in capsys.readouterr().out
    assert trial.tried_in_child(loaded, memory) == loaded

    monkeypatch.setattr(trial, "verdict_for", lambda _: Verdict("wrong", 1.2))
    assert check.main(asked) == 2
    with pytest.raises(ModelError, match="An earlier trial found it"):
        trial.tried_in_child(loaded, memory)
    assert children.count == 1

    def fail(_: LlamaOptions) -> Verdict:
        raise DecodeFailed("llama_decode returned -2.")

    monkeypatch.setattr(trial, "verdict_for", fail)
    check.main(asked)
    children.says = "together 0.0123"
    assert trial.tried_in_child(loaded, memory) == loaded
    assert children.count == 2, "what the check could not find is not known any more"


ROW = {"key": "a", "outcome": "together", "difference": 0.0123}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "null", "7", "{}", "[7, null, []]", "[" * 60_000, "\0\xff"),
        json.dumps([ROW])[:-9],
        json.dumps([ROW | {"outcome": "fine"}]),
        json.dumps([ROW | {"outcome": ["together"]}]),
        json.dumps([ROW | {"difference": math.nan}]),
        json.dumps([ROW | {"difference": -0.1}]),
        json.dumps([ROW | {"difference": "0.1"}]),
        json.dumps([ROW | {"difference": True}]),
        json.dumps([ROW | {"key": 7}]),
        json.dumps([ROW] * 2000),
    ],
)
def test_a_damaged_file_holds_nothing_and_is_replaced(memory, content):
    path = load_settings().verdicts_path
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    assert memory.known("a") is None
    memory.keep("b", GOOD)
    assert (memory.known("b"), memory.known("a")) == (GOOD, None)


def test_of_a_file_that_is_damaged_in_part_the_rest_holds(memory):
    path = load_settings().verdicts_path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps([{"key": "b"}, ROW, ROW | {"key": "c", "outcome": 7}]))
    assert memory.known("a") == GOOD
    memory.forget("a")
    assert memory.known("a") is None
    assert memory.known(None) is None


@pytest.mark.parametrize(
    "verdict", [GOOD, Verdict("alone", 0.0), Verdict("wrong", 1.5), Verdict("wrong", math.inf)]
)
def test_what_is_kept_is_known(memory, verdict):
    memory.keep("a", Verdict("alone", 0.25))
    memory.keep("a", verdict)
    assert memory.known("a") == verdict


def test_so_many_are_kept_and_no_other_file(memory):
    path = load_settings().verdicts_path
    for number in range(MAX_VERDICTS + 10):
        memory.keep(f"{number:064}", GOOD)
    assert [bool(memory.known(f"{number:064}")) for number in (0, 9, 10, MAX_VERDICTS + 9)] == [
        *(False, False, True, True)
    ]
    assert os.listdir(path.parent) == [path.name]
    assert path.stat().st_size < verdicts._MAX_BYTES / 2
    assert path.stat().st_mode & 0o077 == 0


def test_where_nothing_can_be_written_the_model_is_served(options, children, tmp_path, events):
    (tmp_path / "file").write_text("no folder")
    memory = Verdicts(tmp_path / "file" / "trials.json")
    for _ in range(2):
        assert trial.tried_in_child(options, memory) == options
    assert children.count == 2
    assert sum(event.startswith("trial_not_remembered") for event in events()) == 2


def test_a_write_that_fails_leaves_what_was_there(memory, monkeypatch, events):
    path = load_settings().verdicts_path
    memory.keep("a", GOOD)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(verdicts.json, "dump", fail)
    memory.keep("b", GOOD)
    assert (memory.known("a"), memory.known("b")) == (GOOD, None)
    assert os.listdir(path.parent) == [path.name]
    assert events()[-1].endswith("reason='No space left on device'")
