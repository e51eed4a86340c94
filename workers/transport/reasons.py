"""Says why something is out of reach, for a log: in words, with what to do where that is known."""

from __future__ import annotations

MAX_REASON = 200

_FULL = "Redis is full; raise its maxmemory, or make room in it"
_REDIS = (
    ("OutOfMemoryError", _FULL),
    ("command not allowed when used memory", _FULL),
    ("max number of clients", "Redis takes no more connections; raise its maxclients"),
    ("MISCONF", "Redis cannot write to its disk; make room there, or look at its log"),
    ("ReadOnlyError", "this Redis is a read-only replica; HERD_REDIS_URL has to name its master"),
    ("AuthenticationError", "Redis rejects the user and password in HERD_REDIS_URL"),
    ("NoPermissionError", "the user in HERD_REDIS_URL lacks rights in Redis for this"),
)
"""The name of an error of redis-py or words of Redis, and what is said of it."""


def is_redis_error(error: BaseException) -> bool:
    """Return whether Redis, or the way to it, raised this: without loading its package."""
    return any(kind.__name__ == "RedisError" for kind in type(error).__mro__)


def redis_sentence(error: BaseException) -> str:
    """Return the sentence for whoever asked for something that Redis did not do."""
    meant = _meant(error)
    if meant is None:
        return "Redis is out of reach; try again."
    return f"{meant[0].upper()}{meant[1:]}."


def reason_of(error: BaseException) -> str:
    """Return the reason for which something failed, on one line.

    Args:
        error: an error of ours is its sentence; of Redis, nothing that it was asked is quoted.
    """
    message = getattr(error, "message", None)
    if isinstance(message, str) and message:
        return message[:MAX_REASON]
    words = str(error)
    if is_redis_error(error):
        words = _redis_words(error)
        if (meant := _meant(error)) is not None:
            return meant
    line = words.partition("\n")[0]
    return f"{type(error).__name__}: {line}"[:MAX_REASON] if line else type(error).__name__


def _redis_words(error: BaseException) -> str:
    # A pipeline puts the command, which may hold a text, before what Redis says of it.
    return str(error).rpartition("of pipeline caused error: ")[2]


def _meant(error: BaseException) -> str | None:
    words = f"{type(error).__name__} {_redis_words(error)}"
    return next((meant for said, meant in _REDIS if said in words), None)
