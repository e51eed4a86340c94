"""Freezes what a version wrote and signed, and makes a herd of it again for a later version.

`tests/cases/releases/VERSION/` holds it, made once by that version's own code:
`cd tests && python -m support.release cases/releases/VERSION`. It is never made anew: whatever a
later version cannot read of it is a fault of the later version.

Rows are those of an SQLite database at that version's last migration, by table. The keys were
made for this only.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from herder.db import migrations
from herder.db.database import Database
from herder.domain.parsing import parse_submission
from herder.domain.receipts import receipt_of
from herder.domain.signed_tokens import read_quote, sign_receipt
from herder.market.quotes import Quotes
from herder.store import herd as herd_sql
from herder.version import __version__
from herder.webhooks.schedule import Reply
from tests.support.house import FakeReceiver, FakeWorker, House
from workers.wire import (
    BEATS_STREAM,
    HERDER_QUEUE,
    Announcement,
    Beat,
    Claim,
    InferenceJob,
    Outcomes,
    PrivateKey,
    seal,
)

RELEASES = Path(__file__).parents[1] / "cases" / "releases"

AT_US = 1_795_176_000_000_000
"""The frozen herd's time: 2026-11-20 12:00 UTC."""
INSTANCE = "w-frozen"
MAX_PROMPT_BYTES = 100_000
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")
CALLS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "two words", "tokens": 10},
    "chat": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is grass green? 🦙"},
        ],
        "tokens": 12,
        "fee": 60,
    },
    "raw": {"prompt": "\n\n### Once", "tokens": 3, "raw": True, "stop": "###"},
    "everything": {
        "prompt": "Ünïcödé, a llama",
        "tokens": 20,
        "fee": 40,
        "multiplier": "1.5",
        "max_fee": 90,
        "model": "stub",
        "stop": ["###", "\n"],
        "reference": "order 66 🦙",
        "start_by": "2100-01-31T18:00:00+00:00",
        "run_limit_s": 90,
        "sampling": {
            "temperature": 0.0,
            "top_k": 1,
            "top_p": 0.5,
            "min_p": 0.25,
            "repeat_penalty": 1.25,
            "frequency_penalty": -0.5,
            "presence_penalty": 0.5,
            "seed": 7,
            "logit_bias": {"5": 1.5, "70": -100.0},
            "grammar": 'root ::= "yes" | "no"',
        },
    },
    "schema": {"prompt": "a b c", "tokens": 5, "sampling": {"json_schema": '{"type": "object"}'}},
    "defaults said": {
        "prompt": "a b c",
        "tokens": 5,
        "multiplier": 1,
        "stop": [],
        "raw": False,
        "sampling": {"temperature": 0.8, "top_k": 40, "logit_bias": {}},
    },
    "quoted": {"prompt": "to be quoted", "tokens": 8, "quote": "with a multiplier"},
    "running": {"prompt": "it runs", "tokens": 10, "fee": 500, "reference": "runs"},
    "answered": {"prompt": "it is done", "tokens": 10, "fee": 490, "reference": "answered"},
    "called off": {"prompt": "never mind", "tokens": 10, "fee": 480},
    "dispatched": {"prompt": "on its way", "tokens": 10, "fee": 470},
    "unsent": {"prompt": "not on its way yet", "tokens": 10, "fee": 450},
    "completed": {"prompt": "all is well", "tokens": 10, "fee": 900, "reference": "first"},
    "failed": {"prompt": "all is lost", "tokens": 10, "fee": 890},
    "cancelled": {"prompt": "a whim", "tokens": 10, "fee": 30},
    "rebid": {"prompt": "more for it", "tokens": 10, "fee": 30},
}
"""Calls as the border parses them, each made under its name as the idempotency key."""
MESSAGES: dict[str, dict[str, str]] = {
    "info": {"Action": "Info"},
    "balance": {"Action": "Balance"},
    "payment": {"Action": "Transfer", "Recipient": "bob", "Quantity": "25", "X-For": "lunch"},
    "prompt": {
        "Action": "Transfer",
        "Recipient": "herder",
        "Quantity": "35",
        "X-Prompt": "Why not?",
        "X-Tokens": "6",
        "X-Reference": "by message",
    },
}


