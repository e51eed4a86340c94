"""The worker of `pipeline.py`: the real one, which also notes when its engine begins and ends.

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time

from celery import signals

from workers.celery import app
from workers.engine import engine as _engine

_file = open(os.environ["BENCH_TRACE"], "a", buffering=1)  # noqa: SIM115
_submit = _engine.Engine.submit


def _traced_submit(self, work, listener):
    on_end = listener.on_end

    def ended(end):
        _file.write(f"end {time.monotonic_ns()} {work.key}\n")
        on_end(end)

    class Traced:
        on_start = staticmethod(listener.on_start)
        on_text = staticmethod(listener.on_text)
        on_end = staticmethod(ended)

    _file.write(f"start {time.monotonic_ns()} {work.key}\n")
    _submit(self, work, Traced())


_engine.Engine.submit = _traced_submit


@signals.worker_shutdown.connect(weak=False)
def _close(**_):
    _file.flush()


__all__ = ["app"]
