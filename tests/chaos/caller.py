"""A client's program that may die at any moment: it is run again, and makes the same call again.

Reads calls as JSON, one a line, and writes what each came to.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from herder.errors import HerdUnavailable, OrderNotWaiting
from herder.local.local_herd import LocalHerd
from herder.settings import load_settings
from tests.chaos.points import install
from workers.transport.streams import Streams


def made(herd: LocalHerd, call: dict[str, Any]) -> dict[str, Any]:
    """What a call came to; one that the database was too busy for is made again."""
    while True:
        try:
            match call["do"]:
                case "submit":
                    receipt = herd.submit(**call["call"], idempotency_key=call["key"])
                case "message":
                    taken = herd.send_message(
                        call["tags"], account="default", idempotency_key=call["key"]
                    )
                    return {"order": taken.order, "id": taken.id}
                case "rebid":
                    receipt = herd.rebid(call["order"], call["fee"])
                case "cancel":
                    _wait_until(herd, call["order"], call["when"])
                    receipt = herd.cancel(call["order"])
                case other:
                    raise AssertionError(other)
        except HerdUnavailable:
            time.sleep(0.1)
        except OrderNotWaiting as refusal:
            return {"refused": refusal.code}
        else:
            return {"order": receipt.order, "fee": receipt.fee, "state": receipt.state}


def _wait_until(herd: LocalHerd, order_id: str, when: str) -> None:
    """Wait until an order has come as far as that, or farther."""
    before = {"queued": [], "dispatched": ["queued"], "running": ["queued", "dispatched"]}[when]
    while herd.receipt(order_id).state in before:
        time.sleep(0.002)


def main() -> None:
    """Make the calls."""
    install()
    # Among many only one client nudges; here it is this one.
    Streams.first_nudge = lambda _self, _model: True  # type: ignore[method-assign]
    herd = LocalHerd(load_settings())
    for line in sys.stdin:
        print(json.dumps(made(herd, json.loads(line))), flush=True)
    herd.close()


if __name__ == "__main__":
    main()
