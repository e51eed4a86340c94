"""Chooses the workers that the next orders are sent to. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from herder.store.herd import Worker

_SCALE = 1_000_000


def room(worker: Worker, lookahead: int) -> int:
    """Return the number of orders that may be sent to a worker now.

    Args:
        worker: as it stands.
        lookahead: orders that may wait for a slot there, where it has claimed orders before.
    """
    if worker.usable_slots == 0:
        return 0
    ahead = lookahead if worker.proven else 0
    return max(0, worker.usable_slots + ahead - worker.strays - worker.out)


def place(workers: Sequence[Worker], count: int, lookahead: int) -> list[str]:
    """Return the instances that the next orders are sent to, one for each order, best order first.

    The worker of which the smallest share of slots is taken comes first; among equals the fastest,
    and then the one that was given first. One that left its last attempt unclaimed comes after all
    others.

    Args:
        workers: those of the model.
        count: orders; fewer are placed where there is not enough room.
        lookahead: as in `room`.
    """
    heap = []
    for number, worker in enumerate(workers):
        free = room(worker, lookahead)
        if free > 0:
            taken = worker.strays + worker.out
            heap.append((*_weight(worker, taken), number, taken, free, worker))
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < count:
        *_, number, taken, free, worker = heap[0]
        chosen.append(worker.instance)
        if free == 1:
            heapq.heappop(heap)
        else:
            after = (*_weight(worker, taken + 1), number, taken + 1, free - 1, worker)
            heapq.heapreplace(heap, after)
    return chosen


def _weight(worker: Worker, taken: int) -> tuple[bool, int, int]:
    """Return the key by which workers are chosen: the least first."""
    return worker.unclaimed > 0, taken * _SCALE // worker.slots, -worker.tokens_per_s
