"""The settings of a worker, `HERD_*`: validated once.

They come from the environment, then from the file `herd.env` of the home folder, the same as the
herder's.
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from workers.errors import SettingsError
from workers.transport.private_files import close_to_others
from workers.transport.settings import (
    MODEL_NAME,
    TransportSettings,
    WrongSetting,
    read_settings,
)
from workers.wire import PrivateKey, PublicKey, WireError

_OWN_ENGINE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _known_engine(value: str) -> str:
    if value in ("llama", "stub") or _OWN_ENGINE.fullmatch(value):
        return value
    raise ValueError("it must be llama, stub, or MODULE:FUNCTION of an engine of your own")


class WorkerSettings(TransportSettings):
    """The settings of a worker."""

    worker_key: Annotated[
        str,
        Field(
            description="The file that the worker joins with; empty for workers/worker.json in "
            "the home folder."
        ),
    ] = ""
    worker_name: Annotated[
        str,
        Field(
            max_length=128,
            pattern=r"^[0-9A-Za-z._-]*$",
            description="The worker's name in the herd; empty for host name and process id.",
        ),
    ] = ""
    engine: Annotated[
        str,
        AfterValidator(_known_engine),
        Field(
            description="The engine: `llama` is llama.cpp, `stub` the deterministic model that the "
            "tests use, and MODULE:FUNCTION makes one of your own (workers/engine/README.md)."
        ),
    ] = "llama"
    model: Annotated[
        str,
        Field(
            pattern=MODEL_NAME,
            description="The model's name in the herd; the same for all workers. Of a herder, "
            "the model that the herd serves from now on; without it, the one that it served.",
        ),
    ] = "smollm2-135m-instruct"
    model_path: Annotated[str, Field(description="The model's GGUF file.")] = ""
    model_trial: Annotated[
        bool,
        Field(
            description="Whether a worker tries the model out before its first start with it, and "
            "refuses one that llama.cpp computes wrong, or crashes with. What was found is "
            "remembered for as long as the model's file, llama.cpp, the machine and the settings "
            "stay the same; `herd worker check` tries it anew. false for a model that is known to "
            "answer right."
        ),
    ] = True
    chat_template: Annotated[
        str,
        Field(
            description="A file with a Jinja chat template, for a model without one or instead of "
            "its own; empty for the model's own. The same for all workers of a model."
        ),
    ] = ""
    system: Annotated[
        Literal["merge", "refuse"],
        Field(
            description="What happens to system messages that the model's chat template would "
            "lose, move or refuse: their text goes to the user's messages, or the prompt is "
            "refused."
        ),
    ] = "merge"
    slots: Annotated[
        int, Field(ge=1, le=256, description="How many orders are decoded at once.")
    ] = 16
    context: Annotated[
        int,
        Field(
            ge=0,
            le=2**22,
            description="Tokens of one order, prompt and answer together; 0 for its share of "
            "HERD_CELLS, up to what the model was trained for.",
        ),
    ] = 0
    threads: Annotated[
        int, Field(ge=0, le=1024, description="Threads that the model uses; 0 for all cores.")
    ] = 0
    gpu_layers: Annotated[
        int,
        Field(ge=-1, le=10_000, description="Layers on the GPU; -1 for all, if there is one."),
    ] = -1
    kv_type: Annotated[
        Literal["f16", "bf16", "q8_0", "f32"], Field(description="The number format of the cache.")
    ] = "f16"
    kv_layout: Annotated[
        Literal["unified", "separate"],
        Field(
            description="Whether each slot has its own part of the cache, or all orders share one "
            "and the common beginnings of their prompts."
        ),
    ] = "separate"
    cells: Annotated[
        int,
        Field(
            ge=256,
            le=2**26,
            description="Tokens that the cache holds for all orders together: an equal share for "
            "each slot, unless HERD_CONTEXT sets it; in a unified cache one order may use them "
            "all.",
        ),
    ] = 32_768
    prefixes: Annotated[
        int,
        Field(
            ge=0,
            le=255,
            description="How many prompt beginnings may stay in a unified cache after their "
            "orders, for others to share. With a part per slot, each stays until its slot is "
            "needed.",
        ),
    ] = 4
    share_prefixes: Annotated[
        bool,
        Field(
            description="Whether a common beginning of prompts is computed only once, whoever "
            "sent them. Somebody who measures the time to the first token may then learn what "
            "others asked recently."
        ),
    ] = True
    flash_attention: Annotated[
        Literal["auto", "on", "off"], Field(description="Flash attention.")
    ] = "auto"
    batch_tokens: Annotated[
        int,
        Field(
            ge=32, le=16_384, description="The maximum number of tokens in one step of the model."
        ),
    ] = 512
    step_tokens: Annotated[
        int,
        Field(
            ge=1,
            le=16_384,
            description="The maximum number of prompt tokens in a step in which other orders "
            "generate.",
        ),
    ] = 512
    requantize: Annotated[
        Literal["", "q8_0", "q4_0"],
        Field(
            description="Convert the weights, when they are loaded, to a type that may be faster "
            "here. It is then a different model, which the announcement and receipts say. Empty "
            "to keep the file's weights."
        ),
    ] = ""
    beat_s: Annotated[
        int, Field(ge=1, le=60, description="Seconds between two heartbeats of a worker.")
    ] = 3
    resend_s: Annotated[
        int,
        Field(
            ge=1, le=600, description="Seconds after which an unconfirmed outcome is sent again."
        ),
    ] = 5
    grace_s: Annotated[
        int,
        Field(
            ge=0,
            le=86_400,
            description="Seconds that a worker takes at most to stop, from the signal to its end, "
            "and at least 3. Orders run until 3 seconds before, and are then handed back. Give "
            "whoever kills processes (`docker stop`, systemd) more.",
        ),
    ] = 8
    stub_step_ms: Annotated[
        int, Field(ge=0, le=60_000, description="Milliseconds per step of the deterministic model.")
    ] = 0

    @property
    def key_path(self) -> Path:
        """The file that the worker joins with."""
        return Path(self.worker_key) if self.worker_key else self.home / "workers" / "worker.json"

    @property
    def verdicts_path(self) -> Path:
        """The file that remembers what trials of models found."""
        return self.home / "workers" / "trials.json"

    def called(self, name: str = "", *, slots: int | None = None) -> Self:
        """Return these settings with what was typed: a name, and how many orders at once.

        An order's share of the cache stays: a worker with fewer slots would have a longer context,
        and where it came first, the others would be refused for theirs.
        """
        typed: dict[str, Any] = {"worker_name": name} if name else {}
        if slots is not None:
            typed["slots"] = slots
            if self.kv_layout == "separate":
                typed["cells"] = self.cells // self.slots * slots
        return self.model_copy(update=typed)

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
    """The file that a worker joins with: its own key, and the herders that it obeys."""

    key: PrivateKey
    herders: dict[str, PublicKey]


def read_join_file(path: Path) -> JoinFile:
    """Read a worker's key file.

    Raises:
        SettingsError: the file is missing, or is not a key file.
    """
    close_to_others(path)
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
