"""Places of those who hold a line: a gateway has so many, and so has each API key."""

from __future__ import annotations

from collections import Counter


class StreamSlot:
    """A line that a caller holds, until it is closed; it may be closed more than once."""

    def __init__(self, holders: Counter[str], key_id: str) -> None:
        self._holders = holders
        self._key_id: str | None = key_id
        holders[key_id] += 1

    def close(self) -> None:
        """Give it back."""
        key_id, self._key_id = self._key_id, None
        if key_id is None:
            return
        self._holders[key_id] -= 1
        if not self._holders[key_id]:
            del self._holders[key_id]

    def __enter__(self) -> StreamSlot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
