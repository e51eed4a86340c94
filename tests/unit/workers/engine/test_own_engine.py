"""A model of one's own: the example of workers/engine/README.md, word for word."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.own_engine import write_example
from workers.engine.engine import Engine
from workers.engine.own import load_own_model
from workers.engine.work import Completion, GenerationRequest
from workers.errors import SettingsError
from workers.settings import WorkerSettings, load_settings
from workers.wire import ChatMessage, Sampling

pytestmark = pytest.mark.usefixtures("clean_environment")


class Heard:
    """A listener that keeps the end."""

    def __init__(self) -> None:
        self.text = ""
        self.end: Completion | None = None

    def on_start(self, prompt_tokens: int) -> None:
        pass

    def on_text(self, text: str, _generated: int, _reasoning: int) -> None:
        self.text += text

    def on_end(self, end: Completion) -> None:
        assert self.end is None
        self.end = end


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and none of them once the test is over."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def settings_of(monkeypatch, folder: Path, engine: str) -> WorkerSettings:
    for name, value in {
        "HERD_HOME": str(folder),
        "HERD_ENGINE": engine,
        "HERD_SLOTS": "2",
        "HERD_CONTEXT": "32",
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def work(key: str, prompt: str | None, **changes: object) -> GenerationRequest:
    asked = GenerationRequest(key, prompt, None, False, 20, (), Sampling(), 0, 60.0)
    return replace(asked, **changes)  # type: ignore[arg-type]


def test_the_example_runs_many_orders_at_once(monkeypatch, folder):
    write_example(folder)
    engine = Engine(load_own_model(settings_of(monkeypatch, folder, "capitals:load")))
    assert engine.calibrate(0.01) > 0, "a worker measures it at the start"
    talk = (ChatMessage(role="user", content="hot"), ChatMessage(role="user", content="tea"))
    asked = {
        "plain": work("plain", "a llama"),
        "talk": work("talk", None, messages=talk),
        "short": work("short", "a llama", tokens=3),
        "stopped": work("stopped", "one stop two", stop=("STOP",)),
        "grüße": work("grüße", "grüße 水"),
        "long": work("long", "a" * 40),
        "empty": work("empty", ""),
        "schema": work("schema", "a", sampling=Sampling(json_schema="{}")),
    }
    heard = {key: Heard() for key in asked}
    for key, one in asked.items():
        engine.submit(one, heard[key])
    while engine.step():
        pass
    ends = {key: one.end for key, one in heard.items()}
    assert all(ends.values())
    said = {key: (one.text, ends[key].reason, ends[key].generated) for key, one in heard.items()}
    assert said["plain"] == ("A LLAMA", "stop", 7)
    assert said["talk"] == ("HOT\nTEA", "stop", 7)
    assert said["short"] == ("A L", "length", 3)
    assert said["stopped"] == ("ONE ", "stop", 8)
    assert said["grüße"] == ("GRÜSSE 水", "stop", len("GRÜSSE 水".encode()))
    codes = {key: ends[key].error.code for key in ("long", "empty", "schema")}
    assert codes == {"long": "prompt_too_long", "empty": "empty_prompt", "schema": "bad_sampling"}
    assert engine.count_tokens(asked["plain"]) == 7
    assert engine.idle
    assert engine.broken is None
    assert engine.stop()


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("no_such_engine:load", "There is no module no_such_engine, which HERD_ENGINE names."),
        ("own.no_such:load", "There is no module own.no_such, which HERD_ENGINE names."),
        ("own.engines:make", "The module own.engines has no function make"),
        ("own.engines:NUMBER", "The module own.engines has no function NUMBER"),
        ("own.engines:wide", "slots for 4 orders at once, but HERD_SLOTS is 2"),
    ],
)
def test_what_is_wrong_with_it_is_said_in_a_sentence(monkeypatch, folder, engine, sentence):
    (folder / "own").mkdir()
    (folder / "own" / "__init__.py").write_text("")
    (folder / "own" / "engines.py").write_text(
        "from workers.engine.stub import StubModel\n\nNUMBER = 3\n\n\n"
        "def wide(settings):\n    return StubModel(slots=4)\n"
    )
    with pytest.raises(SettingsError) as refused:
        load_own_model(settings_of(monkeypatch, folder, engine))
    assert sentence in refused.value.message


def test_what_the_module_itself_lacks_is_not_taken_for_the_module(monkeypatch, folder):
    (folder / "own_lacking.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_own_model(settings_of(monkeypatch, folder, "own_lacking:load"))


@pytest.mark.parametrize("engine", ["llamas", "", "capitals", "capitals:", ":load", "a b:load"])
def test_what_names_no_engine_is_refused(monkeypatch, folder, engine):
    with pytest.raises(SettingsError) as refused:
        settings_of(monkeypatch, folder, engine)
    assert str(refused.value) == (
        "The setting HERD_ENGINE is invalid: it must be llama, stub, or MODULE:FUNCTION of an "
        "engine of your own."
    )
