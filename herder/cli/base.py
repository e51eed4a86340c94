"""The base of all commands: how errors end one, words become numbers, and a herd is opened.

Heavy modules (the database's, the keys') are loaded by the command that needs them, so that
`herd --help` answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from typer.core import TyperGroup

from herder.cli.show import complain
from herder.client.optional import missing
from herder.errors import (
    DatabaseVersionMismatch,
    HerdError,
    HerdUnavailable,
    InvalidIdempotencyKey,
    InvalidRequest,
    OrderEnded,
    OrderSetAside,
    RateLimited,
    ResultTimeout,
    SetupError,
)

if TYPE_CHECKING:
    from herder.interface import BuyerHerd
    from herder.local.local_herd import LocalHerd

NOT_DONE = 1
REFUSED = 2
WRONG_VERSION = 78
"""EX_CONFIG of sysexits.h, as herders and workers end: starting again would not help."""
INTERRUPTED = 130

MONEY = {"ignore_unknown_options": True}
"""For commands whose arguments are amounts: `-3` is refused as an amount, not as an option."""

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
TransferId = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="UUID",
        help="The idempotency key: repeated with the same key, the call moves money only once. "
        "Generated and shown by default.",
    ),
]
Note = Annotated[
    str | None, typer.Option("--note", help="A note of your own, shown in the statement.")
]


class HerdGroup(TyperGroup):
    """The root of the commands: whatever goes wrong is one line and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and end the process with its exit code."""
        try:
            _require_text(sys.argv[1:] if args is None else args)
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except HerdError as error:
            complain_of(error)
            code = exit_code(error)
        except ModuleNotFoundError as error:
            told = missing(error)
            if told is None:
                raise
            told = _away_from_home() or told
            complain(told.message)
            code = exit_code(told)
        except Exception as error:
            # Typer's own refusals; whatever else there is, is a defect and keeps its traceback.
            code = _usage_code(error) or _outage_code(error)
            if code is None:
                raise
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def complain_of(error: HerdError) -> None:
    """Say what went wrong; beside the herder, what its operator may type about it too."""
    hint = f" {error.hint}" if error.hint and is_at_home() else ""
    complain(f"{error.message}{hint}")


def exit_code(error: HerdError) -> int:
    """Return the exit code that an error ends a command with."""
    if isinstance(error, DatabaseVersionMismatch):
        return WRONG_VERSION
    if isinstance(error, (OrderEnded, OrderSetAside, ResultTimeout, HerdUnavailable, RateLimited)):
        return NOT_DONE
    return REFUSED


def _usage_code(error: Exception) -> int | None:
    say = getattr(error, "format_message", None)
    if say is None:
        return None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "herd"
    complain(f"{path}: {str(say()).rstrip('.')}; see `{path} --help`.")
    return REFUSED


def _outage_code(error: Exception) -> int | None:
    from workers.transport.reasons import is_redis_error, redis_sentence

    if not is_redis_error(error):
        return None
    complain(redis_sentence(error))
    return NOT_DONE


def _require_text(args: Sequence[str]) -> None:
    """Refuse what is not text: no database and no JSON would take it.

    Raises:
        InvalidRequest: an argument holds bytes that are no UTF-8.
    """
    for place, arg in enumerate(args, 1):
        try:
            arg.encode()
        except UnicodeEncodeError:
            raise InvalidRequest(f"Argument {place} is not valid UTF-8 text.") from None


def whole(text: str) -> Any:
    """Return a whole number as typed, as an int.

    Anything else stays the text that it is, for the herd to refuse by name.

    >>> whole("12"), whole("1.5"), whole("-3")
    (12, '1.5', '-3')
    """
    return int(text) if re.fullmatch(r"[0-9]{1,30}", text) else text


def optional_whole(text: str | None) -> Any:
    """`whole`, of what may be missing."""
    return None if text is None else whole(text)


def fee_of(text: str | None) -> Any:
    """Return a fee as typed: `base`, or as `optional_whole`."""
    return text if text == "base" else optional_whole(text)


def optional_number(text: str | None) -> Any:
    """Return a number as typed, if there is one; what is none stays text, as in `whole`.

    >>> optional_number("0.5"), optional_number("1"), optional_number("hot")
    (0.5, 1, 'hot')
    """
    if text is None or not re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?", text):
        return text
    return float(text) if "." in text else int(text)


def amount_of(text: str) -> int:
    """Return an amount of money as typed, in winston.

    Raises:
        InvalidAmount: no whole number, or out of range.
    """
    from herder.domain.parsing import parse_amount

    return parse_amount(whole(text))


def transfer_id_of(text: str | None) -> str:
    """Return an idempotency key as typed, or a fresh one.

    Raises:
        InvalidIdempotencyKey: the key is not a UUID.
    """
    if text is None:
        return str(uuid4())
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text.lower()):
        raise InvalidIdempotencyKey(
            f"--id must be a UUID, such as {uuid4()}, not {text[:40]!r}.", key=text[:40]
        )
    return text.lower()


def read_text(path: Path, what: str, most_bytes: int) -> str:
    """Return a file that an option names, as text.

    Args:
        path: the file.
        what: what it is called in the sentence that refuses it.
        most_bytes: the longest that is read.

    Raises:
        InvalidRequest: it cannot be read, is too long, or no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise InvalidRequest(
            f"The {what} {str(path)!r} cannot be read ({error.strerror})."
        ) from None
    if len(content) > most_bytes:
        raise InvalidRequest(f"The {what} {str(path)!r} is longer than {most_bytes} bytes.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"The {what} {str(path)!r} is not UTF-8 text.") from None


@dataclass(frozen=True, slots=True)
class Named:
    """The herder that the command line names; the environment may name one too.

    Attributes:
        url: of `--url`.
        key_file: of `--api-key-file`.
    """

    url: str | None = None
    key_file: Path | None = None


_named: ContextVar[Named] = ContextVar("named", default=Named())  # noqa: B039 (it is frozen)


def name_herder(named: Named) -> None:
    """Remember which herder this command line names."""
    _named.set(named)


@contextmanager
def buying() -> Iterator[BuyerHerd]:
    """Open the herd to buy from: that of `--url` or `HERD_URL`, else that of `HERD_HOME`.

    Raises:
        SetupError: there is no herd; the sentence says `herd init`.
    """
    from herder.client.api import open_herd
    from herder.client.http.address import named_address

    named = _named.get()
    herd = open_herd(named_address(named.url, named.key_file))
    try:
        yield herd
    finally:
        herd.close()


@contextmanager
def opened() -> Iterator[LocalHerd]:
    """Open the herd of `HERD_HOME`, for commands that are not a buyer's.

    Raises:
        SetupError: there is no herd, or another herder is named.
    """
    require_home()
    from herder.local.local_herd import LocalHerd
    from herder.settings import load_settings

    herd = LocalHerd(load_settings())
    try:
        yield herd
    finally:
        herd.close()


def require_home() -> None:
    """Refuse a command that works on the herder's machine alone where another one is named.

    Raises:
        SetupError: another herder is named.
    """
    told = _away_from_home()
    if told is not None:
        raise told


def is_at_home() -> bool:
    """Return whether commands work on the herd of `HERD_HOME`, not on one elsewhere."""
    return _away_from_home() is None


def _away_from_home() -> SetupError | None:
    """Return the refusal of a command that needs the herder's machine, if another is named."""
    named = "--url" if _named.get().url is not None else "HERD_URL"
    if named == "HERD_URL" and not os.environ.get("HERD_URL"):
        return None
    return SetupError(
        f"This command works only on the herder's own machine, on its HERD_HOME, but {named} "
        f"names a herder elsewhere. Run it there without {named}."
    )
