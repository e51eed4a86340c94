"""A herder whose HERD_MODEL is no longer the herd's model says so."""

from __future__ import annotations

import logging

import pytest

from herder.herd.named_model import NamedModel
from herder.market.policy import set_herd_model
from tests.support.house import MODEL

LOG = "herder.herd.named_model"


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.INFO, LOG)

    def texts():
        return [record.getMessage() for record in caplog.records if record.name == LOG]

    return texts


def test_a_herder_whose_model_is_served_warns_of_nothing(house, warned):
    watch = NamedModel(house.database, MODEL)
    for _ in range(3):
        assert watch.step(1) is False
    assert warned() == []


def test_each_other_model_is_told_once_and_again_when_it_comes_back(house, warned):
    watch = NamedModel(house.database, MODEL)
    for model in ("llama-9b", "llama-9b", "llama-10b", MODEL, "llama-10b"):
        set_herd_model(house.database, model)
        watch.step(1)
        watch.step(1)
    found = warned()
    assert [line.split()[:3] for line in found] == [
        ["herd_model_differs", f"serves={model}", f"named={MODEL}"]
        for model in ("llama-9b", "llama-10b", "llama-10b")
    ]
    assert all("HERD_MODEL" in line for line in found)


def test_what_was_changed_before_the_first_look_is_told(house, warned):
    watch = NamedModel(house.database, MODEL)
    set_herd_model(house.database, "llama-9b")
    watch.step(1)
    assert len(warned()) == 1
