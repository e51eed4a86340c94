"""The Celery app of `celery -A workers worker -Q inference`, and of `celery -A workers flower`.

Importing it reads no key and loads no model, so that Flower can show a herd that runs elsewhere;
both happen when a worker starts, before its first task.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path
from typing import Any

import structlog
from celery import signals
from celery.worker import state as celery_state

from workers.agent.agent import Agent
from workers.engine.engine import Engine
from workers.engine.work import Model, TemplateFacts
from workers.errors import ModelFileError, SettingsError, WorkerError
from workers.llama.template import read_template
from workers.settings import JoinFile, load_settings, read_join_file
from workers.transport.app import HerdApp
from workers.transport.config import celery_config, consume_own_queue
from workers.transport.guard import MessageGuard, Repeated, TaskPool
from workers.transport.launch import EXIT_SETUP, launched
from workers.transport.monitoring import SHOWN, node_name, shown_as
from workers.transport.options import WORKER
from workers.transport.sender import CelerySender
from workers.transport.streams import open_streams
from workers.wire import (
    HELLO_TASK,
    INFER_TASK,
    INFERENCE_QUEUE,
    Envelope,
    Hello,
    InferenceJob,
    WireError,
    attempt_id,
    hello_id,
    unseal,
    worker_queue,
)

_log = structlog.get_logger("workers")

EXIT_BROKEN = 70  # EX_SOFTWARE: the model died, and a new process may do better
CALIBRATE_S = 1.0
STUB_CONTEXT = 4096


def _find_model() -> None:
    """Make sure that a model is named.

    Raises:
        SettingsError: none is, or its file is not there, or not that of its chat template.
    """
    if settings.engine != "llama":
        return
    if not settings.model_path:
        raise SettingsError("Set HERD_MODEL_PATH to the model's GGUF file.")
    if not Path(settings.model_path).exists():
        raise SettingsError(
            f"There is no file {settings.model_path}. Set HERD_MODEL_PATH to a GGUF file that can "
            "be loaded."
        )
    if settings.chat_template:
        read_template(Path(settings.chat_template))


launch = launched(WORKER)
try:
    settings = load_settings()
except WorkerError as _error:
    launch.die(str(_error))
launch.check(settings.broker)
if launch.detaches:
    # While somebody still reads what is said, and the exit code.
    try:
        read_join_file(settings.key_path)
        _find_model()
    except WorkerError as _error:
        launch.die(str(_error))
# What is typed goes before what is set: -c is HERD_SLOTS, -n is HERD_WORKER_NAME.
settings = settings.called(launch.name, slots=launch.threads)

app = HerdApp(
    "workers",
    celery_config(settings, queue=INFERENCE_QUEUE, concurrency=settings.slots, pulls=True),
)


class _Process:
    """The state of this process once it is a worker."""

    def __init__(self, join: JoinFile, agent: Agent, sender: CelerySender) -> None:
        self.join = join
        self.agent = agent
        self.sender = sender


_process: _Process | None = None


def _check(name: str, token: str) -> tuple[Envelope, str, str]:
    """Return the guard's question: is this a job, or a hello, that a herder signed for us?

    What is meant for another worker is refused; what herders of before this version sent was meant
    for any.
    """
    if name not in (INFER_TASK, HELLO_TASK) or _process is None:
        raise WireError("unknown_task", name[:80])
    instance = _process.agent.instance
    own = worker_queue(instance)
    if name == HELLO_TASK:
        envelope = unseal(token, _process.join.herders, audience=own)
        if not isinstance(envelope.body, Hello):
            raise WireError("unknown_kind", "a hello says hello")
        return envelope, hello_id(instance, envelope.body.number), "hello"
    clock = _process.agent.clock
    try:
        queues = (own, INFERENCE_QUEUE)
        envelope = unseal(token, _process.join.herders, audience=queues, now_s=clock.judging_s())
    except WireError as error:
        if error.code == "expired":
            clock.doubt()
        raise
    job = envelope.body
    if not isinstance(job, InferenceJob):
        raise WireError("unknown_kind", "workers accept only jobs")
    if _process.agent.has(job.held):
        # RabbitMQ gives back what was not acked when a connection broke, while it still runs.
        raise Repeated(f"order={job.order}")
    # What Flower and the log may show of it: never the prompt.
    return envelope, attempt_id(job.held), job.label


app.herd_guard = MessageGuard(_check)


@app.task(name=INFER_TASK, bind=True, Request=SHOWN)  # type: ignore[untyped-decorator]
def infer(self: Any, token: str) -> dict[str, str | int]:
    """Run one attempt at an order; the answer goes home as a signed task of its own."""
    envelope = app.herd_guard.take(self.request.id, token)
    if envelope is None or _process is None:
        return shown_as(self.request.id, {"status": "repeated", "tokens": 0})
    return shown_as(self.request.id, _process.agent.run(envelope.body))


@app.task(name=HELLO_TASK, bind=True, Request=SHOWN)  # type: ignore[untyped-decorator]
def hello(self: Any, token: str) -> dict[str, str | int]:
    """Answer a hello, on a thread of the pool as orders are: so that what it needs is shown."""
    envelope = app.herd_guard.take(self.request.id, token)
    if envelope is None or _process is None:
        return shown_as(self.request.id, {"status": "repeated", "tokens": 0})
    return shown_as(self.request.id, _process.agent.answer_hello(envelope.body))


@signals.setup_logging.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_logging(**_: Any) -> None:
    launch.log(settings.log_level)


@signals.celeryd_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_celeryd_init(instance: Any, **_: Any) -> None:
    # Two workers on one machine must not share a node name: Flower would show one of them.
    instance.hostname = node_name(settings.name)


@signals.worker_init.connect(weak=False)  # type: ignore[untyped-decorator]
@launch.setting_up()
def _on_worker_init(sender: Any, **_: Any) -> None:
    """Read the key and load the model, before the first task."""
    global _process
    launch.log(settings.log_level)  # Celery sets up logging only after this
    # What it announces is what it can run at once. Of pools, `-P threads` means ours.
    sender.pool_cls, sender.concurrency = TaskPool, settings.slots
    try:
        join = read_join_file(settings.key_path)
        model = _load_model()
        engine = Engine(model, on_broken=_on_broken)
        speed = int(engine.calibrate(CALIBRATE_S)) if settings.engine != "stub" else 0
    except ModelFileError as error:
        launch.die(f"{error.message} Set HERD_MODEL_PATH to a GGUF file that a worker can run.")
    except WorkerError as error:
        launch.die(str(error))
    for note in engine.facts.notes:
        _log.warning("model_adjusted", reason=note)
    engine.start()
    outbound = CelerySender(app)
    agent = Agent(
        engine,
        open_streams(settings.redis_url),
        outbound,
        join,
        settings,
        instance=f"w-{secrets.token_hex(8)}",
        tokens_per_s=speed,
        on_refused=_on_refused,
        on_drain=_on_drain,
        on_stuck=_on_stuck,
    )
    _process = _Process(join, agent, outbound)
    if not consume_own_queue(app, agent.instance, redis=settings.broker_is_redis):
        _log.warning("takes_nothing", reason="it does not consume the queue inference")
    if settings.engine == "llama":
        _log_template(engine.facts.template)
    _log.info(
        "model_ready",
        model=settings.model,
        slots=settings.slots,
        context=engine.facts.context,
        tokens_per_s=speed,
    )


def _log_template(template: TemplateFacts) -> None:
    """Tell operators where the chat template is from, and what it makes of system messages."""
    from_file = {} if template.path is None else {"path": template.path}
    if template.source == "none":
        _log.info("chat_template", source="none")
        return
    _log.info(
        "chat_template",
        source=template.source,
        **from_file,
        system=template.system,
        later_system=template.later_system,
        thinking=template.thinking or "none",
    )
    if not template.renders:
        _log.warning("chat_template_unusable", reason="it does not show the message of a user")


def _load_model() -> Model:
    if settings.engine == "stub":
        from workers.engine.stub import StubModel

        return StubModel(
            name=settings.model,
            context=settings.context or STUB_CONTEXT,
            slots=settings.slots,
            step_s=settings.stub_step_ms / 1000,
        )
    if settings.engine != "llama":
        from workers.engine.own import load_own_model

        return load_own_model(settings)
    _find_model()
    from workers.llama.model import LlamaModel
    from workers.llama.options import llama_options
    from workers.llama.trial import tried_in_child
    from workers.llama.verdicts import Verdicts

    memory = Verdicts(settings.verdicts_path)
    return LlamaModel(tried_in_child(llama_options(settings), memory))


@signals.worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
@launch.setting_up()
def _on_worker_ready(**_: Any) -> None:
    if _process is not None:
        _process.agent.start()


@signals.worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_shutting_down(how: str, **_: Any) -> None:
    # Celery waits for its threads without limit; they return as their attempts end.
    _drain()
    if how == "Cold":
        # It has waited for them already, and tells nobody of its end.
        _on_shutdown()


def _drain(grace_s: float | None = None) -> None:
    """Let the orders end, and the process too: whatever it waits for then, it has so long."""
    if _process is not None:
        timer = threading.Timer(_process.agent.drain(grace_s), _on_overrun)
        timer.daemon = True
        timer.start()


app.stop_at_once = lambda: _drain(grace_s=0)


def _on_overrun() -> None:
    # A broker or a Redis that does not answer, or a step of the model that does not end: whoever
    # told it to stop is about to kill it. What it had lapses, and another worker runs it.
    code = celery_state.should_stop
    _log.warning("stop_cut_short")
    os._exit(code if type(code) is int else 0)


@signals.worker_shutdown.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_shutdown(**_: Any) -> None:
    if _process is not None:
        _process.agent.close()
        _process.sender.close()


def _on_refused(reason: str) -> None:
    launch.tell(f"The herd refused this worker. {reason}")
    celery_state.should_stop = EXIT_SETUP
    _drain(grace_s=0)  # what it runs is of no use to anybody


def _on_drain() -> None:
    celery_state.should_stop = 0
    _drain()


def _on_broken(error: WorkerError) -> None:
    _log.error("model_broken", reason=error.message)
    # Not `should_terminate`, with which Celery would forget the exit code. What ran has ended.
    celery_state.should_stop = EXIT_BROKEN


def _on_stuck() -> None:
    # No thread can be made to leave a call of llama.cpp: the process ends, its supervisor starts
    # another, and the herder takes its orders back.
    _log.error("engine_stuck")
    os._exit(EXIT_BROKEN)
