"""The settings of a worker, `HERD_*`: validated once.

They come from the environment, then from the file `herd.env` of the home folder, the same as the
herder's.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from workers.errors import SettingsError
from workers.transport.settings import (
    MODEL_NAME,
    TransportSettings,
    WrongSetting,
    read_settings,
)
from workers.wire import PrivateKey, PublicKey, WireError


class WorkerSettings(TransportSettings):
    """What a worker reads."""

    worker_key: Annotated[
        str,
        Field(
            description="The file that the worker joins with; empty: workers/worker.json in "
            "the home folder."
        ),
    ] = ""
    worker_name: Annotated[
        str,
        Field(
            max_length=128,
            pattern=r"^[0-9A-Za-z._-]*$",
            description="The worker's name in the herd; empty: host and process id.",
        ),
    ] = ""
    engine: Annotated[
        Literal["llama", "stub"],
        Field(description="What answers: llama.cpp, or the deterministic model of the tests."),
    ] = "llama"
    model: Annotated[
        str,
        Field(
            pattern=MODEL_NAME,
            description="The model's name in the herd; the same for all its workers.",
        ),
    ] = "smollm2-135m-instruct"
    model_path: Annotated[str, Field(description="The model's GGUF file.")] = ""
    slots: Annotated[int, Field(ge=1, le=256, description="Orders that are decoded at once.")] = 16
    context: Annotated[
        int,
        Field(
            ge=0,
            le=2**22,
            description="Tokens of one order, prompt and answer together; 0: its part of "
            "HERD_CELLS, but no more than the model was trained for.",
        ),
    ] = 0
    threads: Annotated[
        int, Field(ge=0, le=1024, description="Threads of the model; 0: all cores.")
    ] = 0
    gpu_layers: Annotated[
        int,
        Field(ge=-1, le=10_000, description="Layers on the GPU; -1: all, where there is one."),
    ] = -1
    kv_type: Annotated[
        Literal["f16", "bf16", "q8_0", "f32"], Field(description="How the cache is kept.")
    ] = "f16"
    kv_layout: Annotated[
        Literal["unified", "separate"],
        Field(
            description="A part of the cache for each slot, or one for all orders, which then hold "
            "the beginnings of their prompts in common."
        ),
    ] = "separate"
    cells: Annotated[
        int,
        Field(
            ge=256,
            le=2**26,
            description="Tokens of all orders together that the cache holds: an equal part for "
            "each slot, unless HERD_CONTEXT says how many; unified, one order may have all.",
        ),
    ] = 32_768
    prefixes: Annotated[
        int,
        Field(
            ge=0,
            le=255,
            description="Beginnings of prompts that may stay in a unified cache after their order, "
            "for others to share. With a part for each slot, all stay until it is wanted.",
        ),
    ] = 4
    share_prefixes: Annotated[
        bool,
        Field(
            description="Compute what prompts begin with in common once, whoever sent them. Who "
            "measures the time to the first token may learn what others asked lately."
        ),
    ] = True
    flash_attention: Annotated[
        Literal["auto", "on", "off"], Field(description="Flash attention.")
    ] = "auto"
    batch_tokens: Annotated[
        int, Field(ge=32, le=16_384, description="The most tokens in one step of the model.")
    ] = 512
    step_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=16_384,
            description="The most tokens of prompts in a step in which others generate.",
        ),
    ] = 512
    requantize: Annotated[
        Literal["", "q8_0", "q4_0"],
        Field(
            description="Convert the weights at load to a type that may be faster here. It is then "
            "another model, bit for bit: announcement and receipts say so. Empty: as in the file."
        ),
    ] = ""
    beat_s: Annotated[
        int, Field(ge=1, le=60, description="Seconds between two beats of a worker.")
    ] = 3
    resend_s: Annotated[
        int,
        Field(ge=1, le=600, description="Seconds until an unconfirmed outcome is sent again."),
    ] = 5
    grace_s: Annotated[
        int,
        Field(
            ge=0,
            le=86_400,
            description="Seconds that a worker told to stop lets its orders "
            "run before it hands them back.",
        ),
    ] = 10
    stub_step_ms: Annotated[
        int, Field(ge=0, le=60_000, description="Milliseconds a step of the deterministic model.")
    ] = 0

    @property
    def key_path(self) -> Path:
        """The file that the worker joins with."""
        return Path(self.worker_key) if self.worker_key else self.home / "workers" / "worker.json"

    @property
    def name(self) -> str:
        """What people call this worker."""
        return self.worker_name or f"{socket.gethostname().split('.')[0]}-{os.getpid()}"


def load_settings() -> WorkerSettings:
    """Read the worker's settings of environment and home folder.

    Raises:
        SettingsError: a value is wrong; the sentence names it.
    """
    try:
        return read_settings(WorkerSettings)
    except WrongSetting as error:
        raise SettingsError(str(error)) from None


@dataclass(frozen=True, slots=True)
class JoinFile:
    """What a worker joins with: its own key, and the herders whose orders it obeys."""

    key: PrivateKey
    herders: dict[str, PublicKey]


def read_join_file(path: Path) -> JoinFile:
    """Read a worker's key file.

    Raises:
        SettingsError: it is not there, or is no such file.
    """
    try:
        content = json.loads(path.read_text())
        herders = [PublicKey.from_jwk(jwk) for jwk in content["herders"]]
        return JoinFile(
            PrivateKey.from_jwk(content["worker"]), {public.kid: public for public in herders}
        )
    except FileNotFoundError:
        raise SettingsError(
            f"The worker's key is missing at {path}; `herd init` creates one, or set "
            "HERD_WORKER_KEY to the file that the herd's operator gave you."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, WireError):
        raise SettingsError(f"The file {path} cannot be read as a worker's key.") from None
