"""A herder that dies where it is told to: `celery -A tests.chaos.herder_app worker`."""

from __future__ import annotations

from tests.chaos.points import install

install()

from herder.celery import app  # noqa: E402

__all__ = ["app"]
