"""Measures how fast a model decodes on this machine."""

from __future__ import annotations

from collections.abc import Callable

from workers.engine.sequences import BatchRow, Seq
from workers.engine.work import Model
from workers.errors import DecodeFailed


def calibrate(model: Model, clock: Callable[[], float], seconds: float) -> float:
    """Measure the decoding speed of one slot with all slots busy, in tokens a second.

    Args:
        model: what decodes; nothing else uses it meanwhile, and its cache is empty afterwards.
        clock: seconds that only rise.
        seconds: how long to measure at least.

    Raises:
        DecodeFailed: the model does not work on this machine.
    """
    slots = range(model.facts.slots)
    rows = [
        BatchRow(slot, 0, [slot % model.facts.vocab], True, Seq("", [0], 1, 0, 0)) for slot in slots
    ]
    longest = min(model.facts.context, model.facts.cells // model.facts.slots)
    steps = 0
    begin = now = clock()
    while steps < longest and (now - begin < seconds or steps < 3):
        rows = [row._replace(start=steps) for row in rows]
        if not model.decode(rows):
            raise DecodeFailed("The cache has no room for one token in each slot.")
        model.sample([None] * len(rows))
        steps += 1
        if steps == 1:
            begin = clock()  # the first step also warms up
        now = clock()
    for slot in slots:
        model.keep(slot, 0)
    return (steps - 1) / max(now - begin, 1e-9)
