"""A herd of real processes, and released clients that buy from it: `make test-clients`."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.clients.packages import NotToBeHad, node_command, python_command
from tests.flow.conftest import (  # noqa: F401 (fixtures)
    broker,
    make_herd,
    pytest_configure,
    redis_server,
)
from tests.support.wait import wait_for

PATIENT = {"HERD_LEASE_S": "60", "HERD_CLAIM_S": "60", "HERD_GRACE_S": "60"}
"""Times in which no attempt lapses because a machine is busy."""

COMMANDS = {"python": python_command, "node": node_command}

LIMIT_S = 300.0


@dataclass
class Caller:
    """A process that makes one call."""

    process: subprocess.Popen[str]
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    @property
    def text(self) -> str:
        return "".join(one.get("text", "") for one in self.said)

    @property
    def repetitions(self) -> int:
        """How often it sent the call again by itself."""
        return max((one["sent"] for one in self.said if "sent" in one), default=0)

    @property
    def error(self) -> dict[str, Any] | None:
        return next((one for one in self.said if "error" in one), None)

    @property
    def finish(self) -> str | None:
        return next((one["finish"] for one in self.said if one.get("finish")), None)

    def says_something(self) -> None:
        wait_for(lambda: self.text or self.error, "its first text", LIMIT_S)

    def begins(self) -> None:
        """Wait until its stream has begun, with or without a text."""
        wait_for(lambda: any("begun" in one for one in self.said), "its stream begins", LIMIT_S)

    def done(self) -> Caller:
        """Wait for its end."""
        code = self.process.wait(timeout=LIMIT_S)
        self._reading.join(timeout=30)
        assert self.process.stderr is not None
        assert code == 0, self.process.stderr.read()[-2000:]
        return self

    def hang_up(self) -> None:
        """End it in the middle."""
        self.process.kill()
        self.process.wait(timeout=30)
        self._reading.join(timeout=30)


@pytest.fixture
def herd(request: pytest.FixtureRequest, make_herd: Callable[..., Any]) -> Any:  # noqa: F811
    """A herder and no worker yet; its settings may be a parameter."""
    made = make_herd(**getattr(request, "param", PATIENT))
    made.start_herder()
    return made


@pytest.fixture(params=sorted(COMMANDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    """What makes a call with one of the packages; skipped, or failed in CI, without it."""
    try:
        return COMMANDS[request.param]()
    except NotToBeHad as error:
        if os.environ.get("CI"):
            pytest.fail(f"{request.param}: {error}")
        pytest.skip(f"{request.param}: {error}")


@pytest.fixture
def call(command: list[str], herd: Any) -> Iterator[Callable[..., Caller]]:
    """Begins a call: `call(url, tokens=…, stream=…, …)`."""
    _, api_key = herd.client.api_keys.create("default")
    made: list[Caller] = []

    def begin(url: str, **asked: Any) -> Caller:
        given = {"url": url, "api_key": api_key, "prompt": "Tell me.", "stream": False, **asked}
        process = subprocess.Popen(
            [*command, json.dumps(given)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        made.append(Caller(process))
        return made[-1]

    yield begin
    for one in made:
        if one.process.poll() is None:
            one.hang_up()
