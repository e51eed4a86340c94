"""Plants faults in the child that tries a model out, and in no other process.

Python imports `sitecustomize` at its start, from the first folder of its path that has one.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
_HEAD = """
import os, sys

if "workers.llama.trial" in sys.orig_argv:
    from workers.llama.model import LlamaModel

    real = LlamaModel._compute

    def compute(model, rows):
"""
_OTHER_TOKENS = """
        if {where}:
            ends = [3 + row.tokens[-1] % 99 for row in rows]
            rows = [
                row._replace(tokens=[*row.tokens[:-1], end])
                for row, end in zip(rows, ends, strict=True)
            ]
"""
FAULTS = {
    "alone": _OTHER_TOKENS.format(where="len(rows) > 1"),
    "wrong": _OTHER_TOKENS.format(where="len(rows[0].tokens) > 4"),
    "crash": """
        os.write(2, b"ggml.c:7: GGML_ASSERT(planted) failed\\n\\n")
        os.abort()
""",
    "killed": """
        os.kill(os.getpid(), 9)
""",
    "raises": """
        raise ValueError("hunter2")
""",
    "fails": """
        from workers.errors import DecodeFailed
        raise DecodeFailed("llama_decode returned -2 (no room).")
""",
    "mute": """
        print("together 0.0001")
        print("and a word more")
        sys.stdout.flush()
        os._exit(0)
""",
}
"""What happens when it computes: the child's own verdicts, or the end of it."""
_TAIL = """
        return real(model, rows)

    LlamaModel._compute = compute
"""


def path_with(fault: str, folder: Path) -> str:
    """The `PYTHONPATH` with which a child's trial has a fault.

    Args:
        fault: of `FAULTS`.
        folder: where a file is written for it.
    """
    (folder / "sitecustomize.py").write_text(_HEAD + FAULTS[fault] + _TAIL)
    return f"{folder}{os.pathsep}{ROOT}"
