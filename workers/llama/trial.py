"""Tries a model out: whether it computes a prompt right in one batch, and beside others.

`python -m workers.llama.trial`, with a worker's environment, prints the outcome. A worker runs it
as a child process before it loads the model itself, so that code of llama.cpp that crashes for an
architecture takes only the child with it.

Two prompts are computed token by token and alone, which is right for every architecture that was
tried, then in one batch, and, if that differs, each in a batch of its own. Logits are compared by
the mean square of their differences: in quantised models activations are rounded, and what is
computed in another order differed by up to 0.06 of the logits' standard deviation.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from workers.engine.sequences import BatchRow, Seq
from workers.errors import ModelError, WorkerError
from workers.transport.event_log import EventLog

if TYPE_CHECKING:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

_log = EventLog("workers.llama.trial")

Outcome = Literal["together", "alone", "wrong"]
"""Sequences may share a batch; each needs one of its own; or even that is wrong."""

MAX_DIFFERENCE = 0.15
"""Of the logits' standard deviation, as root of the mean square."""
LONG_TOKENS, SHORT_TOKENS = 28, 12
MIN_TOKENS = 4
STEPS_S = 10.0
"""Seconds of computing token by token: a large model on CPUs is tried with fewer tokens."""
CHILD_S = 900.0
"""Seconds for the child, which loads the model; one that takes longer is not tried."""
_LONG = "The quick brown fox jumps over the lazy dog, and 27 llamas watch it from a green hill."
_SHORT = "In 1492 nobody knew how many mountains there are; now we do."
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
_NOBODY = Seq("", [0], 1, 0, 0)


def try_out(model: LlamaModel, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Try a model that nobody uses yet; its cache is empty afterwards.

    Args:
        model: with two slots or more.
        clock: seconds that only rise.

    Raises:
        DecodeFailed: it does not work on this machine.
    """
    deadline_s = clock() + STEPS_S
    prompts = []
    right = []
    for text, length in ((_LONG, LONG_TOKENS), (_SHORT, SHORT_TOKENS)):
        tokens = ((model.tokenize(text, template=False, begin=True) or [0]) * length)[:length]
        seen: list[Any] = []
        for token in tokens:
            model.decode([BatchRow(0, len(seen), [token], True, _NOBODY)])
            seen.append(model.logits(1)[0].copy())
            if len(seen) >= MIN_TOKENS and clock() > deadline_s:
                break
        prompts.append(tokens[: len(seen)])
        right.append(seen[-2:])
        model.keep(0, 0)
    for alone in (False, True):
        model.one_a_batch = alone
        found = _together(model, prompts)
        if all(_alike(*pair) for pair in zip(found, [*right[0], *right[1]], strict=True)):
            return "alone" if alone else "together"
    return "wrong"


def _together(model: LlamaModel, prompts: Sequence[list[int]]) -> list[Any]:
    """Compute prompts in one call, but for their last tokens, and those in another.

    Returns:
        The logits after both calls, of the first prompt, then of the second.
    """
    found = []
    for first, last in ((0, -1), (-1, None)):
        rows = [
            BatchRow(slot, first % len(tokens), tokens[first:last], True, _NOBODY)
            for slot, tokens in enumerate(prompts)
        ]
        model.decode(rows)
        found.append(model.logits(len(rows)).copy())
    for slot in range(len(prompts)):
        model.keep(slot, 0)
    return [logits[slot] for slot in range(len(prompts)) for logits in found]


def _alike(found: Any, right: Any) -> bool:
    """Judge logits, but for what all have in common, on which no choice depends."""
    off = (found - found.mean()) - (right - right.mean())
    return bool((off**2).mean() ** 0.5 <= MAX_DIFFERENCE * max(float(right.std()), 1e-12))


def outcome_for(options: LlamaOptions) -> Outcome:
    """Load a model with a small cache, and try it out.

    What fails as the settings have it, is tried with numbers of 32 bits and without flash attention
    before it is judged: those differ less.

    Raises:
        ModelError: the model cannot be loaded.
    """
    from workers.llama.model import LlamaModel

    small = replace(
        options,
        slots=2,
        context=128,
        cells=256,
        unified=False,
        batch_tokens=64,
        check_tensors=False,
        requantize=None,
    )
    outcomes: list[Outcome] = []
    for tried in (small, replace(small, kv_type="f32", flash_attention="off")):
        model = LlamaModel(tried)
        try:
            outcomes.append(try_out(model))
        finally:
            model.close()
        if outcomes[-1] == "together":
            break
    return outcomes[-1]


def tried_in_child(options: LlamaOptions) -> LlamaOptions:
    """Try a model out in a process of its own, with the settings of the environment.

    What the child cannot load is for whoever loads it to tell.

    Args:
        options: those to load the model with.

    Returns:
        The options with which it computes right.

    Raises:
        ModelError: it computes wrong, or llama.cpp crashes with it.
    """
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "workers.llama.trial", str(options.path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=CHILD_S,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # it would start a debugger
        )
    except subprocess.TimeoutExpired:
        _log.warning("model_not_tried", reason=f"it took longer than {CHILD_S:.0f} s")
        return options
    if -done.returncode in _CRASHES:
        raise ModelError(
            f"llama.cpp crashes with the model in {options.path} "
            f"({signal.Signals(-done.returncode).name}): its code for this architecture does not "
            "work, or its build does not fit this CPU."
        )
    return judged(options, done.stdout.strip())


def judged(options: LlamaOptions, outcome: str) -> LlamaOptions:
    """Return the options with which a model computes right.

    Raises:
        ModelError: there are none.
    """
    if outcome == "wrong":
        raise ModelError(
            f"llama.cpp computes the model in {options.path} wrong: a prompt in one batch does not "
            "give what it gives token by token."
        )
    return replace(options, one_a_batch=True) if outcome == "alone" else options


def main(arguments: list[str]) -> int:
    """Print the outcome; returns the exit code: 2 if the model cannot be loaded."""
    from pathlib import Path

    from workers.llama.options import llama_options
    from workers.settings import load_settings

    try:
        print(outcome_for(replace(llama_options(load_settings()), path=Path(arguments[0]))))  # noqa: T201
    except WorkerError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
