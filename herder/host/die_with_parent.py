"""Starts each child of the supervisor: `python die_with_parent.py PARENT PROGRAM [ARGUMENT...]`.

It asks the kernel to kill the process when its parent dies, and becomes the program. So nothing
outlives a supervisor that was killed itself (SIGKILL, out of memory), when no code of its own can
run any more.

Why so: the usual way, `preexec_fn`, runs Python between fork and exec, which may deadlock in a
program with threads; a process that watches instead would have to outlive everything itself. Here
the request is made after exec, by the process that it is for, and it survives the second exec.

SIGKILL and no gentler signal: with the supervisor gone, Redis goes at the same moment, and a
worker that would finish first has nobody left to tell. The database and the leases are made for
sudden ends; orders that were running go out again when the herd is next up.

Linux only; elsewhere a supervisor that is killed leaves its children behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind this process's life to its parent's, then become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)  # it died before the kernel was asked
    try:
        os.execvp(program[0], program)  # noqa: S606  (what it is for)
    except OSError as error:
        sys.stderr.write(f"{program[0]} cannot be started: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
