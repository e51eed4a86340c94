"""Tries a model out: whether it computes a prompt right in one batch, and beside others.

`python -m workers.llama.trial FILE`, with a worker's environment, prints the verdict. A worker runs
it as a child process before it loads the model itself, so that code of llama.cpp that crashes for
an architecture takes only the child with it; what it found is remembered (`verdicts`). The settings
are those that will be used, cache and flash attention too: what is served has to be right, not what
other settings would give.

Two prompts are computed token by token and alone, which is right for every architecture that was
tried, then in one batch, and, if that differs, each in a batch of its own. Logits are compared by
the mean square of their differences: in quantised models activations are rounded, and what is
computed in another order differed by up to 0.06 of the logits' standard deviation on CPUs. What was
wrong was off by 0.57 and more.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from workers.engine.sequences import BatchRow, Seq
from workers.errors import DecodeFailed, ModelError, WorkerError
from workers.llama.verdicts import Outcome, Verdict, Verdicts, key_of, library_facts
from workers.transport.event_log import EventLog

if TYPE_CHECKING:
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

_log = EventLog("workers.llama.trial")

ROUNDING = 0.15
"""Standard deviations up to which nothing is said: well above what rounding was seen to do."""
MAX_DIFFERENCE = 0.5
"""Standard deviations above which it is wrong: just below the least that was seen of wrong code.
Other processors and larger models may round more than what was tried, and a worker that starts no
more is worse than a note."""
LONG_TOKENS, SHORT_TOKENS = 28, 12
MIN_TOKENS = 4
STEPS_S = 10.0
"""Seconds of computing token by token: a large model on CPUs is tried with fewer tokens."""
CHILD_S = 900.0
"""Seconds for the child, which loads the model; one that takes longer is not tried."""
_LONG = "The quick brown fox jumps over the lazy dog, and 27 llamas watch it from a green hill."
_SHORT = "In 1492 nobody knew how many mountains there are; now we do."
_VERDICT = re.compile(r"(together|alone|wrong) (\d+\.\d+|inf)")
_WITH_PARENT = "--with-parent"
_EXIT_REFUSED, _EXIT_UNDECIDED = 2, 3
_MAX_CHARACTERS = 300
"""Characters of what llama.cpp said last, at most."""
_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
_NOBODY = Seq("", [0], 1, 0, 0)


def try_out(model: LlamaModel, clock: Callable[[], float] = time.monotonic) -> Verdict:
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
    worst = math.inf
    ways: tuple[tuple[bool, Outcome], ...] = ((False, "together"), (True, "alone"))
    for one_a_batch, outcome in ways:
        model.one_a_batch = one_a_batch
        pairs = zip(_together(model, prompts), [*right[0], *right[1]], strict=True)
        worst = max(_difference(*pair) for pair in pairs)
        if worst <= MAX_DIFFERENCE:
            return Verdict(outcome, worst)
    return Verdict("wrong", worst)


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


def _difference(found: Any, right: Any) -> float:
    """Return the distance of logits in standard deviations; infinite if some are no numbers.

    What all logits have in common is left out: no choice depends on it.
    """
    if not (np.isfinite(found).all() and np.isfinite(right).all()):
        return math.inf
    off = (found - found.mean()) - (right - right.mean())
    return float((off**2).mean() ** 0.5) / max(float(right.std()), 1e-12)


def verdict_for(options: LlamaOptions) -> Verdict:
    """Load a model with a small cache, and try it out.

    Raises:
        ModelError: the model cannot be loaded, or its file is damaged.
        DecodeFailed: llama.cpp computes nothing here.
    """
    from workers.llama.model import LlamaModel

    model = LlamaModel(_small(options))
    try:
        return try_out(model)
    finally:
        model.close()


def _small(options: LlamaOptions) -> LlamaOptions:
    """Return the options with which a trial loads the model; it depends on no others."""
    return replace(
        options,
        slots=2,
        context=128,
        cells=256,
        prefixes=0,
        unified=False,
        batch_tokens=64,
        step_tokens=64,
        requantize=None,
    )


def _key(options: LlamaOptions) -> str | None:
    """Return the key of a trial's verdict; None for what is no file."""
    from workers.llama.model import gpu_name, lib

    gpu = gpu_name() if options.gpu_layers != 0 else None
    return key_of(_small(options), library_facts(lib, gpu))


def tried(options: LlamaOptions, memory: Verdicts | None = None) -> LlamaOptions:
    """Try a model out in this process, which llama.cpp may end, whatever is remembered.

    Args:
        options: those to load the model with.
        memory: where the verdict is kept, in the place of an earlier one.

    Returns:
        The options with which it computes right.

    Raises:
        ModelError: it cannot be loaded, or computes wrong.
    """
    if not options.trial:
        return options
    key = _key(options) if memory else None
    if memory and key:
        memory.forget(key)  # whatever ends this, a crash too
    try:
        verdict = verdict_for(options)
    except DecodeFailed as error:
        _log.warning("model_not_tried", reason=error.message)
        return options
    _remember(memory, key, options, verdict)
    return judged(options, verdict)


