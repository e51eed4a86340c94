"""A herd on this machine: its home folder, and the programs to run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from herder.db.database import Database
from herder.errors import SetupError
from herder.host import home as home_folder
from herder.host.bundled import (
    MODEL_NAME,
    EmbeddedRedis,
    embedded_model,
    new_redis,
    read_redis,
    redis_config,
    redis_server,
    redis_trouble,
)
from herder.host.supervisor import Program
from herder.market.policy import read_policy, set_herd_model
from herder.settings import Settings, load_policy, load_settings
from workers.transport.settings import MODEL_NAME as MODEL_PATTERN
from workers.transport.settings import SETTINGS_FILE, WrongSetting, read_settings

MAX_WORKERS = 256

ROOT_OK = "ignore:You're running the worker with superuser privileges"

HERDER_STOP_S = 15
REDIS_STOP_S = 5
WORKER_KILL_S = 10
"""A worker ends itself after its grace time; this much later its supervisor does."""


class _WorkerValues(BaseSettings):
    """The workers' settings that are read here; the workers themselves check them."""

    model_config = SettingsConfigDict(env_prefix="HERD_", extra="ignore", frozen=True)

    engine: str = "llama"
    model: Annotated[str, Field(pattern=MODEL_PATTERN)] = MODEL_NAME
    model_path: str = ""
    threads: int = 0
    context: int = 0
    grace_s: Annotated[int, Field(ge=0, le=86_400)] = 8


@dataclass(frozen=True, slots=True)
class StartPlan:
    """The programs that will run.

    Attributes:
        stages: Redis, if it is ours; the herder; the workers.
        workers: the workers' names.
        join: the environment in which a further worker joins.
        env: the environment of all of them.
    """

    settings: Settings
    stages: list[list[Program]]
    workers: list[str]
    join: dict[str, str]
    env: dict[str, str]

    @property
    def names(self) -> list[str]:
        """Who will write lines."""
        return ["herd", *(program.name for stage in self.stages for program in stage)]


def make_plan(workers: int, folder: Path | None = None) -> StartPlan:
    """Make or complete the home folder, and say what will run.

    Args:
        workers: how many.
        folder: the home folder; None for `HERD_HOME`, else `~/.llama-herder`.

    Raises:
        HerdError: something is missing or wrong; the sentence says what to do.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise SetupError(f"The number of workers must be from 1 to {MAX_WORKERS}, not {workers}.")
    settings = load_settings(folder)
    values = _worker_values(settings.home)
    redis = _own_redis(settings)
    home_folder.init(settings, load_policy(settings.home))
    served = _served_model(settings, values)
    model_path = _model_path(values, served)
    if redis is not None:
        home_folder.write_once(redis.config, redis_config(redis))
        home_folder.set_lines(settings.home / SETTINGS_FILE, {"HERD_REDIS_URL": redis.url})
        settings = load_settings(settings.home)
        redis.check_port()
    names = [f"worker-{n}" for n in range(1, workers + 1)]
    keys = _worker_keys(settings, names)
    shared = {**os.environ, "HERD_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}
    # Celery warns root of pickled messages; the consumer takes none.
    shared["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), ROOT_OK]))
    # Without this, llama.cpp starts a debugger, where there is one, to print where it crashed.
    shared.setdefault("GGML_NO_BACKTRACE", "1")
    join = {"HERD_HOME": str(settings.home)}
    model = {"HERD_MODEL": served}
    if model_path:
        model["HERD_MODEL_PATH"] = model_path
    # Where two workers each spin on all cores, a token takes seconds.
    threads = {"HERD_THREADS": str(values.threads or max(1, _cores() // workers))}
    stop_s = values.grace_s + WORKER_KILL_S
    stages = [
        [Program("herder", _celery("herder", "herder"), shared, HERDER_STOP_S)],
        [
            Program(
                name,
                _celery("workers", "inference"),
                {
                    **shared,
                    **model,
                    **threads,
                    "HERD_WORKER_KEY": str(key),
                    "HERD_WORKER_NAME": name,
                },
                stop_s,
            )
            for name, key in zip(names, keys, strict=True)
        ],
    ]
    if redis is not None:
        command = [str(redis_server()), str(redis.config)]
        stages.insert(0, [Program("redis", command, shared, REDIS_STOP_S, redis.answers)])
    join["HERD_WORKER_KEY"] = str(settings.home / "workers" / "worker.json")
    join |= {**_chosen(values), **model, **threads}
    return StartPlan(settings, stages, names, join, shared)


def _worker_values(folder: Path) -> _WorkerValues:
    try:
        return read_settings(_WorkerValues, folder)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None


def _served_model(settings: Settings, values: _WorkerValues) -> str:
    """Return the model that this herd serves: the one of `HERD_MODEL`, else what it was before."""
    database = Database(settings.database)
    try:
        if "model" in values.model_fields_set:
            set_herd_model(database, values.model)
            return values.model
        return str(read_policy(database)["default_model"])
    finally:
        database.close()


def _model_path(values: _WorkerValues, served: str) -> str:
    """Return the model's file; empty where the workers need none."""
    if values.engine != "llama":
        return ""
    if values.model_path:
        return str(Path(values.model_path).expanduser().absolute())
    if served != MODEL_NAME:
        raise SetupError(f"Set HERD_MODEL_PATH to the GGUF file of {served}.")
    return str(embedded_model())


def _chosen(values: _WorkerValues) -> dict[str, str]:
    """Return the settings that another worker of this herd needs as well."""
    chosen = {}
    if values.context:
        chosen["HERD_CONTEXT"] = str(values.context)
    if values.engine != "llama":
        chosen["HERD_ENGINE"] = values.engine
    return chosen


def _own_redis(settings: Settings) -> EmbeddedRedis | None:
    """Return the Redis to start; None where one is given, which must answer.

    `HERD_REDIS_URL` in the home's `herd.env` may name our own, from the time before.
    """
    had = read_redis(settings.home)
    given = "redis_url" in settings.model_fields_set
    if given and (had is None or settings.redis_url != had.url):
        trouble = redis_trouble(settings.redis_url)
        if trouble is not None:
            raise SetupError(
                f"The Redis that HERD_REDIS_URL names does not answer ({trouble}). Start it, or "
                f"unset HERD_REDIS_URL (also in {settings.home / SETTINGS_FILE}), and `herd up` "
                "starts its own."
            )
        return None
    return had or new_redis(settings.home)


def _worker_keys(settings: Settings, names: list[str]) -> list[Path]:
    database = Database(settings.database)
    try:
        return [home_folder.add_worker_key(database, settings, name) for name in names]
    finally:
        database.close()


def _celery(app: str, queue: str) -> list[str]:
    # This Python's Celery, whatever is on PATH. -P: a file celery.py in the current folder is not
    # Celery. -q: without the banner.
    return [sys.executable, "-P", "-m", "celery", "-q", "-A", app, "worker", "-Q", queue]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
