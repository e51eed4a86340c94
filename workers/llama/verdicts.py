"""Remembers what trials of models found, so that a worker that starts again need not try anew.

A verdict is kept under a digest of all that it may depend on: the model's file, or each part of it,
by device, inode, size and times; llama.cpp's libraries in the same way, with what they say of
themselves and of the GPU; the options with which the trial loads the model; the cores; and what the
environment tells llama.cpp and the GPU's driver. What differs in any of them is not known.

A crash is no verdict: a GPU whose memory somebody else has, ends llama.cpp too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

from workers.llama.options import LlamaOptions, cores
from workers.transport.event_log import EventLog

_log = EventLog("workers.llama.trial")

Outcome = Literal["together", "alone", "wrong"]
"""Sequences may share a batch; each needs one of its own; or even that is wrong."""


class Verdict(NamedTuple):
    """The outcome of a trial, and how far off it was.

    Attributes:
        outcome: how it may be computed.
        difference: what that is off by, in standard deviations of the logits, as root of the mean
            square; infinite where it is no number.
    """

    outcome: Outcome
    difference: float


TRIAL = 1
"""The number of the trial: higher whenever it tries or judges otherwise."""
MAX_VERDICTS = 64
"""Verdicts that are kept; the oldest goes first."""
_MAX_BYTES = 65_536
_MAX_PARTS = 1_000
_LIBRARIES = {".dll", ".dylib", ".metal", ".so"}
_PART = re.compile(r"(.*)-00001-of-(\d{5})\.gguf")
_ENVIRONMENT = ("CUDA_", "GGML_", "HIP_", "LLAMA_", "ROCR_", "VK_", "ZES_", "ONEAPI_")
"""Beginnings of the names of variables that llama.cpp and drivers of GPUs read."""
_NO_MATTER = (
    *("path", "trial", "one_a_batch", "off_by"),  # the file counts; what a trial decides
    *("check_tensors", "chat_template", "system"),  # which change no logits
)


class Verdicts:
    """The verdicts in a file; one that is damaged holds none.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, key: str | None) -> Verdict | None:
        """Return a verdict; None where none is known."""
        return self._read().get(key) if key else None

    def keep(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict, in the place of the one under that key."""
        found = self._read()
        found.pop(key, None)
        found[key] = verdict
        self._write(found)

    def forget(self, key: str) -> None:
        """Keep no verdict under that key."""
        found = self._read()
        if found.pop(key, None):
            self._write(found)

    def _read(self) -> dict[str, Verdict]:
        try:
            if not self._path.is_file():  # opening a pipe would wait for whoever writes to it
                return {}
            with self._path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            rows = json.loads(data) if len(data) <= _MAX_BYTES else []
        except (OSError, ValueError, RecursionError):
            return {}
        found = {}
        for row in rows if isinstance(rows, list) else []:
            match row:
                case {"key": str(key), "outcome": str(outcome), "difference": difference}:
                    if verdict := _verdict(outcome, difference):
                        found[key] = verdict
        return found

    def _write(self, verdicts: dict[str, Verdict]) -> None:
        rows = [
            {
                "key": key,
                "outcome": verdict.outcome,
                "difference": verdict.difference if math.isfinite(verdict.difference) else None,
            }
            for key, verdict in list(verdicts.items())[-MAX_VERDICTS:]
        ]
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(rows, file, indent=1)
                Path(partial).replace(self._path)
            except BaseException:
                with suppress(OSError):
                    Path(partial).unlink()
                raise
        except OSError as error:
            _log.info("trial_not_remembered", path=str(self._path), reason=error.strerror)


def _verdict(outcome: str, difference: object) -> Verdict | None:
    """Return a verdict of a file's row; None where it is none."""
    off = math.inf if difference is None else difference
    if outcome not in get_args(Outcome) or not isinstance(off, float) or not off >= 0:
        return None
    return Verdict(cast("Outcome", outcome), off)


def key_of(options: LlamaOptions, library: Iterable[str]) -> str | None:
    """Return the digest of all that a verdict may depend on.

    Args:
        options: those with which the trial loads the model.
        library: the marks of llama.cpp: see `library_facts`.

    Returns:
        None where the model is no file, or not there.
    """
    file = file_facts(options.path)
    if file is None:
        return None
    given = {name: value for name, value in asdict(options).items() if name not in _NO_MATTER}
    told = {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)}
    facts = [TRIAL, file, sorted(given.items()), [*library], cores(), sorted(told.items())]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def file_facts(path: Path) -> list[tuple[int, ...]] | None:
    """Return the marks of a model's file, with all its parts; None where it is missing."""
    paths = [path]
    part = _PART.fullmatch(str(path))
    if part and int(part[2]) <= _MAX_PARTS:
        paths = [Path(f"{part[1]}-{no:05}-of-{part[2]}.gguf") for no in range(1, int(part[2]) + 1)]
    try:
        found = [one.stat() for one in paths]
    except (OSError, ValueError):
        return None
    if not all(stat.S_ISREG(one.st_mode) for one in found):
        return None
    # the time of change, which nobody sets: of a file that was written to, and dated back
    return [
        (one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found
    ]


def library_facts(lib: Any, gpu: str | None) -> list[str]:
    """Return the marks of this build of llama.cpp, on this machine.

    Args:
        lib: the llama_cpp module.
        gpu: the name of the GPU that it would use.
    """
    folder = Path(lib.__file__).parent
    files = [
        f"{path.name} {file_facts(path)}"
        for path in sorted(folder.rglob("*"))
        if path.suffix in _LIBRARIES or ".so." in path.name
    ]
    said = lib.llama_print_system_info().decode("utf-8", "replace")
    return [lib.__version__, said, gpu or "", platform.machine(), *files]
