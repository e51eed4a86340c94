"""A seed's world: its herd, its clients, and what happens to them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any

from sqlalchemy import Connection

from herder.accounts.accounts import open_ledger
from herder.settings import load_settings
from herder.store import herd as herd_sql
from tests.simulation import webhooks
from tests.simulation.client import Clients
from tests.simulation.clockwork import Broken, Clockwork, Environment, Log, Thread
from tests.simulation.database import NOWHERE, SimDatabase, set_policy
from tests.simulation.herder import Parts, Room, SimHerder, no_waits
from tests.simulation.keys import FORGERS_KEY, WORKER_KEYS
from tests.simulation.network import Broker, Redis
from tests.simulation.rules import Rules
from tests.simulation.shadow import ENDED, Shadow
from tests.simulation.strangers import Strangers
from tests.simulation.truth import Truth
from tests.simulation.weather import CALM, Weather, draw_layout, draw_weather
from tests.simulation.worker import SimWorker, Site
from tests.support.house import check_money
from workers.wire import PrivateKey

MACHINES = ("h1", "h2", "h3", "w1", "w2", "redis", "ada", "bob")
HAPPENS_US = 250_000
"""How often it is drawn whether something happens."""
MAX_CALM_US = 1_200_000_000
"""Simulated time after which an order that has not ended never will."""


class World:
    """Everything of one seed."""

    def __init__(self, seed: int, orders: int, parts: Parts) -> None:
        rng = Random(seed)
        self.layout = layout = draw_layout(rng)
        self.weather = draw_weather(rng)
        """How much goes wrong, until the calm."""
        self.time = time = Clockwork(rng, CALM, layout.lease_s * 1_000_000)
        self.truth = truth = Truth()
        self.database = SimDatabase(time)
        self.shadow = Shadow(self.database.raw)
        self.rules = Rules(time, self.shadow, truth, layout)
        self.broker = Broker(time, self.rules, truth)
        self.redis = Redis(time, self.rules, truth)
        settings = load_settings(
            NOWHERE,
            claim_s=layout.claim_s,
            lease_s=layout.lease_s,
            max_attempts=layout.max_attempts,
            max_dispatches=layout.max_dispatches,
            lookahead=layout.lookahead,
        )
        self._room = Room(time, self.database, self.broker, self.redis, settings, parts)
        self._site = Site(time, self.broker, self.redis, truth, layout.token_us)
        self.clients = Clients(self._room, layout, truth, self.shadow, orders)
        self._strangers = Strangers(time, self.broker, self.redis, self.shadow, self._members)
        self._sky = Thread(Environment(time, "sky"))
        self.herders: list[SimHerder] = []
        self.workers: list[SimWorker] = []
        self._keys = list(range(len(layout.slots)))
        """Which key each worker joins with."""
        self._herders_born = 0
        self.clocks_stay_wrong = False

    def have_clocks_wrong(self, skews_us: Mapping[str, int]) -> None:
        """Have machines' clocks wrong from the beginning to the end; workers ask for the time.

        Args:
            skews_us: by how much they are ahead, of each machine that is named.
        """
        self.clocks_stay_wrong = True
        self._site = replace(self._site, asks_time=True)
        for machine, skew_us in skews_us.items():
            self.time.set_clock(machine, skew_us)

    # The story

    def run(self) -> None:
        """Tell it from its beginning to its end.

        Raises:
            Broken: at the first rule that is.
        """
        self._begin()
        time = self.time
        while not self.clients.all_came:
            time.run(time.now_us + 1_000_000)
        time.run(time.now_us + 5_000_000)
        self._calm()
        until_us = time.now_us + MAX_CALM_US
        while time.now_us < until_us and not self._over():
            time.run(time.now_us + 1_000_000)
        self._judge_all()

    def _begin(self) -> None:
        set_policy(self.database, self.layout)
        with self.database.write() as connection:
            for key in (*(WORKER_KEYS[number] for number in self._keys), FORGERS_KEY):
                self._believe(connection, key)
        self.clients.open_accounts()
        with self.database.write() as connection:
            webhooks.listen(connection)
        self.database.rules = self.rules
        self.rules.begin()
        for number in range(self.layout.herders):
            self._new_herder(f"h{number + 1}")
        for place in range(len(self.layout.slots)):
            self._new_worker(place)
        self.time.weather = self.weather
        self.time.after(HAPPENS_US, self._sky, self._happen)
        self.clients.start()

    def _new_herder(self, name: str) -> None:
        self._herders_born += 1
        one = SimHerder(self._room, name, self._herders_born, lambda: self._herder_died(name, one))
        self.herders.append(one)
        one.start()

    def _herder_died(self, name: str, one: SimHerder) -> None:
        self.herders.remove(one)
        rest_us = self.layout.lease_s * 1_500_000 if self.time.rng.random() < 0.2 else 2_000_000
        delay_us = self.time.rng.randint(100_000, rest_us)
        self.time.after(delay_us, self._sky, lambda: self._new_herder(name))

    def _new_worker(self, place: int) -> None:
        one = SimWorker(
            self._site,
            f"w{place + 1}",
            WORKER_KEYS[self._keys[place]],
            self.layout.slots[place],
            lambda: self._worker_died(place, one),
        )
        self.workers.append(one)
        one.start()

    def _worker_died(self, place: int, one: SimWorker) -> None:
        self.workers.remove(one)
        delay_us = self.time.rng.randint(100_000, 5_000_000)
        self.time.after(delay_us, self._sky, lambda: self._new_worker(place))

    def _members(self) -> list[tuple[str, PrivateKey]]:
        return [(worker.instance, worker.key) for worker in self.workers]

    # The weather

    def _happen(self) -> None:
        self.time.after(HAPPENS_US, self._sky, self._happen)
        weather, time = self.time.weather, self.time
        if weather is CALM:
            return
        share = HAPPENS_US / 1_000_000
        for worker in list(self.workers):
            if time.chance(weather.worker_dies * share):
                time.note("dies", worker.name)
                time.count("a worker dies")
                worker.die()
            elif time.chance(weather.worker_stops * share):
                self._stop(worker)
                time.count("a worker is stopped")
            elif time.chance(weather.worker_cut_off * share):
                self._cut_off([worker])
                time.count("a worker is cut off")
            elif time.chance(weather.worker_drains * share):
                time.count("a worker drains")
                worker.drain()
            elif time.chance(weather.worker_revoked * share):
                self._revoke(worker)
        if time.chance(weather.all_cut_off * share):
            self._cut_off(self.workers)
            time.count("all workers are cut off")
        for herder in list(self.herders):
            if time.chance(weather.herder_dies * share):
                time.note("dies", herder.name)
                time.count("a herder dies")
                herder.die()
            elif time.chance(weather.herder_stops * share):
                self._stop(herder)
                time.count("a herder is stopped")
            elif time.chance(weather.herder_cut_off * share):
                self._cut_off([herder])
                time.count("a herder is cut off")
        self._happen_outside(weather, share)

    def _happen_outside(self, weather: Weather, share: float) -> None:
        time, rng = self.time, self.time.rng
        for network, chance, name in (
            (self.broker, weather.broker_away, "the broker"),
            (self.redis, weather.redis_away, "Redis"),
        ):
            if time.chance(chance * share):
                away_us = rng.randint(300_000, self.layout.lease_s * 1_600_000)
                network.away_until_us = time.now_us + away_us
                time.count(f"{name} is away")
                time.note(f"is away for {away_us / 1e6:.1f} s", network.thread.name)
        if time.chance(weather.database_away * share):
            self.database.go_away()
        if time.chance(weather.wiped * share):
            time.note("wiped", "broker")
            time.count("the broker is wiped")
            self.broker.wipe()
            if rng.random() < 0.5:
                time.note("wiped", "redis")
                time.count("Redis is wiped")
                self.redis.wipe()
        if time.chance(weather.clock_steps * share):
            self._set_a_clock()
        if time.chance(weather.strangers * share):
            self._strangers.call()

    def _stop(self, process: SimWorker | SimHerder) -> None:
        lease_us = self.layout.lease_s * 1_000_000
        for_us = self.time.rng.randint(lease_us // 2, 3 * lease_us)
        process.stopped_until_us = self.time.now_us + for_us
        self.time.note(f"is stopped for {for_us / 1e6:.1f} s", process.name)
        self.time.after(for_us, self._sky, self._read_on)

    def _cut_off(self, processes: Sequence[SimWorker | SimHerder]) -> None:
        """Take their network from them; what they were about to say, they say later."""
        lease_us = self.layout.lease_s * 1_000_000
        for_us = self.time.rng.randint(lease_us // 2, 3 * lease_us)
        for process in processes:
            process.cut_off_until_us = self.time.now_us + for_us
            self.time.note(f"is cut off for {for_us / 1e6:.1f} s", process.name)
        self.time.after(for_us, self._sky, self._read_on)

    def _read_on(self) -> None:
        """Whoever is back reads what has waited meanwhile."""
        for name in self.broker.takers:
            self.broker.pump(name)

    def _set_a_clock(self) -> None:
        rng, time = self.time.rng, self.time
        machine = rng.choice(MACHINES)
        most_s = 3600 if rng.random() < 0.1 else 20
        skew_us = rng.randint(-most_s * 1_000_000, most_s * 1_000_000)
        forwards = skew_us > time.skews.get(machine, 0)
        time.count(f"a clock is set {'forwards' if forwards else 'backwards'}")
        time.set_clock(machine, skew_us)
        time.note(f"the clock of {machine} is set to {skew_us / 1e6:+.1f} s")

    def _revoke(self, worker: SimWorker) -> None:
        """Its key is believed no more; what comes after it joins with another."""
        spare = max(self._keys) + 1
        if WORKER_KEYS[spare] is FORGERS_KEY:
            return
        place = int(worker.machine[1:]) - 1
        self._keys[place] = spare
        self.time.note("its key is revoked", worker.name)
        self.time.count("a worker's key is revoked")
        with self.database.write() as connection:
            herd_sql.revoke_key(connection, worker.key.kid, self.time.now_us)
            self._believe(connection, WORKER_KEYS[spare])
        self.truth.revoked.add(worker.instance)

    def _believe(self, connection: Connection, key: PrivateKey) -> None:
        """Let workers with this key in."""
        herd_sql.add_key(connection, herd_sql.WORKER, key.kid, key.public, self.time.now_us)

    def _calm(self) -> None:
        """From here on nothing goes wrong any more, and all must come to its end."""
        time = self.time
        time.note("calm")
        time.weather = CALM
        if not self.clocks_stay_wrong:
            time.set_clocks_right()
        self.broker.away_until_us = self.redis.away_until_us = 0
        self.database.away_until_us = 0
        for process in (*self.herders, *self.workers):
            process.cut_off_until_us = 0

    def _over(self) -> bool:
        still_open = self.shadow.queued or self.shadow.out or not self.clients.done
        return not still_open and all(worker.idle for worker in self.workers)

    # The end

    def _judge_all(self) -> None:
        """What must hold once everything came to its end."""
        for row in (*self.shadow.queued.values(), *self.shadow.out.values()):
            raise Broken("lost", f"order {row.seq} is {row.state} and never ends")
        for worker in self.workers:
            if not worker.idle:
                raise Broken("lost", f"{worker.name} still waits for {len(worker.box)} words")
        rows = self.shadow.all_rows()
        if [self.shadow.by_seq[row.seq] for row in rows] != rows:
            raise Broken("ends_once", "an order changed and nobody saw it")
        for order_id in sorted(self.truth.accepted):
            if self.shadow.by_id[order_id].state not in ENDED:
                raise Broken("lost", f"{order_id[:8]} was accepted and did not end")
        self.clients.judge_all()
        ends = ", ".join(f"'{state}'" for state in sorted(ENDED))
        twice = self.shadow.rows(
            f"SELECT order_id FROM event WHERE kind IN ({ends}) GROUP BY 1 HAVING count(*) <> 1"
        )
        if twice:
            raise Broken("ends_once", f"{twice[0][0][:8]} ended twice")
        live = self.shadow.one(
            "SELECT count(*) FROM outbox JOIN orders ON id = order_id AND state = 'dispatched'"
        )
        if live:
            raise Broken("outbox", f"{live} messages were never forgotten")
        webhooks.judge_all(self.shadow)
        self.database.rules = None
        try:
            check_money(self.database, open_ledger(lambda: self.time.now_us))
        except AssertionError as error:
            raise Broken("money", f"the audit says: {error}"[:300]) from error


@contextmanager
def quiet(time: Clockwork) -> Iterator[None]:
    """What the herder logs becomes history; errors that nobody caused break a rule."""
    log = Log(time)
    modules: list[Any] = [
        module
        for name, module in sorted(sys.modules.items())
        if name.startswith(("herder.", "workers.")) and hasattr(module, "_log")
    ]
    before = [(module, module._log) for module in modules]
    for module in modules:
        module._log = log
    try:
        with no_waits(time):
            yield
    finally:
        for module, logger in before:
            module._log = logger
