"""The duties of a herder besides its orders: grants, ranking, surveys, purges, and its model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from herder.accounts.grants import MAX_POSTED, Grants
from herder.db.database import Database
from herder.duties.runner import Duty
from herder.herd.named_model import NamedModel
from herder.market.queue_estimate import QueueSampler
from herder.market.ranking import PAUSE_S, Ranker
from herder.orders.retention import OldTexts
from herder.webhooks.deliverer import Deliverer

SURVEY_EVERY_S = 10.0
MODEL_EVERY_S = 5.0
PURGE_EVERY_S = 600.0
PURGE_PAUSE_S = 0.1
"""Seconds between two batches of a purge, in which others write."""


def make_upkeep(
    database: Database,
    grants: Grants,
    deliverer: Deliverer,
    *,
    keep_text_days: int,
    clock_us: Callable[[], int],
    model: str = "",
) -> list[Duty]:
    """Return the duties, ready to be run.

    Args:
        database: the herd's.
        grants: posts those that are due.
        deliverer: of webhooks: forgets old deliveries.
        keep_text_days: days after which the texts of ended orders are forgotten; 0: never.
        clock_us: the time, in microseconds since the epoch.
        model: the one that this herder named as the herd's; empty if it named none.
    """
    surveyor = QueueSampler(database, clock_us=clock_us)
    duties = [
        Duty("rank", Ranker(database).step, pause_s=PAUSE_S),
        Duty("grants", lambda limit: grants.post_due(limit) > 0, batch=MAX_POSTED),
        Duty("survey", lambda _limit: surveyor.step(), SURVEY_EVERY_S, pause_s=1.0, alone=True),
    ]
    purging = partial(Duty, period_s=PURGE_EVERY_S, pause_s=PURGE_PAUSE_S, alone=True)
    duties.append(purging("forget_deliveries", deliverer.forget))
    if keep_text_days:
        old = OldTexts(database, keep_text_days, clock_us=clock_us)
        duties.append(purging("forget_texts", old.step))
    if model:
        duties.append(Duty("model", NamedModel(database, model).step, MODEL_EVERY_S))
    return duties
