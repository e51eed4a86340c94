"""A server of ours hears that it is to stop, however early that is said."""

from __future__ import annotations

import signal

import pytest

from herder.web import serving
from herder.web.bounds import HttpBounds


async def app(scope, receive, send):
    """Serves nothing; it starts, and it stops."""
    assert scope["type"] == "lifespan"
    for step in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{step}"
        await send({"type": f"lifespan.{step}.complete"})


def served(**more):
    with serving.listen("127.0.0.1", 0, "server", "HERD_PORT") as listening:
        serving.run(app, listening, bounds=HttpBounds(), **more)


@pytest.mark.parametrize("how", serving.SIGNALS)
def test_told_to_stop_as_soon_as_it_is_ready_it_ends_well(how):
    happened = []

    def ready():
        happened.append("ready")
        signal.raise_signal(how)

    served(ready=ready, stopping=lambda: happened.append("stopping"))
    assert happened[:2] == ["ready", "stopping"]


@pytest.mark.parametrize("how", serving.SIGNALS)
def test_told_to_stop_before_it_is_ready_it_ends_well(how, monkeypatch):
    run = serving._Server.run

    def hit(server, **more):
        signal.raise_signal(how)
        run(server, **more)

    monkeypatch.setattr(serving._Server, "run", hit)
    served(ready=lambda: None)


@pytest.mark.parametrize("how", serving.SIGNALS)
def test_afterwards_signals_are_heard_as_before(how):
    before = signal.getsignal(how)
    served(ready=lambda: signal.raise_signal(how))
    assert signal.getsignal(how) is before
