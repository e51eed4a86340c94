"""On PostgreSQL many write at once: they take their locks in one order, so that none is undone."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from herder.db.database import Database
from herder.domain.fitting import TokenWish
from herder.errors import InsufficientBalance, OrderNotWaiting, RebidTooLow, RefundRefused
from herder.store import models as model_sql
from tests.support.house import House
from workers.wire import Failure

ACCOUNTS = ("default", "ada", "bob", "eve")
BROKEN = Failure(code="broken", message="It went wrong.", permanent=True)
SEED = random.randrange(2**32)


@pytest.fixture
def house(postgres_server, tmp_path, clean_environment):
    name = postgres_server.new_database(postgres_server.migrated)
    made = House(tmp_path, database_url=postgres_server.url(name))
    for account in ACCOUNTS:
        made.fund(100_000, account)
    yield made
    made.check()
    made.close()
    postgres_server.drop(name)


def test_whatever_happens_at_once_nobody_is_undone_for_others_sake(house):
    print(f"seed {SEED}")
    workers = [house.worker(slots=6) for _ in range(3)]
    waiting: list[str] = []
    done = Counter()
    over = threading.Event()

    def clients(number: int) -> None:
        chance = random.Random(f"{SEED} client {number}")
        for _ in range(50):
            account = chance.choice(ACCOUNTS)
            with suppress(InsufficientBalance):
                if chance.random() < 0.3:
                    order = house.submit(tokens=50, wish=TokenWish(), account=account)
                    done["fitted"] += 1
                else:
                    order = house.submit(fee=chance.randint(13, 60), account=account)
                waiting.append(order.id)
                done["submitted"] += 1
            one = chance.choice(waiting) if waiting else None
            with suppress(OrderNotWaiting, RebidTooLow, InsufficientBalance, RefundRefused):
                if one is not None and chance.random() < 0.4:
                    house.intake.rebid(one, chance.randint(20, 90))
                    done["bid"] += 1
                elif one is not None and chance.random() < 0.3:
                    house.intake.refund(one, 1, "sorry")
                    done["refunded"] += 1
            if one is not None and chance.random() < 0.2:
                house.cancellation.cancel(one)
                done["cancelled"] += 1

    def banker() -> None:
        chance = random.Random(f"{SEED} banker")
        while not over.is_set():
            payer, payee = chance.sample(ACCOUNTS, 2)
            house.accounts.transfer(payer, payee, 1, _uuid(chance))
            house.accounts.deposit(payee, 1, _uuid(chance))
            done["moved"] += 1

    def messenger(number: int) -> None:
        """Pays for prompts and other accounts by messages, whose answers fill inboxes."""
        chance = random.Random(f"{SEED} messenger {number}")
        while not over.is_set():
            sender, payee = chance.sample(ACCOUNTS, 2)
            house.ask(chance.randint(5, 60), account=sender)
            house.send(account=sender, Action="Transfer", Recipient=payee, Quantity="1")
            house.send(account=sender, Action="Balance")
            done["sent"] += 1

    def herder(number: int) -> None:
        """Dispatches, and settles what comes back in batches, with repeats and in any order."""
        chance = random.Random(f"{SEED} herder {number}")
        worker = workers[number]
        publisher = type(house.publisher)()
        dispatcher = house.new_dispatcher(publisher)
        seen = 0
        while not over.is_set() or seen < len(publisher.tokens):
            dispatcher.dispatch("stub")
            jobs = house.jobs(publisher.tokens[seen:])
            seen += len(jobs)
            # Some are charged and some are not: their accounts are the same.
            answers = [
                worker.answer(job, generated=5)
                if chance.random() < 0.5
                else worker.answer(job, result="failed", failure=BROKEN)
                for job in jobs
            ]
            answers += answers[:2]
            chance.shuffle(answers)
            house.settlement.settle(answers)
            done["settled"] += len(jobs)

    with ThreadPoolExecutor(10) as pool:
        serving = [pool.submit(herder, number) for number in range(3)] + [pool.submit(banker)]
        serving += [pool.submit(messenger, number) for number in range(2)]
        asking = [pool.submit(clients, number) for number in range(4)]
        for one in asking:
            one.result()  # raises HerdUnavailable, had it been undone
        over.set()
        for one in serving:
            one.result()
    print(done)
    assert all(done[what] for what in ("submitted", "fitted", "moved", "settled", "sent"))


def _uuid(chance: random.Random) -> str:
    from uuid import UUID

    return str(UUID(int=chance.getrandbits(128), version=4))


def test_a_herder_that_is_stopped_while_it_dispatches_stops_no_other(house):
    house.worker(slots=4)
    for _ in range(4):
        house.submit()
    other = Database(house.settings.database, lease_s=3)
    stopped = other.write()
    connection = stopped.__enter__()
    model_sql.lock_dispatch(connection, "stub")
    assert len(house.dispatch()) == 4
    with pytest.raises(Exception, match="idle-in-transaction"):
        model_sql.lock_dispatch(connection, "stub")
    other.close()
