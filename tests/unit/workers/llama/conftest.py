"""Small models with random weights, written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_models import Value, write_model


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the file of a small model: `small_model("gemma3", block_count=2)`."""
    folder = tmp_path_factory.mktemp("small-models")
    made: dict[object, Path] = {}

    def get(name: str, **changes: Value) -> Path:
        what = name, *((key, str(value)) for key, value in sorted(changes.items()))
        if what not in made:
            made[what] = write_model(folder / f"{name}-{len(made)}.gguf", name, **changes)
        return made[what]

    return get


@pytest.fixture(autouse=True)
def own_home(clean_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder of its own, in which verdicts are remembered."""
    monkeypatch.setenv("HERD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
