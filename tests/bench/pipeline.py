"""Orders per second through the whole paid pipeline, beside bare Celery in the same run.

    make bench-pipeline
    .venv/bin/python tests/bench/pipeline.py --broker rabbitmq --orders 500

Every order is held, dispatched, run on the deterministic model, settled, and durable on disk
(SQLite, WAL, synchronous=FULL). Beside it, on the same Redis: *bare* Celery as it comes (prefork,
default settings) doing no-op tasks with a `link` callback, and *tuned* Celery with this project's
settings doing a no-op and a reply task. Rounds alternate, the medians are compared.
`refill`: from the end of one order to the start of the next on a worker with all slots busy.
`idle start`: from the return of `submit` on an idle herd to the engine's start.
With `--broker rabbitmq` all three send their tasks through a RabbitMQ of the benchmark's own; Redis
still carries heartbeats and texts, and counts the peers' tasks.

Where the time goes (two shared cores, CPU milliseconds an order): herder 2.9 to 3.2, worker 2.3 to
3.1, client 1.9 to 2.1, Redis 0.25. Of a submission's 4 ms on the clock: 1.7 waiting for the write
lock, 0.9 in the commit (its fsync), 1.1 in SQL. The lock is the limit: submissions, settlements,
dispatches and beats take turns at it, a transaction of the herder holding it for 5 to 10 ms under
load. Of a herder's own Python about 40 % is settlement and dispatch, 35 % Celery's consumer, 20 %
beats. Taken down so far: one message for each outcome and each claim (they now go out together),
one broker round trip for each dispatch (22.9 to 4.4 ms for a batch of seven), a nudge for each
submission, a transaction for each claim: 14.9 to 7.2 ms of CPU an order in all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[2]))

import redis

from tests.bench.servers import ROOT, celery_process, redis_server, wait_for
from tests.support.rabbit_server import RabbitServer, find_scripts
from workers.transport.tasks import NewTask

QUIET = {"HERD_EVENTS": "false", "HERD_LOG_LEVEL": "WARNING"}


def say(line: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def bare(folder: Path, url: str, count: int) -> float:
    """No-ops with a callback a second, on Celery as it comes."""
    client = redis.Redis.from_url(url)
    client.delete("bench:done")
    from tests.bench.bare_app import done, noop

    env: dict[str, str] = {}
    with celery_process("tests.bench.bare_app", "celery", folder / "bare.log", env):
        noop.apply_async((0,), link=done.s())
        wait_for(lambda: int(client.get("bench:done") or 0) >= 1, 60, "the first no-op")
        begin = time.monotonic()
        for number in range(count):
            noop.apply_async((number,), link=done.s())
        wait_for(lambda: int(client.get("bench:done") or 0) > count, 300, "the no-ops")
        return count / (time.monotonic() - begin)


def tuned(folder: Path, url: str, count: int) -> float:
    """No-ops with a reply task a second, with this project's settings."""
    client = redis.Redis.from_url(url)
    client.delete("bench:done")
    from tests.bench import tuned_app

    with ExitStack() as stack:
        for queue in ("inference", "herder"):
            env = {"BENCH_QUEUE": queue}
            log = folder / f"tuned-{queue}.log"
            stack.enter_context(
                celery_process("tests.bench.tuned_app", queue, log, env, "-l", "WARNING")
            )

        def send(number: int) -> None:
            task = NewTask("inference", "bench.there", "x" * 600, f"t{number}", "")
            tuned_app._sender.publish_many([task])

        send(0)
        wait_for(lambda: int(client.get("bench:done") or 0) >= 1, 60, "the first no-op")
        begin = time.monotonic()
        for number in range(1, count + 1):
            send(number)
        wait_for(lambda: int(client.get("bench:done") or 0) > count, 300, "the no-ops")
        return count / (time.monotonic() - begin)


class Herd:
    """A herd with one worker of the deterministic model, and a client in this process."""

    def __init__(self, stack: ExitStack, folder: Path, url: str, **worker: str) -> None:
        from herder.host import home
        from herder.local.local_herd import LocalHerd
        from herder.settings import load_policy, load_settings

        place = folder / f"home-{uuid4().hex[:6]}"
        broker = os.environ["BENCH_BROKER"]
        self.settings = load_settings(place, redis_url=url, broker_url=broker)
        home.init(self.settings, load_policy(place), deposit=10**12)
        self.trace = folder / f"trace-{uuid4().hex[:6]}"
        env = {
            **QUIET,
            "HERD_HOME": str(place),
            "HERD_REDIS_URL": url,
            "HERD_BROKER_URL": broker,
            "HERD_ENGINE": "stub",
            "BENCH_TRACE": str(self.trace),
            **worker,
        }
        stack.enter_context(celery_process("herder", "herder", folder / "herder.log", env))
        stack.enter_context(
            celery_process("tests.bench.traced_worker", "inference", folder / "worker.log", env)
        )
        self.client = LocalHerd(self.settings)
        stack.callback(self.client.close)
        wait_for(lambda: self.client.info().model.workers == 1, 60, "the worker")
        self.client.result(self.client.submit("warm up", 3).order, 60)

    def events(self, kind: str) -> list[tuple[int, str]]:
        """(nanoseconds, attempt) of what the worker's engine did, in order."""
        lines = (line.split() for line in self.trace.read_text().splitlines())
        return sorted((int(at), key) for what, at, key in lines if what == kind)


