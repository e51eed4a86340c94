"""A client's program that may die at any moment: it is run again, and makes the same calls.

Reads calls as JSON, one a line, `{"do": "submit", "key": ..., ...}`; writes what each came to.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from herder.errors import HerdError, HerdUnavailable, OrderNotWaiting, RebidTooLow
from herder.local import LocalHerd
from herder.settings import load_settings
from tests.chaos.points import install
from workers.transport.streams import Streams


def made(herd: LocalHerd, call: dict[str, Any], orders: dict[str, str]) -> dict[str, Any]:
    """What a call came to; one that the database was too busy for is made again."""
    key = call["key"]
    while True:
        try:
            if call["do"] == "submit":
                receipt = herd.submit(**call["call"], idempotency_key=key)
                orders[key] = receipt.order
            elif call["do"] == "rebid":
                receipt = herd.rebid(orders[key], call["fee"])
            else:
                receipt = herd.cancel(orders[key])
        except HerdUnavailable:
            time.sleep(0.2)
        except (OrderNotWaiting, RebidTooLow) as refusal:
            return {"key": key, "refused": refusal.code}
        else:
            return {"key": key, "order": receipt.order, "fee": receipt.fee, "state": receipt.state}


def main() -> None:
    """Make the calls."""
    install()
    # Among many only one client nudges; here it is this one.
    Streams.first_nudge = lambda _self, _model: True  # type: ignore[method-assign]
    herd = LocalHerd(load_settings())
    orders: dict[str, str] = {}
    for line in sys.stdin:
        try:
            answer = made(herd, json.loads(line), orders)
        except HerdError as error:
            answer = {"error": error.message}
        print(json.dumps(answer), flush=True)
    herd.close()


if __name__ == "__main__":
    main()
