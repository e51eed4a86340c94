"""The programs of `herd up`, and the model that its herd serves."""

from __future__ import annotations

import pytest

from herder.db.database import Database
from herder.errors import SetupError
from herder.host.programs import make_plan
from herder.market.policy import read_policy


def served(plan):
    """The model of its workers, and of its database."""
    (worker,) = [one for stage in plan.stages for one in stage if one.name == "worker-1"]
    database = Database(plan.settings.database)
    try:
        return worker.env["HERD_MODEL"], read_policy(database)["default_model"]
    finally:
        database.close()


@pytest.fixture
def folder(tmp_path, clean_environment, monkeypatch):
    monkeypatch.setenv("HERD_ENGINE", "stub")
    return tmp_path / "home"


def test_a_herd_that_nobody_named_a_model_for_serves_the_one_that_comes_with_it(folder):
    assert served(make_plan(1, folder)) == ("smollm2-135m-instruct",) * 2


def test_a_herd_serves_the_model_that_was_named_until_another_is(folder, monkeypatch):
    for name in ("first", "second"):
        monkeypatch.setenv("HERD_MODEL", name)
        plan = make_plan(1, folder)
        assert served(plan) == (name, name)
        assert plan.join["HERD_MODEL"] == name
    monkeypatch.delenv("HERD_MODEL")
    assert served(make_plan(1, folder)) == ("second", "second")


def test_a_model_that_does_not_come_with_it_needs_a_file(folder, monkeypatch):
    monkeypatch.setenv("HERD_MODEL", "other")
    make_plan(1, folder)
    monkeypatch.setenv("HERD_ENGINE", "own.engine:load")
    plan = make_plan(1, folder)
    assert plan.join["HERD_ENGINE"] == "own.engine:load", "which knows itself what it loads"
    monkeypatch.delenv("HERD_MODEL")
    monkeypatch.setenv("HERD_ENGINE", "llama")
    with pytest.raises(SetupError, match="Set HERD_MODEL_PATH to the GGUF file of other"):
        make_plan(1, folder)


def test_a_name_that_is_none_is_refused_before_the_herd_is_told(folder, monkeypatch):
    monkeypatch.setenv("HERD_MODEL", "no name")
    with pytest.raises(SetupError, match="HERD_MODEL"):
        make_plan(1, folder)