def pipeline(folder: Path, url: str, count: int) -> float:
    """Paid orders a second, from the first submission to the last settlement."""
    with ExitStack() as stack:
        herd = Herd(stack, folder, url, HERD_SLOTS="16")
        begin = time.monotonic()
        last = [herd.client.submit(f"Order {n}", 4, fee=20).order for n in range(count)]
        for order in reversed(last):
            herd.client.result(order, 300)
        took = time.monotonic() - begin
        report = herd.client.accounts.audit()
        assert report.clean, report.drifts
        assert report.open_holds == 0
        return count / took


def refill_ms(folder: Path, url: str, count: int) -> list[float]:
    """Milliseconds from the end of an order to the start of the next, all slots busy."""
    slots = 4
    with ExitStack() as stack:
        herd = Herd(stack, folder, url, HERD_SLOTS=str(slots), HERD_STUB_STEP_MS="10")
        orders = [herd.client.submit(f"Order {n}", 6, fee=20).order for n in range(count)]
        for order in orders:
            herd.client.result(order, 300)
        ends, starts = herd.events("end")[1:], herd.events("start")[1:]
    pairs = zip(ends, starts[slots:], strict=False)
    return [(start - end) / 1e6 for (end, _), (start, _) in pairs]


def idle_start_ms(folder: Path, url: str, count: int) -> list[float]:
    """Milliseconds from the return of `submit` on an idle herd to the engine's start."""
    took = []
    with ExitStack() as stack:
        herd = Herd(stack, folder, url, HERD_SLOTS="4")
        for number in range(count):
            time.sleep(0.1)
            order = herd.client.submit(f"Order {number}", 2, fee=20).order
            returned = time.monotonic_ns()
            herd.client.result(order, 60)
            started = next(at for at, key in herd.events("start") if key.startswith(order))
            took.append((started - returned) / 1e6)
    return took


@contextmanager
def servers(folder: Path, broker: str) -> Iterator[str]:
    """Redis, and RabbitMQ if that is the broker, as the peers find them; gives Redis' address.

    RabbitMQ's queues stay between rounds, each of which takes out all that it put in: senders in
    this process declare theirs once.
    """
    with ExitStack() as stack:
        url = stack.enter_context(redis_server(folder))
        os.environ |= {"BENCH_REDIS": url, "BENCH_BROKER": ""}
        if broker == "rabbitmq":
            rabbit = RabbitServer(folder / "rabbit")
            stack.callback(rabbit.close)
            os.environ["BENCH_BROKER"] = rabbit.url()
        yield url


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", type=int, default=2000, help="orders a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON only")
    given = parser.parse_args()
    if given.broker == "rabbitmq" and find_scripts() is None:
        say("Nothing is measured: RabbitMQ is not installed (Debian's rabbitmq-server).")
        return 0
    rates: dict[str, list[float]] = {"pipeline": [], "bare": [], "tuned": []}
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as name:
        folder = Path(name)
        with servers(folder, given.broker) as url:
            for number in range(given.rounds):
                for kind, run in (("pipeline", pipeline), ("bare", bare), ("tuned", tuned)):
                    redis.Redis.from_url(url).flushall()
                    rates[kind].append(run(folder, url, given.orders))
                    say(f"round {number + 1}: {kind} {rates[kind][-1]:.0f}/s")
            redis.Redis.from_url(url).flushall()
            refill = refill_ms(folder, url, 200)
            idle = idle_start_ms(folder, url, 40)
    middle = {kind: statistics.median(values) for kind, values in rates.items()}
    ratios = {
        "vs_bare_celery": round(middle["pipeline"] / middle["bare"], 3),
        "vs_tuned_celery": round(middle["pipeline"] / middle["tuned"], 3),
        "refill_ms_p50": round(statistics.median(refill), 2),
        "idle_start_ms_p50": round(statistics.median(idle), 2),
    }
    name = "pipeline" if given.broker == "redis" else f"pipeline-{given.broker}"
    target = ROOT / "build" / "bench" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(ratios) + "\n")
    if given.json:
        sys.stdout.write(json.dumps(ratios) + "\n")
        return 0
    rows = [
        ("paid pipeline", f"{middle['pipeline']:.0f} orders/s", ""),
        ("bare Celery, link callback", f"{middle['bare']:.0f} tasks/s", "aim 1.0 of it"),
        ("tuned Celery, reply task", f"{middle['tuned']:.0f} tasks/s", "aim 0.5 of it"),
        ("pipeline / bare", f"{ratios['vs_bare_celery']:.2f}", "aim 1.0"),
        ("pipeline / tuned", f"{ratios['vs_tuned_celery']:.2f}", "aim 0.5"),
        ("refill, median", f"{ratios['refill_ms_p50']:.1f} ms", "aim 20"),
        ("idle start, median", f"{ratios['idle_start_ms_p50']:.1f} ms", "aim 30"),
    ]
    for row in rows:
        sys.stdout.write(f"{row[0]:<30}{row[1]:>18}  {row[2]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
