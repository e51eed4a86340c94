"""Files that are no sound model end in one sentence and a living process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from tests.live.live_support import run, work
from workers.engine.engine import Engine
from workers.errors import ModelError

pytestmark = pytest.mark.live


def load(path: Path) -> None:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    LlamaModel(LlamaOptions(path=path)).close()


def damage(source: Path, target: Path, at: int, data: bytes) -> Path:
    content = bytearray(source.read_bytes())
    content[at : at + len(data)] = data
    target.write_bytes(content)
    return target


def test_missing_folder_and_other_files(tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(b"not a model")
    for path, words in (
        (tmp_path / "missing.gguf", "No such file"),
        (tmp_path, "folder"),
        (other, "not a GGUF file"),
    ):
        with pytest.raises(ModelError, match=words):
            load(path)


@pytest.mark.parametrize("size", [4, 24, 1000, 2_000_000, -4096])
def test_cut_short(model_path: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.gguf"
    path.write_bytes(model_path.read_bytes()[:size])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(path)


@pytest.mark.parametrize(
    ("at", "data"),
    [(4, b"\xff" * 4), (8, b"\xff" * 16), (24, b"\xff" * 64)],
    ids=["version", "counts", "first key"],
)
def test_corrupt_header(model_path: Path, tmp_path: Path, at: int, data: bytes) -> None:
    with pytest.raises(ModelError):
        load(damage(model_path, tmp_path / "bad.gguf", at, data))


def test_weights_that_are_no_numbers(model_path: Path, tmp_path: Path) -> None:
    size = model_path.stat().st_size
    with pytest.raises(ModelError):
        load(damage(model_path, tmp_path / "bad.gguf", size // 2, b"\xff" * 65536))


@pytest.mark.parametrize("weights", ["q8_0", "q4_0"])
def test_weights_converted_at_load(model_path: Path, weights: Literal["q8_0", "q4_0"]) -> None:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    engine = Engine(LlamaModel(LlamaOptions(path=model_path, slots=2, requantize=weights)))
    assert engine.facts.weights == weights, "nobody may take it for the same model"
    (heard,) = run(engine, work("The alphabet: a b c d e f g h i j k", 8))
    assert heard.end.text == " l m n o p q r s"
    assert engine.stop()


def test_the_check_says_it_in_one_line(tmp_path: Path) -> None:
    answer = subprocess.run(
        [
            sys.executable,
            "-m",
            "workers.tuning.check",
            "--model-path",
            str(tmp_path / "missing.gguf"),
        ],
        capture_output=True,
        check=False,
        text=True,
    )
    assert answer.returncode == 2
    assert answer.stderr.count("\n") == 1
    assert "No such file" in answer.stderr
