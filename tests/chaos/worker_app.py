"""A worker that dies where it is told to: `celery -A tests.chaos.worker_app worker`."""

from __future__ import annotations

from tests.chaos.points import install

install()

from workers.celery import app  # noqa: E402

__all__ = ["app"]
