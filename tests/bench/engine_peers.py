"""The peers as contenders of `tests/bench/engine.py`.

To both servers greedy sampling is asked for in its cheapest form, one sampler that keeps the best.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.engine_loads import Figures, Request, Timing, figures
from tests.bench.servers import celery_process, free_port, redis_server, wait_for

GREEDY = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True, "stream": True}
START_S = 120


class Server:
    """llama-server in a process of its own, over HTTP, streaming."""

    def __init__(self, setup: dict[str, Any], *options: str) -> None:
        self._port = free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        threads = str(setup["threads"])
        command = [setup["server"], "--model", setup["model"], "--no-ui"]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--parallel", str(setup["slots"]), "--ctx-size", str(setup["cells"])]
        command += ["--threads", threads, "--threads-batch", threads, *options]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        try:
            wait_for(self._ready, START_S, "llama-server")
        except BaseException:
            self.close()
            raise

    def _ready(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            tail = self._log.read()[-2000:].decode(errors="replace")
            raise RuntimeError(f"llama-server ended with {self._process.returncode}:\n{tail}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def run(self, request: Request) -> Timing:
        # one for each: the server closes those that it keeps whenever it likes
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        body = json.dumps({"prompt": request.tokens, "n_predict": request.new, **GREEDY})
        sent_s = time.perf_counter()
        connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        first_s = 0.0
        last = b""
        while line := answer.readline():
            if line.startswith(b"data: "):
                first_s = first_s or time.perf_counter()
                last = line
        end_s = time.perf_counter()
        connection.close()
        end = json.loads(last[6:])
        counts = (end["tokens_evaluated"], end["tokens_predicted"])
        assert counts == (len(request.tokens), request.new), end
        return Timing(sent_s, first_s, end_s, request.new)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(20)
        self._log.close()


class Wheel:
    """llama.cpp's server in this process, as xllamacpp's wheel has it built."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = setup["model"]
        params.n_parallel = setup["slots"]
        params.n_ctx = setup["cells"]
        params.kv_unified = False  # as llama-server has it where the number of slots is given
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup["threads"]
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def run(self, request: Request) -> Timing:
        first_s = 0.0
        last: Any = {}

        def hear(chunk: Any) -> None:
            nonlocal first_s, last
            first_s = first_s or time.perf_counter()
            last = chunk

        ask = {"prompt": request.tokens, "max_tokens": request.new, **GREEDY}
        sent_s = time.perf_counter()
        self._server.handle_completions(ask, hear)
        end_s = time.perf_counter()
        usage = last["usage"]
        counts = (usage["prompt_tokens"], usage["completion_tokens"])
        assert counts == (len(request.tokens), request.new), last
        return Timing(sent_s, first_s, end_s, request.new)

    def close(self) -> None:
        del self._server


class Plain:
    """Celery's prefork pool, a child per core; see `tests/bench/engine_plain.py`."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        children = setup["cores"]
        try:
            url = self._stack.enter_context(redis_server(folder))
            env = {
                "BENCH_REDIS": url,
                "BENCH_MODEL": setup["model"],
                "BENCH_CONTEXT": str(setup["cells"] // setup["slots"]),
                "BENCH_THREADS": str(max(1, setup["threads"] // children)),
            }
            os.environ |= env
            options = ("-P", "prefork", "-c", str(children), "-l", "WARNING")
            app, log = "tests.bench.engine_plain", folder / "plain.log"
            self._stack.enter_context(celery_process(app, "celery", log, env, *options))
        except BaseException:
            self._stack.close()
            raise

    def put(self, requests: Sequence[Request]) -> Figures:
        """A whole load; only its throughput means something."""
        from celery import group

        from tests.bench.engine_plain import complete

        sent_s = time.perf_counter()
        counts = group(complete.s(one.tokens, one.new) for one in requests)().get(timeout=1800)
        end_s = time.perf_counter()
        for (prompt, new), one in zip(counts, requests, strict=True):
            assert (prompt, new) == (len(one.tokens), one.new), (prompt, new)
        return figures([Timing(sent_s, end_s, end_s, one.new) for one in requests])

    def close(self) -> None:
        self._stack.close()
