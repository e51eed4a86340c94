"""What must be true of a history, whatever happened at once.

Nobody knows in which order calls took effect that ran at the same time. But what was acknowledged
before another call began came before it, and that is all that is used here: an order *certainly
waits* from the instant at which its caller was told so until the one at which the call that took it
away had looked at the clock, which is before that call's commit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from herder.domain.order import ENDED, Order
from tests.unit.orders.histories import FUNDS, LIMITED, MAX_OPEN, WORDS, Did, Game

FINAL = frozenset(state.value for state in ENDED)
COMES_BACK = frozenset({"lapsed", "handed_back", "attempt_failed"})
NEVER = 2**63
_TAKE_AWAY = ("rebid", "dispatch", "settle", "lapse", "expire")


@dataclass
class History:
    """What all of them did, and how the orders stood in the end.

    Attributes:
        orders: by id, as they ended.
        events: of each order, in their order: what happened, and when by the herd's clock.
    """

    game: Game
    done: list[Did]
    orders: dict[str, Order]
    events: dict[str, list[tuple[str, int]]]
    most_open: int = MAX_OPEN
    funds: dict[str, int] = field(default_factory=lambda: dict(FUNDS))

    def calls(self, *names: str, failed: bool = False) -> Iterator[Did]:
        """Calls of these names that were acknowledged; or those that were refused."""
        return (one for one in self.done if one.call in names and (one.error is None) != failed)

    # When things were so

    @cached_property
    def taken(self) -> dict[str, tuple[int, int]]:
        """Between which instants each order was submitted: its first caller knew it after."""
        spans: dict[str, list[Did]] = {}
        for did in self.calls("submit"):
            spans.setdefault(did.got["id"], []).append(did)
        return {
            one: (min(d.began for d in d_), min(d.ended for d in d_)) for one, d_ in spans.items()
        }

    @cached_property
    def over(self) -> dict[str, tuple[int, int]]:
        """Between which instants each order ended."""
        return {
            one: self._around(at_us, "settle", "lapse", "expire", "cancel")
            for one, events in self.events.items()
            for kind, at_us in events
            if kind in FINAL
        }

    def _around(self, clock_us: int, *names: str) -> tuple[int, int]:
        """A time that some call looked at, and the latest at which that call can have returned."""
        at = self.game.at_ns(clock_us)
        ends = [
            did.ended for did in self.calls(*names) if did.began <= at + 1000 <= did.ended + 2000
        ]
        return at, max(ends, default=at)

    def waits(self, order_id: str) -> Iterator[tuple[int, int]]:
        """The spans in which an order certainly waits for a dispatch."""
        since: int | None = None
        for kind, at_us in self.events[order_id]:
            if kind == "submitted":
                since = self.taken[order_id][1]
            elif kind in COMES_BACK:
                since = self._around(at_us, "settle", "lapse")[1]
            elif kind in FINAL or kind in ("dispatched", "started"):
                if since is not None:
                    yield since, self.game.at_ns(at_us)
                since = None
        if since is not None:
            yield since, NEVER

    @cached_property
    def _bids(self) -> dict[str, list[tuple[int, int]]]:
        """Of each order, when a bid was acknowledged, and the bid."""
        bids: dict[str, list[tuple[int, int]]] = {}
        for did in self.calls("submit", "rebid"):
            one = did.got["id"] if did.call == "submit" else did.asked["order"]
            bids.setdefault(one, []).append((did.ended, did.asked["fee"]))
        return bids

    def bid_before(self, order_id: str, instant: int) -> int:
        """The best fee of an order that was acknowledged before an instant."""
        return max(fee for ended, fee in self._bids[order_id] if ended < instant)


def no_raw_error(history: History) -> Iterator[str]:
    for did in history.done:
        if did.error and (did.error.startswith("raw") or did.error == "HerdUnavailable"):
            yield f"{did.call} of {did.who} met {did.error}"


def a_key_is_one_order(history: History) -> Iterator[str]:
    found: dict[tuple[str, str], set[str]] = {}
    for did in history.calls("submit"):
        if did.asked["key"]:
            found.setdefault((did.asked["account"], did.asked["key"]), set()).add(did.got["id"])
    for key, ids in found.items():
        # A cancellation that cost nothing releases the key: it may buy again.
        hold = {one for one in ids if "key_released" not in dict(history.events[one])}
        if len(hold) > 1:
            yield f"{key} stands for {hold}"
        for one in ids - hold:
            order = history.orders[one]
            if (order.state.value, order.charged) != ("cancelled", 0):
                yield f"{one} is {order.state} at {order.charged}, and its key was released"
    for one in {did.got["id"] for did in history.calls("submit")} ^ set(history.orders):
        yield f"{one} was acknowledged and is not there, or is there and nobody submitted it"


def an_order_ends_once(history: History) -> Iterator[str]:
    ended = Counter(one for did in history.calls("settle", "lapse", "expire") for one in did.got)
    cancelled = {did.asked["order"] for did in history.calls("cancel") if did.got == "cancelled"}
    for one, order in history.orders.items():
        ends = [kind for kind, _ in history.events[one] if kind in FINAL]
        if ends != [order.state.value]:
            yield f"{one} is {order.state} and ended as {ends}"
        if ended[one] != 1 and not (ended[one] == 0 and one in cancelled):
            yield f"{one} was ended by {ended[one]} calls"


def acknowledged_bids_stay(history: History) -> Iterator[str]:
    raised: dict[str, dict[int, int]] = {one: {} for one in history.orders}
    for did in history.calls("rebid"):
        one, fee, holds = did.asked["order"], did.asked["fee"], did.got["holds"]
        if did.got["fee"] != fee or raised[one].setdefault(holds, fee) != fee:
            yield f"{one}: a bid of {fee} was acknowledged as {did.got}"
    for one, bids in raised.items():
        order = history.orders[one]
        if sorted(bids) != list(range(2, order.holds + 1)):
            yield f"{one} had {order.holds} holds, and bids for {sorted(bids)}"
        fees = [bids[number] for number in sorted(bids)]
        if fees != sorted(set(fees)) or (fees and order.fee != fees[-1]):
            yield f"{one} offers {order.fee}, and bids were {fees}"


def what_ended_is_over(history: History) -> Iterator[str]:
    """Nothing is bid for, sent out or ended by a call that began after the end was known."""
    raised: set[tuple[str, int]] = set()
    for did in sorted(history.calls(*_TAKE_AWAY), key=lambda did: did.began):
        if did.call == "rebid":
            bid = (did.asked["order"], did.got["holds"])
            named = [] if bid in raised else [bid[0]]  # the same bid again changed nothing
            raised.add(bid)
        elif did.call == "dispatch":
            named = [one for one, _, _ in did.got]
        else:
            named = did.got
        for one in named:
            if one in history.over and history.over[one][1] < did.began:
                yield f"{did.call} of {did.who} found {one} after its end"


def an_attempt_goes_out_once(history: History) -> Iterator[str]:
    sent = Counter((one, number) for did in history.calls("dispatch") for one, number, _ in did.got)
    for (one, number), times in sent.items():
        if times > 1:
            yield f"attempt {number} of {one} was sent out {times} times"
    for one, order in history.orders.items():
        missing = [n for n in range(1, order.attempt + 1) if not sent[one, n]]
        if missing:
            yield f"attempts {missing} of {one} were sent out by nobody"


def the_best_goes_first(history: History) -> Iterator[str]:
    spans = {one: list(history.waits(one)) for one in history.orders}
    for did in history.calls("dispatch"):
        if not did.got:
            continue
        worst = min((rank, -history.orders[one].seq) for one, _, rank in did.got)
        took = {one for one, _, _ in did.got}
        for one, order in history.orders.items():
            waited = any(since < did.began and did.ended < until for since, until in spans[one])
            if one in took or not waited or order.start_by_us is not None:
                continue
            rank = history.bid_before(one, did.began) * 2**40 // order.needed
            if (rank, -order.seq) > worst:
                yield f"a dispatch of {did.who} left {one} behind, which was better"


def limits_hold(history: History) -> Iterator[str]:
    """Never more open than may be; and nobody is refused who would have fitted."""
    mine = [one for one, order in history.orders.items() if order.account == LIMITED]
    for one in mine:
        at = history.taken[one][1]
        still = [
            other
            for other in mine
            if history.taken[other][1] <= at < history.over.get(other, (NEVER, NEVER))[0]
        ]
        if len(still) > history.most_open:
            yield f"{len(still)} orders of {LIMITED} were open"
    for did in history.calls("submit", failed=True):
        if did.error != "RateLimited":
            continue
        maybe = [other for other in mine if _maybe_open(history, other, did)]
        if did.asked["account"] != LIMITED or len(maybe) < history.most_open:
            yield f"a call of {did.who} was refused with at most {len(maybe)} orders open"


def nobody_is_refused_who_can_pay(history: History) -> Iterator[str]:
    for did in history.calls("submit", failed=True):
        if did.error != "InsufficientBalance":
            continue
        account = did.asked["account"]
        gone = 0
        for one, order in history.orders.items():
            if order.account == account and history.taken[one][0] < did.ended:
                gone += order.fee if _maybe_open(history, one, did) else order.charged
        if history.funds[account] - gone >= did.asked["fee"]:
            yield f"{account} had {history.funds[account] - gone} and not {did.asked['fee']}"


def _maybe_open(history: History, one: str, did: Did) -> bool:
    known, over = history.taken[one][0], history.over.get(one, (NEVER, NEVER))[1]
    return known < did.ended and did.began < over


def charges_are_right(history: History) -> Iterator[str]:
    said: dict[str, set[int]] = {}
    for did in history.calls("settle"):
        for one, generated in did.asked["outcomes"]:
            said.setdefault(one, set()).add(generated)
    for one, order in history.orders.items():
        delivered = 1 + WORDS + order.generated
        due = min(order.fee, math.ceil(Fraction(order.fee * delivered, order.needed)))
        state = order.state.value
        charged = due if state == "completed" or (state != "failed" and order.generated) else 0
        if (order.charged, order.returned) != (charged, order.fee - charged):
            yield f"{one}, {state}, was charged {order.charged} and not {charged}"
        if order.generated and order.generated not in said.get(one, ()):
            yield f"nobody said that {one} generated {order.generated}"


RULES: tuple[Callable[[History], Iterator[str]], ...] = (
    no_raw_error,
    a_key_is_one_order,
    an_order_ends_once,
    acknowledged_bids_stay,
    what_ended_is_over,
    an_attempt_goes_out_once,
    the_best_goes_first,
    limits_hold,
    nobody_is_refused_who_can_pay,
    charges_are_right,
)


def broken(history: History) -> dict[str, list[str]]:
    """The rules that a history breaks, and where."""
    found = {rule.__name__: list(rule(history)) for rule in RULES}
    return {name: where for name, where in found.items() if where}
