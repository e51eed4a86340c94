"""The set-up's errors, each with the sentence that the person at the terminal reads."""

from __future__ import annotations

from pathlib import Path


class InstallError(Exception):
    """The set-up cannot go on; the message says what to do."""


class StepFailed(InstallError):
    """A command failed; `log` holds all that it said."""

    def __init__(self, title: str, status: int, log: Path, tail: str) -> None:
        self.title = title
        self.status = status
        self.log = log
        self.tail = tail
        super().__init__(f"{title}: failed (exit status {status}). The whole log: {log}")
