"""The gateway beside bare FastAPI routes on the same database, in the same run.

    make bench-gateway
    .venv/bin/python tests/bench/gateway.py --requests 500 --rounds 1

`POST /v1/orders` beside a route that inserts one row, `GET /v1/orders/{id}` beside one that reads
one row: same SQLite file, same uvicorn, eight connections that are kept open. And the first
streamed token over HTTP beside that of the in-process client, on the deterministic model. Rounds
alternate; ratios are taken within a round, and their medians are shown and written to
build/bench/gateway.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.servers import (
    ROOT,
    celery_process,
    free_port,
    redis_server,
    wait_for,
)

CONNECTIONS = 8
AIMS = {"post_vs_bare_route": 0.5, "get_vs_bare_route": 0.5, "first_token_added_ms": 15.0}
QUIET = {"HERD_EVENTS": "false", "HERD_LOG_LEVEL": "WARNING"}
COUNTED = {
    "HERD_REQUESTS_PER_MINUTE_PER_KEY": "1000000",
    "HERD_REQUESTS_PER_MINUTE_PER_ADDRESS": "1000000",
}
"""Calls are counted as they are by default, and none is refused."""
Ask = Callable[[http.client.HTTPConnection, int], None]


def say(line: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@contextmanager
def served(command: list[str], port: int, env: dict[str, str], log: Path) -> Iterator[str]:
    """A web server, told to stop at the end of the block; gives its address."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, **env},
        )

    def listens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(log.read_text()[-2000:])
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=2).connect()
        except OSError:
            return False
        return True

    try:
        wait_for(listens, 60, command[-1])
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def load(url: str, ask: Ask, requests: int) -> dict[str, float]:
    """Requests a second and milliseconds of each, over several connections."""
    numbers, took, wrong = count(), [], []  # type: ignore[var-annotated]
    at = urlsplit(url)

    def client() -> None:
        connection = http.client.HTTPConnection(str(at.hostname), at.port, timeout=60)
        try:
            while (number := next(numbers)) < requests:
                begin_s = time.perf_counter()
                ask(connection, number)
                took.append(time.perf_counter() - begin_s)
        except BaseException as error:  # noqa: BLE001 - raised again below
            wrong.append(error)

    threads = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    begin_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
    took.sort()
    return {
        "per_s": requests / (time.perf_counter() - begin_s),
        "p50_ms": 1e3 * took[len(took) // 2],
        "p99_ms": 1e3 * took[len(took) * 99 // 100],
    }


def asking(
    method: str, path: Callable[[int], str], body: object, status: int, key: str = ""
) -> Ask:
    """A request, and what its answer has to be."""
    sent = None if body is None else json.dumps(body)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}

    def ask(connection: http.client.HTTPConnection, number: int) -> None:
        connection.request(method, path(number), sent, headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == status, said

    return ask


class Place:
    """A herd with a gateway, and the bare routes beside it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        from herder.host import home
        from herder.local.local_herd import LocalHerd
        from herder.settings import load_policy, load_settings

        redis = stack.enter_context(redis_server(folder))
        self.settings = load_settings(folder / "home", redis_url=redis)
        home.init(self.settings, load_policy(folder / "home"), deposit=10**12)
        self.env = {
            **QUIET,
            **COUNTED,
            "HERD_HOME": str(self.settings.home),
            "HERD_REDIS_URL": redis,
        }
        self.herd = LocalHerd(self.settings)
        stack.callback(self.herd.close)
        self.herd.accounts.set_limits("default", max_open_orders=0, tokens_per_minute=0)
        _, self.key = self.herd.api_keys.create("default")
        port = free_port()
        command = ["-c", "from herder.cli import main; main()", "gateway", "--port", str(port)]
        self.url = stack.enter_context(served(command, port, self.env, folder / "gateway.log"))
        port = free_port()
        command = ["-m", "tests.bench.bare_routes", self.settings.database, str(port)]
        self.bare = stack.enter_context(served(command, port, self.env, folder / "bare.log"))

    def round(self, requests: int) -> dict[str, dict[str, float]]:
        """One round: writes and reads, of both."""
        order = {"prompt": "What is the meaning of life?", "tokens": 20, "fee": 54}
        write = asking("POST", lambda _: "/rows", {"said": order["prompt"]}, 202)
        submit = asking("POST", lambda _: "/v1/orders", order, 202, self.key)
        found = {"bare_post": load(self.bare, write, requests)}
        found["post"] = load(self.url, submit, requests)
        known = [one.order for one in self.herd.orders(limit=1000)]
        read = asking("GET", lambda n: f"/rows/{1 + n % 100}", None, 200)
        get = asking("GET", lambda n: f"/v1/orders/{known[n % len(known)]}", None, 200, self.key)
        found["bare_get"] = load(self.bare, read, requests)
        found["get"] = load(self.url, get, requests)
        return found


def first_token_ms(folder: Path, tries: int) -> tuple[list[float], list[float]]:
    """Milliseconds from the call of `submit` to the first text: in process, and over HTTP."""
    from herder.client import Order
    from herder.client.http.client import Client

    local, remote = [], []
    with ExitStack() as stack:
        place = Place(stack, folder)
        worker = {**place.env, "HERD_ENGINE": "stub", "HERD_STUB_STEP_MS": "5"}
        for queue, app in (("herder", "herder"), ("inference", "workers")):
            log = folder / f"{queue}.log"
            stack.enter_context(celery_process(app, queue, log, worker))
        wait_for(lambda: place.herd.info().model.workers == 1, 60, "the worker")
        client = stack.enter_context(Client(place.url, place.key))
        for number in range(tries + 2):
            for took, submit in (
                (local, lambda: Order(place.herd, place.herd.submit("Hi", 8, fee=20))),
                (remote, lambda: client.submit("Hi", 8, fee=20)),
            ):
                begin_s = time.perf_counter()
                text = submit().stream()
                next(text)
                if number > 1:
                    took.append(1e3 * (time.perf_counter() - begin_s))
                list(text)
    return local, remote


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="of each kind, a round (2000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON only")
    given = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as name:
        with ExitStack() as stack:
            place = Place(stack, Path(name))
            place.round(100)
            for number in range(1, given.rounds + 1):
                rounds.append(place.round(given.requests))
                speeds = ", ".join(f"{who} {f['per_s']:.0f}" for who, f in rounds[-1].items())
                say(f"round {number}, requests a second: {speeds}")
        folder = Path(name) / "first"
        folder.mkdir()
        local, remote = first_token_ms(folder, 40)

    def ratio(one: str, other: str) -> float:
        return statistics.median(found[one]["per_s"] / found[other]["per_s"] for found in rounds)

    ratios = {
        "post_vs_bare_route": round(ratio("post", "bare_post"), 3),
        "get_vs_bare_route": round(ratio("get", "bare_get"), 3),
        "first_token_added_ms": round(statistics.median(remote) - statistics.median(local), 2),
    }
    target = ROOT / "build" / "bench" / "gateway.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(ratios) + "\n")
    if given.json:
        sys.stdout.write(json.dumps(ratios) + "\n")
        return 0
    sys.stdout.write(f"{'':12}{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>10}\n")
    for who in rounds[0]:
        middle = {
            figure: statistics.median(found[who][figure] for found in rounds)
            for figure in ("per_s", "p50_ms", "p99_ms")
        }
        sys.stdout.write(
            f"{who:12}{middle['per_s']:12.0f}{middle['p50_ms']:10.1f}{middle['p99_ms']:10.1f}\n"
        )
    sys.stdout.write(
        f"first token: {statistics.median(local):.1f} ms in process, "
        f"{statistics.median(remote):.1f} ms over HTTP\n"
    )
    for key, value in ratios.items():
        sys.stdout.write(f"{key:24}{value:8.3f}   aim {AIMS[key]:g}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
