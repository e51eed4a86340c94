"""Messages and their answers, tag by tag: the original's and ours. Pure.

Sent, and answered in the inbox:

- `Info`: `Info-Response` with `Name`, `Version`, `Base-Fee`, `Token-Fee`, `Last-Multiplier`,
  `Queue-Length` and a sentence as `Data`.
- `Balance` (ours): `Balance-Response` with `Balance`, what may be spent, and `Held`.
- `Transfer` with `Recipient` = `herder`, `Quantity`, `X-Prompt`, `X-Tokens`, and as one likes
  `X-Termination` and `X-Reference`: an order. At its end `Inference-Response` with `X-Reference`
  and the text as `Data`; or (ours) `Inference-Failed` with `X-Reference`, `X-Reason` and
  `Returned`: `herder/messages/inbox.py`.
- The same, refused: the `Transfer` back, with `Recipient`, `Quantity` and `X-Reason`. Where the fee
  is too low that is `Insufficient payment`, and `X-Needed` says what was needed. Nothing was held.
- `Transfer` without `X-Prompt`: money for another account, told as the original's token did by
  `Debit-Notice` to who pays and `Credit-Notice` to the `Recipient`, both with all `X-` tags of the
  message; or `Transfer-Error`. (An account that is called `herder` cannot be paid so.)

What is no message (an action that nobody knows, a tag that is missing or no text, a number that is
none) is an error at once; what is one and is not granted, for whatever reason, is answered in the
inbox. At a number that was none the original stopped with an error, and kept the money.

Tags that nobody asks for are passed over, as they were there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from herder.domain.order import OrderRequest
from herder.domain.parsing import parse_account, parse_amount, parse_submission
from herder.errors import FeeTooLow, HerdError, InvalidMessage, InvalidRequest, shown
from herder.messages.inbox import HERDER
from herder.types import Info, NamedBalance

MAX_TAGS = 32
MAX_NAME_CHARS = 100
MAX_VALUE_CHARS = 1024
"""Of each tag but the prompt, which has a bound of its own, and `Data`, which nobody reads."""

_LONG = frozenset({"X-Prompt", "Data"})
_WHOLE = re.compile(r"-?[0-9]{1,30}")


@dataclass(frozen=True, slots=True)
class InfoAsked:
    """A request for the herd's name and rates."""


