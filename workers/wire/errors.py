"""The error with which a message is refused."""

from __future__ import annotations


class WireError(Exception):
    """A message that is not ours: malformed, unsigned, signed by the wrong one, or out of bounds.

    Attributes:
        code: a stable word for logs and tests, such as `bad_signature`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
