"""A conversation: what is sent of it, and what is forgotten when it grows too long. Pure."""

from __future__ import annotations

from herder.errors import HerdError, InvalidPrompt, OrderFailed, PromptTooLong


class Conversation:
    """Turns of a user and a model, and what was said to the model before them.

    Attributes:
        system: what the model is told before everything else; it is never forgotten.
        exchanges: what was asked and answered, the oldest first.
    """

    def __init__(self, system: str | None = None) -> None:
        self.system = system
        self.exchanges: list[tuple[str, str]] = []

    def asking(self, text: str) -> list[dict[str, str]]:
        """Return the messages that ask this after all that was said."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for asked, answered in self.exchanges:
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": answered})
        return [*messages, {"role": "user", "content": text}]

    def keep(self, asked: str, answered: str) -> None:
        """Remember an exchange."""
        self.exchanges.append((asked, answered))

    def cut(self, asking: str, have: int, most: int) -> int:
        """Forget the oldest exchanges, as many as have to go for all to fit; one at least.

        What does not fit is known in tokens, bytes or turns, and only of the whole, so that the
        share that has to go is taken of the characters.

        Args:
            asking: what is being asked; it stays.
            have: how much there is of what is bounded.
            most: how much of it is taken.

        Returns:
            How many exchanges are forgotten; 0 where there are none.
        """
        size = sum(len(message["content"]) for message in self.asking(asking))
        surplus = -(-size * max(0, have - most) // max(1, have))
        gone = count = 0
        for asked, answered in self.exchanges:
            if count and gone >= surplus:
                break
            gone += len(asked) + len(answered)
            count += 1
        del self.exchanges[:count]
        return count

    def clear(self) -> None:
        """Forget all that was asked and answered."""
        self.exchanges.clear()


def too_long(error: HerdError) -> tuple[int, int] | None:
    """Return the size of a call and the largest that is taken, if an error says it was too large.

    The herd knows bytes and turns when it is asked; tokens are counted by a worker, be it before
    the order is taken or when it is to run.
    """
    if isinstance(error, PromptTooLong):
        return _too_many(error.data)
    if isinstance(error, InvalidPrompt):
        return _bound(error.data.get("bytes", error.data.get("turns")), error.data.get("most"))
    if isinstance(error, OrderFailed):
        failure = error.result.receipt.failure or {}
        data = failure.get("data")
        if failure.get("code") == "prompt_too_long" and isinstance(data, dict):
            return _too_many(data)
    return None


def _too_many(counted: dict[str, object]) -> tuple[int, int] | None:
    context, tokens = counted.get("context"), counted.get("tokens")
    if isinstance(context, int) and isinstance(tokens, int):
        return _bound(counted.get("prompt_tokens"), context - tokens)
    return None


def _bound(have: object, most: object) -> tuple[int, int] | None:
    if isinstance(have, int) and isinstance(most, int) and have > most > 0:
        return have, most
    return None
