"""`herd demo agents`: what it takes as trouble, on stories that are made up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from herder.demo.agents_screen import Machine
from herder.demo.agents_story import PRICE, Gathering, counts_in, troubles
from herder.examples.room.rules import Said
from herder.types import NamedBalance
from ledger import AuditReport


def balance(account, posted):
    return NamedBalance(account, posted, 0, posted)


AUDIT = AuditReport(
    accounts=5, transfers=9, open_holds=0, held=0, circulating=9, outside=-9, drifts=()
)


RICH = [balance("bots", 930), balance("agent", 600), balance("exchange", 100)]


@pytest.fixture
def story():
    """Two answers for 70 in all, three grades for 300, one buy."""
    return Gathering(
        said=[Said(1, "ada", "m-1", "Hi!", 0), Said(2, "Lenny", "m-2", "Ahoy!", 0)],
        counts={"requests": 3, "buys": 1, "skips": 1, "errors": 1, "refused": 0},
        charged={"bots": 70, "agent": 300},
        before=[balance("bots", 1000), balance("agent", 1000), balance("exchange", 0)],
        after=[balance("bots", 930), balance("agent", 700 - PRICE), balance("exchange", PRICE)],
        audit=AUDIT,
    )


def test_a_good_story_has_no_trouble(story):
    assert troubles(story) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"said": []}, "No chatbot"),
        ({"counts": {}}, "asked nothing"),
        ({"counts": {"requests": 3, "buys": 2}}, "2 buys were counted"),
        ({"counts": {"requests": 3}, "after": RICH}, "0 buys were counted"),
        ({"charged": {"bots": 71, "agent": 300}}, "chatbots' account"),
        ({"charged": {"bots": 70, "agent": 299}}, "agent's account"),
        ({"audit": None}, "audit"),
        ({"audit": replace(AUDIT, open_holds=1)}, "audit"),
    ],
)
def test_what_does_not_fit_is_told(story, change, word):
    for name, value in change.items():
        setattr(story, name, value)
    assert any(word in line for line in troubles(story)), troubles(story)


def test_the_agents_line_is_read_from_its_end():
    line = "graded: [x=7] [requests=12 buys=3 skips=4 errors=5 refused=0]"
    counts = {"requests": 12, "buys": 3, "skips": 4, "errors": 5, "refused": 0}
    assert counts_in(line) == counts


def test_the_document_is_json(story, capsys):
    story.trouble = ["It rained."]
    Machine().finished(story)
    document = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["trouble"]) == (False, ["It rained."])
    assert document["said"][1]["text"] == "Ahoy!"
    assert document["audit"]["transfers"] == 9
