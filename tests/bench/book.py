"""What order intake does with 1,000, 100,000 and 1,000,000 orders waiting, in microseconds.

    make bench-book

A book must not get slower as it grows. On SQLite (a file on the disk, WAL, synchronous=FULL) and on
a PostgreSQL of the benchmark's own (its defaults, durable), three books stand side by side, loaded
in bulk (`tests/bench/book_load.py`). In each round each book in turn takes one order (`submit`),
sends its best one out (`dispatch`, with a worker of one slot and a broker that does nothing),
raises the fee of one (`rebid`), cancels one (`cancel`) and quotes one, place and wait and what the
usual other bids would buy included (`place`); so that whatever else the machine does, it does to
all three. What was dispatched is settled, and another order submitted for the one cancelled,
between the measurements.

Ratios go to build/bench/book.json: `sqlite_submit_p50_1m_vs_1k` and so on. What was loaded is then
in the system's memory as a rule. PostgreSQL's statistics are made after the loading, as autovacuum
makes them within a minute; SQLite has none, as in a herd.

Measured on two shared cores kept quiet, Python 3.11.7, SQLite 3.40.1, PostgreSQL 15 (us),
1000 rounds, in five and a half minutes, once:

    sqlite       p50 1k   100k     1m   ratio    p99 1k      1m   ratio
    submit          951  1,024  1,027    1.08     1,563   1,641    1.05
    dispatch      1,667  1,658  1,744    1.05     2,652   2,635    0.99
    rebid         1,064  1,136  1,146    1.08     1,638   1,898    1.16
    cancel          896    954    979    1.09     1,431   1,462    1.02
    place         1,219  1,211  1,577    1.29     2,020   2,451    1.21

    postgres
    submit        3,178  3,619  3,525    1.11     5,664   6,085    1.07
    dispatch      4,948  5,444  5,536    1.12     8,680   9,082    1.05
    rebid         4,030  4,550  4,525    1.12     6,937   7,056    1.02
    cancel        3,163  3,642  3,639    1.15     5,557   5,986    1.08
    place         3,011  3,888  3,836    1.27     5,187   6,705    1.29

What grew before, and is mended (SQLite, a thousand beside a million, on a busy machine): a dispatch
took 3.2 and 362 ms, since what is out with the herd was asked for with parameters, for which SQLite
takes no partial index: it read all orders, twice. A quote took 3.3 and 483 ms: the same three
times, and 0.6 and 2.9 ms in counting places, which read the orders and not the index alone (now
0.14). What still grows: a write finds a cold page in each of some eight indexes; a place counts up
to 1,001 orders where the smallest book has 500, and then reads the survey.

`place` above is of quotes that were not signed and compared no bids. Signed, with no other bid, the
usual eight or nine, and twenty, one took (p50 in us, two times 300, on a machine with others at
work; each bid is one query that counts on from the one before, until 1,001 are counted):

    sqlite    1k      725-747     1,073-1,150   1,447-1,483
              100k    845-864       979-996     1,027-1,046
    postgres  1k    1,765-1,785   3,090-3,746   5,422-5,474
              100k  2,265-2,648   2,565-2,775   2,384-2,444
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from herder.settings import Settings, load_settings  # noqa: E402
from tests.bench.book_herd import Book, say  # noqa: E402

SIZES = (1_000, 100_000, 1_000_000)
AIM = 1.5
WARM_UP = 50
"""Rounds that do not count: connections, statements and pages become what they stay."""


WHAT = ("submit", "dispatch", "rebid", "cancel", "place")

Samples = dict[tuple[str, int], list[float]]


def measure(books: Sequence[Book], rounds: int, name: str) -> Samples:
    """Microseconds of each step on each book, round by round."""
    taken: Samples = {(what, book.size): [] for what in WHAT for book in books}
    begin = time.monotonic()
    gc.collect()
    gc.freeze()
    for number in range(-WARM_UP, rounds):
        # Who comes first in one round comes last in the next.
        turn = books[:: 1 if number % 2 else -1]
        for what in WHAT:
            for book in turn:
                step = getattr(book, what)()
                start = time.perf_counter_ns()
                step()
                spent = time.perf_counter_ns() - start
                if number >= 0:
                    taken[what, book.size].append(spent / 1_000)
        for book in turn:
            book.restore()
        if number % 200 == 0:
            say(f"{name}: round {number} of {rounds}, {time.monotonic() - begin:.0f} s")
    gc.unfreeze()
    return taken


@contextmanager
def sqlite_settings(sizes: Sequence[int], folder: Path) -> Iterator[list[Settings]]:
    """A herd's folder for each size, its database in it."""
    yield [load_settings(folder / f"sqlite{size}") for size in sizes]