def _remember(
    memory: Verdicts | None, key: str | None, options: LlamaOptions, verdict: Verdict
) -> None:
    # A file that was written to meanwhile is not the one that was tried.
    if memory and key and key == _key(options):
        memory.keep(key, verdict)


def tried_in_child(options: LlamaOptions, memory: Verdicts | None = None) -> LlamaOptions:
    """Try a model out in a process of its own, with the settings of the environment.

    What the child cannot load is for whoever loads it to tell.

    Args:
        options: those to load the model with.
        memory: verdicts of earlier trials. The model is not tried again while one holds.

    Returns:
        The options with which it computes right.

    Raises:
        ModelError: it computes wrong, or llama.cpp crashes with it.
    """
    if not options.trial:
        return options
    key = _key(options) if memory else None
    if memory and (known := memory.known(key)):
        _log_tried(known, remembered=True)
        return judged(options, known, remembered=True)
    # Nothing is written to it: the child's end of it ends when this process does, however it does.
    theirs, ours = os.pipe()
    try:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "workers.llama.trial", str(options.path), _WITH_PARENT],
            stdin=theirs,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=CHILD_S,
            env=os.environ | {"GGML_NO_BACKTRACE": "1"},  # it would start a debugger
        )
    except subprocess.TimeoutExpired:
        _log.warning("model_not_tried", reason=f"it took longer than {CHILD_S:.0f} s")
        return options
    except OSError as error:
        _log.warning("model_not_tried", reason=f"no process can be started ({error.strerror})")
        return options
    finally:
        os.close(theirs)
        os.close(ours)
    if -done.returncode in _CRASHES:
        raise ModelError(
            f"llama.cpp crashes with the model in {options.path} "
            f"({signal.Signals(-done.returncode).name}: "
            f"{_last_line(done.stderr) or 'it said nothing'})."
        )
    if done.returncode == _EXIT_REFUSED:
        return options
    verdict = _read(done.stdout) if done.returncode == 0 else None
    if verdict is None:
        # Of other ends it is not known who wrote the last line, and with what in it.
        said = _last_line(done.stderr) if done.returncode == _EXIT_UNDECIDED else "no verdict"
        _log.warning("model_not_tried", exit_code=done.returncode, reason=said)
        return options
    _log_tried(verdict, remembered=False)
    _remember(memory, key, options, verdict)
    return judged(options, verdict)


def _log_tried(verdict: Verdict, *, remembered: bool) -> None:
    off = f"{verdict.difference:.4f}"
    _log.info("model_tried", outcome=verdict.outcome, difference=off, remembered=remembered)


def _read(said: str) -> Verdict | None:
    """Return the verdict in a child's last line; None without one."""
    found = _VERDICT.fullmatch(_last_line(said))
    return Verdict(cast("Outcome", found[1]), float(found[2])) if found else None


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:_MAX_CHARACTERS] if lines else ""


def judged(options: LlamaOptions, verdict: Verdict, *, remembered: bool = False) -> LlamaOptions:
    """Return the options with which a model computes right.

    Args:
        options: those to load the model with.
        verdict: of a trial.
        remembered: whether that was an earlier one.

    Raises:
        ModelError: there are none.
    """
    outcome, difference = verdict
    if outcome == "wrong":
        by = f"{difference:.2f} standard deviations of its logits"
        raise ModelError(
            f"llama.cpp computes the model in {options.path} wrong where HERD_KV_TYPE is "
            f"{options.kv_type} and HERD_FLASH_ATTENTION {options.flash_attention}: a prompt in "
            "one batch does not give what it gives token by token ("
            + (f"off by {by}" if math.isfinite(difference) else "what it gives is not a number")
            + "). With HERD_MODEL_TRIAL=false it is served all the same."
            + (
                " An earlier trial found it; `herd worker check` tries it anew."
                if remembered
                else ""
            )
        )
    return replace(
        options,
        one_a_batch=outcome == "alone",
        off_by=difference if difference > ROUNDING else 0.0,
    )


def _end_with_parent() -> None:
    """End this process when the pipe that is its standard input does: with its parent."""
    os.read(0, 1)
    os._exit(1)  # at once: llama.cpp may be in the middle of loading


def main(arguments: list[str]) -> int:
    """Print the verdict; returns the exit code: 2 if the model cannot be loaded, 3 undecided."""
    from pathlib import Path

    from workers.llama.options import llama_options
    from workers.settings import load_settings

    path, *flags = arguments
    if _WITH_PARENT in flags:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        verdict = verdict_for(replace(llama_options(load_settings()), path=Path(path)))
    except WorkerError as error:
        print(error.message, file=sys.stderr)  # noqa: T201
        return _EXIT_UNDECIDED if isinstance(error, DecodeFailed) else _EXIT_REFUSED
    print(f"{verdict.outcome} {verdict.difference:.4f}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
