"""What a seed draws before anything happens: the herd, its settings, and how much goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from random import Random

from herder.domain.pricing import Policy, Rates


@dataclass(frozen=True, slots=True)
class Weather:
    """How much goes wrong.

    Attributes:
        crash: chance that a process dies at a commit, or at a publish.
        stall: chance that it stands still there, for a moment or for longer than a lease.
        fail_write: chance that a commit fails.
        cut: chance that broker or Redis goes away in the middle of a call.
        lose: chance that a message is lost.
        repeat: chance that it comes twice.
        delay: chance that it takes seconds, and others overtake it.
        poor_worker: chance that a worker fails an order.
        hangs: chance that an attempt with a short limit never ends, while its worker beats on.
        worker_dies: per second and worker, as the following are per second.
        worker_stops: it stands still for longer than a lease, and comes back.
        worker_drains: it takes no more, hands back, and leaves.
        worker_revoked: its key is believed no more.
        worker_cut_off: nothing that it sends or is sent arrives for up to three leases.
        all_cut_off: the same for all workers at once: what lapses then is not sent out again.
        herder_dies: between two steps.
        herder_stops: all of it stands still for longer than a lease.
        herder_cut_off: as for workers.
        broker_away: nobody can publish for seconds.
        redis_away: nobody can reach Redis for seconds.
        wiped: broker and, half of the time, Redis lose all that they hold.
        clock_steps: the clock of some machine is set, forwards or backwards.
        strangers: somebody sends what is not theirs to send.
        database_away: nobody reaches the database, for 0.3 s to more than a call waits.
        cut_commit: chance that the connection is lost in the middle of a commit, which nobody can
            tell from one that was not made.
        reads_and_cancels: chance that who was given the first words of a text cancels the order,
            often before any herder heard of the claim; drawn by no seed, set by tests of that.
    """

    crash: float = 0.0
    stall: float = 0.0
    fail_write: float = 0.0
    cut: float = 0.0
    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    poor_worker: float = 0.0
    hangs: float = 0.0
    worker_dies: float = 0.0
    worker_stops: float = 0.0
    worker_drains: float = 0.0
    worker_revoked: float = 0.0
    worker_cut_off: float = 0.0
    all_cut_off: float = 0.0
    herder_dies: float = 0.0
    herder_stops: float = 0.0
    herder_cut_off: float = 0.0
    broker_away: float = 0.0
    redis_away: float = 0.0
    wiped: float = 0.0
    clock_steps: float = 0.0
    strangers: float = 0.0
    database_away: float = 0.0
    cut_commit: float = 0.0
    reads_and_cancels: float = 0.0


CALM = Weather()

_MAX = {
    "crash": 0.02,
    "stall": 0.04,
    "fail_write": 0.03,
    "cut": 0.03,
    "lose": 0.06,
    "repeat": 0.15,
    "delay": 0.10,
    "poor_worker": 0.20,
    "hangs": 0.30,
    "worker_dies": 0.04,
    "worker_stops": 0.04,
    "worker_drains": 0.08,
    "worker_revoked": 0.03,
    "worker_cut_off": 0.05,
    "all_cut_off": 0.05,
    "herder_dies": 0.05,
    "herder_stops": 0.03,
    "herder_cut_off": 0.03,
    "broker_away": 0.05,
    "redis_away": 0.05,
    "wiped": 0.04,
    "clock_steps": 0.06,
    "strangers": 0.50,
    "database_away": 0.05,
    "cut_commit": 0.07,
}


def draw_weather(rng: Random) -> Weather:
    """Of each trouble none, or up to the most of it: rare ones hide what common ones cover up."""
    if rng.random() < 0.05:
        return Weather()
    return Weather(
        **{name: 0.0 if rng.random() < 0.4 else most * rng.random() for name, most in _MAX.items()}
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """The herd of a seed; times are short, so that much happens in few simulated seconds."""

    herders: int
    slots: tuple[int, ...]
    """Of each worker."""
    token_us: int
    """What a token takes."""
    arrivals_us: int
    """Mean time between two submissions."""
    claim_s: int
    lease_s: int
    max_attempts: int
    max_dispatches: int
    lookahead: int
    most_open: int
    """Orders that the account `cy` may have open; 0: any number."""
    tokens_per_minute: int
    """What it may order a minute; 0: any number."""
    rates: Rates
    policy: Policy


def draw_layout(rng: Random) -> Layout:
    """The herd of a seed."""
    slots = tuple(rng.randint(1, 4) for _ in range(rng.randint(1, 4)))
    token_us = rng.randint(10_000, 60_000)
    # About as much comes as the herd can do, so that the book is now empty, now long.
    order_us = 16 * token_us + 80_000
    load = rng.uniform(0.7, 1.8)
    return Layout(
        herders=rng.choice((1, 2, 2, 3)),
        slots=slots,
        token_us=token_us,
        arrivals_us=max(30_000, int(order_us / sum(slots) / load)),
        claim_s=rng.randint(2, 4),
        lease_s=rng.randint(4, 7),
        max_attempts=rng.choice((1, 2, 3, 3)),
        max_dispatches=rng.choice((2, 3, 20)),
        lookahead=rng.choice((0, 0, 0, 0, 0, 1, 2)),
        most_open=rng.choice((0, 3, 8)),
        tokens_per_minute=rng.choice((0, 0, 400, 2000)),
        rates=Rates(rng.randint(1, 5), rng.choice((0, 1, 1, 2, 3))),
        policy=Policy(
            fee_bump=Fraction(1005, 1000),
            auto_multiplier_max=Fraction(10),
            auto_half_life_s=rng.choice((0, 5, 600)),
            bytes_per_word=16,
            charge_unused=rng.random() < 0.15,
            aging_s=rng.choice((0, 0, 0, 30)),
        ),
    )
