"""The settings of the engine: what is allowed, and what each is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.errors import SettingsError
from workers.settings import load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HERD_REQUANTIZE", "q5_0"),
        ("HERD_KV_LAYOUT", "shared"),
        ("HERD_CELLS", "255"),
        ("HERD_CELLS", "many"),
        ("HERD_STEP_TOKENS", "0"),
        ("HERD_BATCH_TOKENS", "16"),
        ("HERD_PREFIXES", "256"),
        ("HERD_PREFIXES", "-1"),
    ],
)
def test_a_wrong_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("HERD_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_what_tune_prints_can_be_put_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.tuning.search import environment

    changes = {"slots": 32, "kv_layout": "separate", "flash_attention": "off", "step_tokens": 128}
    lines = [f"{name}={value}" for name, value in environment(changes).items()]
    (tmp_path / "herd.env").write_text("\n".join([*lines, "HERD_REQUANTIZE="]) + "\n")
    monkeypatch.setenv("HERD_HOME", str(tmp_path))
    settings = load_settings()
    assert {name: getattr(settings, name) for name in changes} == changes
    assert settings.requantize == ""
