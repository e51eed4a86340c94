"""Tries the llama-cpp-python that is installed: a child process decodes, its end tells."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .decode import WRONG_RESULTS
from .errors import InstallError

LIMIT_S = 300.0
"""It takes 4 s on an idle machine. Beside a compile, one token alone can take 2.4 s."""

_MEMORY = "the system ended it (SIGKILL), most likely for lack of memory"


@dataclass(frozen=True)
class Verdict:
    """The result of a trial."""

    passed: bool
    text: str
    """What the child said, or how it died."""


def judge(status: int, output: str) -> Verdict:
    """Return what exit status and output of `decode.py` say about the build.

    Raises:
        InstallError: it failed for a reason that no other build would cure.
    """
    last = output.strip().splitlines()[-1:] or ["nothing"]
    if status == 0:
        return Verdict(True, last[0])
    if status == WRONG_RESULTS:
        return Verdict(False, last[0])
    if status == -signal.SIGKILL:
        raise InstallError(f"The trial of llama-cpp-python did not end: {_MEMORY}.")
    if status < 0:
        return Verdict(False, f"it died of {signal.Signals(-status).name} while it decoded")
    tail = "\n".join(output.strip().splitlines()[-8:])
    raise InstallError(f"llama-cpp-python could not be tried (exit status {status}):\n{tail}")


def try_build(python: Path, log: Path) -> Verdict:
    """Decode with the llama-cpp-python of `python`, in a child process; its output goes to `log`.

    A child that does not end in time is given a second chance before the build is blamed.
    """
    command = [str(python), str(Path(__file__).with_name("decode.py"))]
    # Without this, llama.cpp starts a debugger, where there is one, to print where it crashed.
    environ = {**os.environ, "GGML_NO_BACKTRACE": "1"}
    for _ in range(2):
        try:
            ended = subprocess.run(
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            continue
        log.write_text(ended.stdout)
        return judge(ended.returncode, ended.stdout)
    return Verdict(False, f"it had not decoded 700 tokens after {LIMIT_S:.0f} s, twice")