@contextmanager
def postgres_settings(sizes: Sequence[int], folder: Path) -> Iterator[list[Settings]]:
    """A herd's folder for each size; a server of our own keeps the databases."""
    from tests.support.postgres_server import PostgresServer

    server = PostgresServer(hasty=False, settings=POSTGRES)
    try:
        yield [
            load_settings(
                folder / f"postgres{size}", database_url=server.url(server.new_database())
            )
            for size in sizes
        ]
    finally:
        server.close()


POSTGRES = """\
shared_buffers = 128MB
autovacuum_naptime = 1min
"""
"""What PostgreSQL has by default, and the tests' server does not."""


def run(kind: str, sizes: Sequence[int], rounds: int, folder: Path) -> Samples:
    """Load the books of one database, and measure them."""
    settings_of = sqlite_settings if kind == "sqlite" else postgres_settings
    with ExitStack() as stack:
        books = [
            Book(settings, size)
            for settings, size in zip(
                stack.enter_context(settings_of(sizes, folder)), sizes, strict=True
            )
        ]
        for book in books:
            stack.callback(book.database.close)
            book.load()
            book.check()
        os.sync()  # what the loading left to be written is not the measurements'
        taken = measure(books, rounds, kind)
        for book in books:
            book.check()
        return taken


def short(size: int) -> str:
    """1k, 100k, 1m."""
    for unit, suffix in ((1_000_000, "m"), (1_000, "k")):
        if size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def percentile(values: Sequence[float], percent: int) -> float:
    """Of values as they were taken; 50 is the median."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def compare(kind: str, taken: Samples, sizes: Sequence[int]) -> dict[str, float]:
    """Each percentile on each bigger book beside the smallest."""
    least, *others = sizes
    return {
        f"{kind}_{what}_p{percent}_{short(size)}_vs_{short(least)}": round(
            percentile(taken[what, size], percent) / percentile(taken[what, least], percent), 3
        )
        for what in WHAT
        for percent in (50, 99)
        for size in others
    }


def table(kind: str, taken: Samples, sizes: Sequence[int]) -> str:
    """The percentiles in microseconds, and the biggest book's beside the smallest's."""
    least, most = sizes[0], sizes[-1]
    head = "".join(f"{f'p50 {short(size)}':>11}{f'p99 {short(size)}':>11}" for size in sizes)
    lines = [f"{kind + ', us':<18}{head}{'p50 ratio':>11}{'p99 ratio':>11}"]
    for what in WHAT:
        cells = "".join(
            f"{percentile(taken[what, size], percent):>11,.0f}"
            for size in sizes
            for percent in (50, 99)
        )
        ratio, tail = (
            percentile(taken[what, most], percent) / percentile(taken[what, least], percent)
            for percent in (50, 99)
        )
        met = "met" if ratio <= AIM else "missed"
        lines.append(f"{what:<18}{cells}{ratio:>11.2f}{tail:>11.2f}   aim {AIM:g}: {met}")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [int(size) for size in text.split(",")],
        default=list(SIZES),
        help="orders that wait, smallest first (1000,100000,1000000)",
    )
    parser.add_argument("--rounds", type=int, default=1000, help="samples of each (1000)")
    parser.add_argument("--only", choices=("sqlite", "postgres"), help="measure one database")
    parser.add_argument("--json", action="store_true", help="print the ratios as JSON only")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("HERD_")]:
        del os.environ[name]  # whoever runs it may have a herd of their own
    kinds = [given.only] if given.only else ["sqlite", "postgres"]
    if "postgres" in kinds and (why := no_postgres()):
        say(f"PostgreSQL is not measured: {why}")
        kinds.remove("postgres")
    target = ROOT / "build" / "bench" / "book.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    ratios: dict[str, float] = {}
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="book-", dir=target.parent) as folder:
            taken = run(kind, given.sizes, given.rounds, Path(folder))
        ratios |= compare(kind, taken, given.sizes)
        if not given.json:
            sys.stdout.write(table(kind, taken, given.sizes) + "\n\n")
            sys.stdout.flush()
    target.write_text(json.dumps(ratios) + "\n")
    if given.json:
        sys.stdout.write(json.dumps(ratios) + "\n")
    return 0


def no_postgres() -> str | None:
    """Why PostgreSQL cannot be measured here; None if it can."""
    try:
        from tests.support.postgres_server import why_not
    except ImportError as error:
        return f"its driver is not installed ({error})"
    return why_not()


if __name__ == "__main__":
    sys.exit(main())
