"""The output of commands: tables for people, JSON for programs, one line for an error.

Texts of others (notes, references, answers) reach a terminal without their control characters,
since those could rewrite what stands on it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from herder.types import Receipt

_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")
UNFOLDED = 10_000
"""Characters a line of a table that nobody reads on a terminal."""
_SHOWN_CONTROLS = {code: "�" for code in _CONTROLS if chr(code) not in "\n\t"}


def one_line(text: object) -> str:
    """Return a text as one line without control characters."""
    return str(text).translate(_CONTROLS)


def complain(message: str) -> None:
    """Say on standard error what went wrong, or what a reader waits for, in one line."""
    sys.stderr.write(one_line(message) + "\n")
    sys.stderr.flush()


def say(line: str) -> None:
    """Print a line of the answer; it is there at once, be it in a file or a pipe."""
    sys.stdout.write(one_line(line) + "\n")
    sys.stdout.flush()


def write_text(text: str) -> None:
    """Print a piece of generated text at once; a terminal gets no control characters."""
    sys.stdout.write(text.translate(_SHOWN_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document: the whole of standard output."""
    # Names and texts stay readable wherever they can be written.
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not unicode) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people.

    Args:
        columns: their titles; `!` before one keeps its cells whole, `>` too, and to the right.
        rows: cells; None is a dash.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in columns:
        table.add_column(
            title.lstrip("!>"),
            justify="right" if title.startswith(">") else "left",
            no_wrap=title.startswith(("!", ">")),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*("-" if cell is None else one_line(cell) for cell in row))
    # What goes to a file or another program is as wide as it is, unless the environment says how
    # wide a line may be.
    narrow = sys.stdout.isatty() or "COLUMNS" in os.environ
    width = None if narrow else UNFOLDED
    console = Console(markup=False, highlight=False, emoji=False, file=sys.stdout, width=width)
    console.print(table)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line; what is None is left out."""
    shown = [(name, one_line(value)) for name, value in facts if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{name:<{width}}  {value}\n")


UNREADABLE = "unreadable"


def when(at_us: int) -> str:
    """Return a moment as the clock on the wall shows it; of other years, the day alone."""
    try:
        moment = datetime.fromtimestamp(at_us // 1_000_000, tz=UTC).astimezone()
    except (ValueError, OverflowError, OSError):
        return UNREADABLE  # no calendar has it; the rest of the list is shown
    if moment.year != datetime.now(tz=UTC).astimezone().year:
        return f"{moment:%Y-%m-%d}"
    return f"{moment:%m-%d %H:%M:%S}"


def seconds(milliseconds: int | None) -> str | None:
    """Return a duration for people: 1250 is `1.2 s`."""
    if milliseconds is None:
        return None
    return f"{milliseconds // 1000}.{milliseconds % 1000 // 100} s"


# Receipts


def receipt_line(receipt: Receipt) -> str:
    """Return a receipt in one line."""
    parts = [
        f"{receipt.state}: charged {receipt.charged} of {receipt.fee} winston"
        if receipt.held == 0
        else f"{receipt.state}: {receipt.held} winston held",
        f"needed {receipt.needed} x {receipt.multiplier}",
        f"{receipt.words} word{'' if receipt.words == 1 else 's'}",
        f"{receipt.generated} of {receipt.tokens} tokens",
    ]
    if receipt.worker is not None:
        parts.append(f"worker {receipt.worker}")
    if receipt.waited_ms is not None:
        parts.append(f"waited {seconds(receipt.waited_ms)}")
    if receipt.took_ms is not None:
        parts.append(f"took {seconds(receipt.took_ms)}")
    return f"[{', '.join(parts)}; order {receipt.order}]"


def print_receipt(receipt: Receipt, notes: Iterable[tuple[str, object]] = ()) -> None:
    """Print a receipt in full, and what was noted with its order."""
    failure = receipt.failure or {}
    print_facts(
        [
            ("order", receipt.order),
            ("account", receipt.account),
            ("model", receipt.model),
            ("state", receipt.state),
            ("failure", failure.get("message") or failure.get("code")),
            ("submitted", when(receipt.submitted_us)),
            ("waited", seconds(receipt.waited_ms)),
            ("took", seconds(receipt.took_ms)),
            ("worker", receipt.worker),
            ("weights", receipt.weights),
            ("attempts", receipt.attempts),
            ("words", receipt.words),
            ("tokens", f"{receipt.generated} generated of {receipt.tokens}"),
            (
                "rates",
                f"{receipt.rates.prompt_fee} per prompt, {receipt.rates.fee_per_token} per token",
            ),
            ("needed", receipt.needed),
            ("fee", f"{receipt.fee}{' (automatic)' if receipt.automatic else ''}"),
            ("multiplier", receipt.multiplier),
            ("bid factor", receipt.bid_factor if receipt.bid_factor != "1" else None),
            ("held", receipt.held or None),
            ("charged", receipt.charged),
            ("returned", receipt.returned),
            ("refunded", receipt.refunded or None),
            ("reference", receipt.reference),
            *notes,
        ]
    )
