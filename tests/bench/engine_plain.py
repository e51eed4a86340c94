"""The plain way to serve a model with Celery: a prefork child per core, each with its own `Llama`.

The app of `celery -A tests.bench.engine_plain worker -P prefork`, as most people write it.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, signals

url = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/0")
app = Celery("plain", broker=url, backend=url)
_llm: Any = None
_bias: dict[str, float] = {}


@signals.worker_process_init.connect
def _load(**_: Any) -> None:
    import llama_cpp

    global _llm, _bias
    _llm = llama_cpp.Llama(
        os.environ["BENCH_MODEL"],
        n_ctx=int(os.environ["BENCH_CONTEXT"]),
        n_threads=int(os.environ["BENCH_THREADS"]),
        n_threads_batch=int(os.environ["BENCH_THREADS"]),
        verbose=False,
    )
    # what would end the text is made unlikely: `create_completion` has no other way to bar it
    vocab = llama_cpp.llama_model_get_vocab(_llm.model)
    ends = [token for token in range(_llm.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, token)]
    _bias = {str(token): -1000.0 for token in ends}


@app.task
def complete(tokens: list[int], new: int) -> tuple[int, int]:
    """Continue a prompt; returns its tokens and those generated."""
    answer = _llm.create_completion(tokens, max_tokens=new, temperature=0, logit_bias=_bias)
    usage = answer["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]