@dataclass(frozen=True, slots=True)
class BalanceAsked:
    """A request for the sender's balance."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """A paid prompt; or the reason why it is invalid, which its sender is told later."""

    tags: Mapping[str, str]
    call: OrderRequest | InvalidRequest


@dataclass(frozen=True, slots=True)
class Payment:
    """A transfer to another account; or the reason why it is invalid."""

    tags: Mapping[str, str]
    payee: str
    amount: int
    wrong: InvalidRequest | None = None

    @property
    def passed(self) -> dict[str, str]:
        """The tags that both sides are shown."""
        return {name: value for name, value in self.tags.items() if name.startswith("X-")}


Asked = InfoAsked | BalanceAsked | Prompted | Payment


def parse_tags(body: object) -> dict[str, str]:
    """Return the tags of a message: an object, or the original's list of names and values.

    Raises:
        InvalidMessage: it is neither, a value is no text, or there is too much of it.
    """
    pairs = list(body.items()) if isinstance(body, dict) else _listed(body)
    if len(pairs) > MAX_TAGS:
        raise InvalidMessage(f"A message may have at most {MAX_TAGS} tags, not {len(pairs)}.")
    tags: dict[str, str] = {}
    for name, value in pairs:
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS or not _is_text(name):
            raise InvalidMessage(f"A tag's name must be text of 1 to {MAX_NAME_CHARS} characters.")
        if name in tags:
            raise InvalidMessage(f"The tag {shown(name)} is given twice.", name)
        if not isinstance(value, str):
            raise InvalidMessage(
                f"The tag {shown(name)} must be text, not {type(value).__name__}.", name
            )
        if not _is_text(value):
            raise InvalidMessage(
                f"The tag {shown(name)} contains a lone surrogate, which is not a character.", name
            )
        if len(value) > MAX_VALUE_CHARS and name not in _LONG:
            raise InvalidMessage(
                f"The tag {shown(name)} has more than {MAX_VALUE_CHARS} characters.", name
            )
        tags[name] = value
    return tags


def parse_message(
    tags: Mapping[str, str], *, account: str, api_key: str | None, max_prompt_bytes: int
) -> Asked:
    """Return the request in a message.

    Args:
        tags: of the message.
        account: who sends it.
        api_key: the id of the API key that it was sent with.
        max_prompt_bytes: the longest prompt taken here, in UTF-8 bytes.

    Raises:
        InvalidMessage: it asks for nothing that is known, or lacks a tag.
    """
    action = _needed(tags, "Action")
    if action == "Info":
        return InfoAsked()
    if action == "Balance":
        if tags.get("Recipient", account) != account:
            raise InvalidMessage("A balance is shown only to its own account.", "Recipient")
        return BalanceAsked()
    if action != "Transfer":
        raise InvalidMessage(
            f"Action must be Transfer, Info or Balance, not {shown(action)!r}.", "Action"
        )
    recipient, quantity = _needed(tags, "Recipient"), _whole(tags, "Quantity")
    if "X-Prompt" not in tags and recipient != HERDER:
        try:
            return Payment(tags, parse_account(recipient), parse_amount(quantity))
        except InvalidRequest as error:
            return Payment(tags, recipient, quantity, error)
    if recipient != HERDER:
        raise InvalidMessage(
            f"A prompt must be paid to the Recipient {HERDER!r}; to pay an account, leave out "
            "X-Prompt.",
            "Recipient",
        )
    prompt, tokens = _needed(tags, "X-Prompt"), _whole(tags, "X-Tokens")
    try:
        call = parse_submission(
            prompt,
            tokens,
            fee=quantity,
            stop=tags.get("X-Termination") or None,
            reference=tags.get("X-Reference"),
            account=account,
            api_key=api_key,
            max_prompt_bytes=max_prompt_bytes,
        )
    except InvalidRequest as error:
        return Prompted(tags, error)
    return Prompted(tags, call)


def _listed(body: object) -> list[tuple[object, object]]:
    if not isinstance(body, list) or not all(
        isinstance(one, dict) and set(one) == {"name", "value"} for one in body
    ):
        raise InvalidMessage(
            'A message must be an object of tags, {"Action": "Info"}, or a list of {"name": '
            '"Action", "value": "Info"}.'
        )
    return [(one["name"], one["value"]) for one in body]


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _needed(tags: Mapping[str, str], name: str) -> str:
    if name not in tags:
        raise InvalidMessage(f"The tag {name} is missing.", name)
    return tags[name]


def _whole(tags: Mapping[str, str], name: str) -> int:
    text = _needed(tags, name)
    if not _WHOLE.fullmatch(text):
        raise InvalidMessage(f"{name} must be a whole number, not {shown(text)!r}.", name)
    return int(text)


# What is said back


def info_tags(info: Info) -> dict[str, str]:
    """Return the default model's rates and queue, under the original's names."""
    model = info.model
    workers = f"{model.workers} worker{'' if model.workers == 1 else 's'}"
    return {
        "Action": "Info-Response",
        "Name": info.name,
        "Version": info.version,
        "Base-Fee": str(model.rates.prompt_fee),
        "Token-Fee": str(model.rates.fee_per_token),
        "Last-Multiplier": model.last_multiplier,
        "Queue-Length": str(model.queue_length),
        "Data": f"{info.name} sells answers from {model.name}, run by a herd of {workers}: the "
        "best-paid prompt runs first.",
    }


def balance_tags(found: NamedBalance) -> dict[str, str]:
    """Return an account's available money, and how much is held for orders."""
    return {
        "Action": "Balance-Response",
        "Account": found.account,
        "Balance": str(found.available),
        "Held": str(found.held),
        "Data": str(found.available),
    }


def returned_tags(asked: Prompted, payer: str, error: HerdError) -> dict[str, str]:
    """Return the payment for a prompt back; nothing of it was taken."""
    back = {
        "Action": "Transfer",
        "Recipient": payer,
        "Quantity": asked.tags["Quantity"],
        "X-Reason": error.message,
        "X-Code": error.code,
        "Data": error.message,
    }
    if isinstance(error, FeeTooLow):
        back |= {"X-Reason": "Insufficient payment", "X-Needed": str(error.data["needed"])}
    if "X-Reference" in asked.tags:
        back["X-Reference"] = asked.tags["X-Reference"]
    return back


def debit_tags(asked: Payment) -> dict[str, str]:
    """Return the message to the account that paid."""
    return {
        **asked.passed,
        "Action": "Debit-Notice",
        "Recipient": asked.payee,
        "Quantity": str(asked.amount),
        "Data": f"You sent {asked.amount} winston to {asked.payee}.",
    }


def credit_tags(asked: Payment, payer: str) -> dict[str, str]:
    """Return the message to the account that was paid."""
    return {
        **asked.passed,
        "Action": "Credit-Notice",
        "Sender": payer,
        "Quantity": str(asked.amount),
        "Data": f"You received {asked.amount} winston from {payer}.",
    }


def error_tags(asked: Payment, message_id: str, error: HerdError) -> dict[str, str]:
    """Return the message about a refused payment to an account."""
    return {
        **asked.passed,
        "Action": "Transfer-Error",
        "Message-Id": message_id,
        "Recipient": asked.payee,
        "Quantity": str(asked.amount),
        "Error": error.message,
        "X-Code": error.code,
    }
