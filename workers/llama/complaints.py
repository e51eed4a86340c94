"""The log of llama.cpp, as far as it has the reason of a failure or the size of a cache.

It says them to a callback, on the thread that called it. The library comes as an argument: only
`model` imports it.
"""

from __future__ import annotations

import ctypes
import re
import threading
from typing import Any

_INFO, _WARNING, _ERROR = 2, 3, 4  # ggml.h: ggml_log_level
_ENDS = 4
"""Lines that are kept of the first and of the last: what failed first is told first."""
_MAX_CHARACTERS = 500
"""Characters of a line, at most."""
_PREFIX = re.compile(r"^\w+: (?:error loading model: )?")
_CACHE_SIZE = re.compile(r"\b(?:KV|RS|state) buffer size = +([0-9.]+) MiB$")


class Complaints:
    """Hears what llama.cpp has to say, from here on; one for the process.

    Args:
        lib: the llama_cpp module. It sets a callback of its own when it is imported, which prints.
    """

    def __init__(self, lib: Any) -> None:
        self._heard = threading.local()
        # Kept for as long as the process lives: the library calls it at any time.
        self._callback = lib.llama_log_callback(self._on_log)
        lib.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _on_log(self, level: int, text: bytes, _user: object) -> None:
        """Keep a line. It must never raise."""
        if level not in (_INFO, _WARNING, _ERROR):
            return
        line = text.decode("utf-8", "replace").strip()
        heard = self._heard.__dict__
        if level == _INFO:
            if found := _CACHE_SIZE.search(line):
                heard["cache"] = heard.get("cache", 0.0) + float(found[1])
        elif line:
            lines: list[str] = heard.setdefault("errors" if level == _ERROR else "warnings", [])
            lines.append(line)
            del lines[_ENDS:-_ENDS]

    def forget(self) -> None:
        """Forget what this thread has heard so far."""
        self._heard.__dict__.clear()

    def first(self) -> str:
        """Return the first failure on this thread; those after it came of it."""
        heard = self._heard.__dict__
        lines = heard.get("errors") or heard.get("warnings") or ["llama.cpp gave no reason"]
        return _PREFIX.sub("", lines[0])[:_MAX_CHARACTERS]

    def last(self) -> str:
        """Return the last complaint on this thread."""
        heard = self._heard.__dict__
        lines = heard.get("errors") or heard.get("warnings") or ["llama.cpp gave no reason"]
        return str(lines[-1])[:_MAX_CHARACTERS]

    @property
    def of_memory(self) -> bool:
        """Whether an error on this thread was that there is no memory."""
        lines: list[str] = self._heard.__dict__.get("errors", [])
        return any(re.search(r"alloc|memory", line, re.IGNORECASE) for line in lines)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the caches that were made on this thread, as llama.cpp counts them."""
        return int(self._heard.__dict__.get("cache", 0.0) * 2**20)
