"""The loads of `tests/bench/engine.py`, and how they are put on a contender.

W1        64 short prompts, 64 new tokens, 16 at a time
W2        64 prompts that share a system prompt of 400 tokens, 32 new tokens, 16 at a time
W3        48 prompts of 20 to 800 tokens, 8 to 128 new tokens, at random moments (Poisson)
W3 burst  the same lengths, all at once
W4        12 prompts, 48 new tokens, one after the other
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

SEED = 4
AT_ONCE = 16
NAMES = ("w1", "w2", "w3", "w3_burst", "w4")
TALE = (
    "the llama walks over the hill and looks at the river while a shepherd counts his money and "
    "thinks about the market where wool is sold to people who came from far away to buy it before "
    "winter because the road will be closed when snow falls on the mountains and nobody can tell "
    "how long it takes until spring comes back with water grass and small white flowers"
)


@dataclass(frozen=True)
class Request:
    """A prompt, and how many tokens to generate, no matter whether the model would end.

    Attributes:
        text: the prompt, raw.
        tokens: the same in tokens.
        new: tokens to generate.
        at_s: when it comes, in seconds from the start; 0 for all but W3.
    """

    text: str
    tokens: list[int]
    new: int
    at_s: float = 0.0


@dataclass
class Timing:
    """When what happened to a request, in seconds."""

    sent_s: float
    first_s: float
    end_s: float
    new: int


@dataclass(frozen=True)
class Figures:
    """What a contender did with a load.

    Attributes:
        tokens_per_s: tokens generated, from the first request to the last answer.
        requests_per_s: the same, in requests.
        ttft_p50_ms, ttft_p95_ms: time to the first text.
        tpot_p50_ms, tpot_p95_ms: time from token to token after the first, of a request.
    """

    tokens_per_s: float
    requests_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    tpot_p50_ms: float
    tpot_p95_ms: float


class Contender(Protocol):
    """Whatever answers requests."""

    def run(self, request: Request) -> Timing:
        """Answer one, whole; any thread may call this.

        Raises:
            AssertionError: it did not take the prompt's tokens, or gave another number.
        """


def sentence(chance: random.Random, words: int) -> str:
    """Some of the words of the tale, in any order."""
    known = TALE.split()
    return " ".join(chance.choice(known) for _ in range(words))


def make_loads(
    tokenize: Callable[[str], list[int]], names: Sequence[str], fraction: float = 1.0
) -> dict[str, list[Request]]:
    """The loads by name, the same at each call.

    Args:
        tokenize: the model's.
        names: which.
        fraction: the part of their requests to make, where there is no time for all.
    """

    def count(full: int) -> int:
        return max(4, round(full * fraction))

    def request(text: str, new: int, most: int | None = None) -> Request:
        words = text.split()
        if most is not None:  # as many of its words as fit: a token each, or nearly
            short = bisect_right(
                range(len(words) + 1), most, key=lambda n: len(tokenize(" ".join(words[:n])))
            )
            text = " ".join(words[: short - 1])
        return Request(text, tokenize(text), new)

    made: dict[str, list[Request]] = {}
    for name in names:
        chance = random.Random(f"{SEED} {name}")  # another text for each: none is found cached
        sizes = random.Random(SEED)  # the same for W3 and its burst
        if name == "w1":
            made[name] = [request(sentence(chance, 16), 64) for _ in range(count(64))]
        elif name == "w2":
            system = request(sentence(chance, 500), 1, 400).text
            made[name] = [request(f"{system} {sentence(chance, 12)}", 32) for _ in range(count(64))]
        elif name == "w4":
            made[name] = [request(sentence(chance, 24), 48) for _ in range(count(12))]
        else:
            made[name] = [
                request(sentence(chance, 900), sizes.randint(8, 128), sizes.randint(20, 800))
                for _ in range(count(48))
            ]
    return made


def arrivals(requests: Sequence[Request], per_s: float) -> list[Request]:
    """The same requests at random moments, `per_s` of them in a second."""
    chance = random.Random(f"{SEED} arrivals")
    at_s = 0.0
    spread = []
    for one in requests:
        spread.append(Request(one.text, one.tokens, one.new, at_s))
        at_s += chance.expovariate(per_s)
    return spread


def put(contender: Contender, name: str, requests: Sequence[Request]) -> Figures:
    """Put a load on a contender, and wait for all of it."""
    clients = {"w1": AT_ONCE, "w2": AT_ONCE, "w4": 1}.get(name, len(requests))
    waiting: SimpleQueue[Request] = SimpleQueue()
    for one in requests:
        waiting.put(one)
    done: list[Timing] = []
    wrong: list[BaseException] = []
    begin_s = time.perf_counter() + 0.05

    def client() -> None:
        try:
            while not wrong:
                one = waiting.get_nowait()
                time.sleep(max(0.0, begin_s + one.at_s - time.perf_counter()))
                done.append(contender.run(one))
        except Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            wrong.append(error)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    return figures(done)


def figures(done: Sequence[Timing]) -> Figures:
    """Work out the figures of a load."""
    took_s = max(t.end_s for t in done) - min(t.sent_s for t in done)
    first = [1e3 * (t.first_s - t.sent_s) for t in done]
    each = [1e3 * (t.end_s - t.first_s) / (t.new - 1) for t in done if t.new > 1]
    return Figures(
        tokens_per_s=sum(t.new for t in done) / took_s,
        requests_per_s=len(done) / took_s,
        ttft_p50_ms=statistics.median(first),
        ttft_p95_ms=p95(first),
        tpot_p50_ms=statistics.median(each),
        tpot_p95_ms=p95(each),
    )


def p95(values: Sequence[float]) -> float:
    """The value that 95 of 100 do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def to_json(loads: dict[str, list[Request]]) -> dict[str, Any]:
    """As they travel to the process of a contender."""
    return {name: [asdict(one) for one in requests] for name, requests in loads.items()}


def from_json(document: dict[str, Any]) -> dict[str, list[Request]]:
    """As they arrive there."""
    return {name: [Request(**one) for one in requests] for name, requests in document.items()}