def frozen_key(name: str) -> PrivateKey:
    """A key that is always the same."""
    secret = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    return PrivateKey.from_jwk(OKPAlgorithm.to_jwk(secret, as_dict=True))


def parsed(call: dict[str, Any], house: House, **more: Any) -> Any:
    """A call as it passes the border today."""
    given = {"account": "alice", "max_prompt_bytes": MAX_PROMPT_BYTES, **call, **more}
    if given.get("quote") is not None:
        with house.database.read() as connection:
            keys = herd_sql.live_keys(connection, herd_sql.HERDER)
        given["quote"] = read_quote(given["quote"], keys)
    return parse_submission(given.pop("prompt", None), given.pop("tokens"), **given)


class _Frozen:
    """A herd at work for an hour, and what came of it."""

    def __init__(self, folder: Path) -> None:
        (folder / "workers").mkdir(parents=True)
        self.keys = {name: frozen_key(f"{name} of {__version__}") for name in ("herder", "worker")}
        (folder / "herder.jwk").write_text(json.dumps(self.keys["herder"].to_jwk()))
        public = [self.keys["herder"].public.to_jwk()]
        joined = {"worker": self.keys["worker"].to_jwk(), "herders": public}
        (folder / "workers" / "worker.json").write_text(json.dumps(joined))
        self.house = house = House(folder)
        house.now_us = AT_US
        self.worker = FakeWorker(house, "worker", self.keys["worker"], INSTANCE, slots=8)
        house.workers.append(self.worker)
        self.calls: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self.signed: dict[str, Any] = {"quotes": {}, "receipts": {}, "envelopes": {}}
        self.jobs: dict[str, InferenceJob] = {}

    def work(self) -> None:
        """Everything that leaves something behind."""
        self._money()
        self._webhooks()
        self.worker.beat()
        self._orders()
        self._messages()
        self._deliver()
        self._sign()

    def _money(self) -> None:
        house = self.house
        for number, name in enumerate(("alice", "bob")):
            house.accounts.create(name)
            given = f"00000000-0000-4000-8000-00000000000{number}"
            house.accounts.deposit(name, 50_000, given, f"for {name} ⚖")
        house.accounts.set_limits("bob", max_open_orders=5, tokens_per_minute=1000)
        house.accounts.withdraw("bob", 50, "00000000-0000-4000-8000-000000000010", "cash")
        house.accounts.transfer("bob", "alice", 40, "00000000-0000-4000-8000-000000000011")
        self.api_key, self.api_token = house.api_keys.create(
            "alice", name="shop", scopes=("buy", "read"), max_fee=10_000, spending_limit=40_000
        )
        _, self.revoked = house.api_keys.create("bob", name="lost", scopes=("operate",))
        house.api_keys.revoke(house.api_keys.list("bob")[0].id)
        every = {"day": 100, "week": 1000, "month": 10_000}
        for number, (period, amount) in enumerate(every.items()):
            given = f"00000000-0000-4000-8000-00000000002{number}"
            house.grants.create("bob", amount, period, note=f"each {period}", grant_id=given)
        house.grants.end("00000000-0000-4000-8000-000000000021")

    def _webhooks(self) -> None:
        webhooks = self.house.webhooks
        self.hook, _ = webhooks.create("alice", "https://alice.example/herd", include_text=True)
        self.hook, secret = webhooks.rotate(self.hook.id)
        types = ("order.completed", "message.created")
        self.other, other = webhooks.create("alice", "https://alice.example/all", types=types)
        self.signed["secrets"] = {self.hook.id: secret, self.other.id: other}

    def _quote(self, name: str, **call: Any) -> str:
        quotes = Quotes(self.house.database, self.house.key, clock_us=self.house.clock)
        token: str = quotes.quote(parsed(call, self.house)).quote
        self.signed["quotes"][name] = token
        return token

    def _take(self, name: str) -> str:
        call = dict(CALLS[name])
        if call.get("quote") is not None:
            del call["quote"]
            call["quote"] = self._quote("with a multiplier", **call, multiplier="1.25")
        bought = {} if name in ("plain", "chat") else {"api_key": self.api_key.id}
        order = self.house.intake.submit(parsed(call, self.house, idempotency_key=name, **bought))
        self.calls[name] = {"call": call, "order": order.id}
        return order.id

    def _start(self, *names: str, claimed: bool = True) -> None:
        for name in names:
            self._take(name)
        by_order = {self.calls[name]["order"]: name for name in names}
        for job in self.house.dispatch():
            name = by_order[job.order]
            self.jobs[name] = job
            if claimed:
                self.worker.claim(job)

    def _orders(self) -> None:
        house, worker = self.house, self.worker
        self._start("completed", "failed")
        house.now_us += 1_500_000
        worker.finish(self.jobs["completed"], text="so it is 🦙", generated=7, prompt_tokens=5)
        worker.fail(self.jobs["failed"], permanent=True)
        given_back = "00000000-0000-4000-8000-000000000030"
        house.intake.refund(self.calls["completed"]["order"], 100, "was slow", refund_id=given_back)
        house.cancellation.cancel(self._take("cancelled"))
        expired = house.intake.submit(
            parsed({"prompt": "too late", "tokens": 2, "start_by": "2026-11-20T12:00:02Z"}, house)
        )
        house.now_us += 1_000_000
        house.cancellation.sweep()
        self.calls["expired"] = {"order": expired.id}
        self._start("running", "answered", "called off")
        house.cancellation.cancel(self.calls["called off"]["order"])
        house.pass_s(2, worker)
        self._start("dispatched", claimed=False)
        token = house.publisher.tokens[-1]
        self.signed["envelopes"]["job"] = {"token": token, "audience": house.publisher.queues[-1]}
        house.publisher.away = ConnectionError("the broker is away")
        self._start("unsent", claimed=False)
        worker.slots = 5
        worker.beat()
        self._quote("plain", prompt="ask first", tokens=9)
        for name in CALLS:
            if name not in self.calls:
                self._take(name)
        house.intake.rebid(self.calls["rebid"]["order"], 45)

    def _messages(self) -> None:
        for name, tags in MESSAGES.items():
            sent = self.house.messages.send(tags, account="alice", idempotency_key=name)
            self.messages[name] = {"tags": tags, "id": sent.id, "order": sent.order}

    def _deliver(self) -> None:
        receiver = FakeReceiver()
        receiver.replies = [Reply(200), Reply(500), Reply(404), Reply(200)]
        deliverer = self.house.new_deliverer(receiver, at_once=4, retries_s=(5,))
        deliverer.step(0)
        deliverer.step(0)
        self.house.now_us += 7_000_000
        receiver.replies = [Reply(None, "timeout")]
        receiver.later = []  # the others stay claimed by a herder that is gone
        deliverer.step(0)
        receiver.later[0]()
        deliverer.step(0)
        request = receiver.requests[0]
        self.signed["webhook"] = {
            "secrets": self.signed["secrets"],
            "headers": request.headers,
            "body": request.body.decode(),
        }
        deliverer.stop()

    def _sign(self) -> None:
        house, worker = self.house, self.worker
        for name in ("completed", "running"):
            receipt = receipt_of(house.order(self.calls[name]["order"]))
            token = sign_receipt(receipt, house.key, house.now_us // 1_000_000)
            self.signed["receipts"][name] = {"token": token, "receipt": receipt.to_dict()}
        ended = [
            worker.outcome(self.jobs["answered"], text="sealed before", generated=6, took_ms=90),
            worker.outcome(
                self.jobs["called off"], finish_reason="cancelled", text="nev", generated=2
            ),
        ]
        late = worker.outcome(self.jobs["running"], text="sealed as well", generated=10)
        announced = Announcement(name="worker", model="stub", slots=5, context=4096)
        bodies = {
            "outcomes": (Outcomes(outcomes=tuple(ended)), HERDER_QUEUE),
            "outcome of the running one": (Outcomes(outcomes=(late,)), HERDER_QUEUE),
            "claim": (Claim(held=(self.jobs["dispatched"].held,)), BEATS_STREAM),
            "beat": (
                Beat(number=99, worker=announced, running=(self.jobs["running"].held,)),
                BEATS_STREAM,
            ),
        }
        for name, (body, audience) in bodies.items():
            now_s = house.now_us // 1_000_000
            token = seal(body, worker.key, sender=INSTANCE, audience=audience, now_s=now_s)
            self.signed["envelopes"][name] = {"token": token, "audience": audience}

    def document(self) -> dict[str, Any]:
        """What a later version is told of this one."""
        house = self.house
        accounts = {one.account: asdict(one) for one in house.accounts.balances()}
        orders = {
            name: {**one, "state": house.order(one["order"]).state.value}
            for name, one in self.calls.items()
        }
        return {
            "version": __version__,
            "at_us": house.now_us,
            "keys": {name: key.to_jwk() for name, key in self.keys.items()},
            "api_keys": {"good": self.api_token, "revoked": self.revoked},
            "orders": orders,
            "messages": self.messages,
            "inbox": house.inbox("alice"),
            "balances": accounts,
            "signed": self.signed,
        }


def rows_of(address: str) -> dict[str, list[dict[str, Any]]]:
    """All rows of an SQLite database, by table, parents before children."""
    engine = sa.create_engine(address)
    found = sa.MetaData()
    found.reflect(engine)
    with engine.connect() as connection:
        rows = {
            table.name: [
                {name: value for name, value in row._mapping.items() if value is not None}
                for row in connection.execute(sa.select(table).order_by(*table.primary_key))
            ]
            for table in found.sorted_tables
            if table.name not in ("alembic_version", "ledger_refundable")
        }
        version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    engine.dispose()
    return {"alembic_version": [{"version_num": version}], **rows}


def freeze(folder: Path) -> None:
    """Write what this version leaves behind into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        frozen = _Frozen(Path(home) / "herd")
        frozen.work()
        frozen.house.check()
        documents = {"herd": frozen.document(), "rows": rows_of(frozen.house.settings.database)}
        frozen.house.close()
    for name, document in documents.items():
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text + "\n")


def frozen(folder: Path) -> dict[str, Any]:
    """What a frozen version tells of itself."""
    document: dict[str, Any] = json.loads((folder / "herd.json").read_text())
    return document


def thaw(folder: Path, home: Path, database_url: str = "") -> House:
    """Make a frozen herd of today: its database as it was, brought up to date by `herd init`.

    Args:
        folder: what `freeze` wrote.
        home: the herd's home folder, which is made.
        database_url: an empty database; empty for a file in the home folder.
    """
    told = frozen(folder)
    (home / "workers").mkdir(parents=True)
    (home / "herder.jwk").write_text(json.dumps(told["keys"]["herder"]))
    public = {name: told["keys"]["herder"][name] for name in ("kty", "crv", "x")}
    joined = {"worker": told["keys"]["worker"], "herders": [public]}
    (home / "workers" / "worker.json").write_text(json.dumps(joined))
    database = Database(database_url or f"sqlite:///{home / 'herd.db'}", any_version=True)
    with database.write() as connection:
        _fill(connection, json.loads((folder / "rows.json").read_text()))
    database.close()
    house = House(home, database_url=database_url)
    house.now_us = told["at_us"] + 2_000_000
    return house


def _fill(connection: sa.Connection, rows: dict[str, list[dict[str, Any]]]) -> None:
    """The tables of a version, and its rows."""
    (at,) = rows.pop("alembic_version")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, at["version_num"])
    found = sa.MetaData()
    found.reflect(connection)
    for name, those in rows.items():
        for row in those:
            values = row
            if name == "ledger_account":  # its transfers fill it, by trigger
                values = {**row, **dict.fromkeys(COUNTERS, 0)}
            connection.execute(sa.insert(found.tables[name]).values(values))
        if connection.dialect.name == "postgresql" and those and "seq" in those[0]:
            connection.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', 'seq'), max(seq)) FROM {name}"
            )


if __name__ == "__main__":
    freeze(Path(sys.argv[1]))
