"""What may be imported lightly, and what the package promises to programs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import herder

ROOT = Path(__file__).parents[2]

LOOK = """
import sys
import {module}
heavy = [name for name in {heavy!r} if name in sys.modules]
assert not heavy, heavy
"""
HEAVY = ["celery", "kombu", "llama_cpp", "numpy"]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("workers", HEAVY),
        ("workers.wire", [*HEAVY, "redis", "sqlalchemy"]),
        ("workers.transport", HEAVY),
        ("workers.transport.streams", HEAVY),
        ("workers.engine.stub", HEAVY),
        ("workers.engine.engine", HEAVY),
        ("herder", [*HEAVY, "redis", "sqlalchemy", "httpx"]),
        ("herder.client.http.remote_herd", [*HEAVY, "redis", "sqlalchemy", "fastapi"]),
        ("herder.client.http.async_client", [*HEAVY, "redis", "sqlalchemy", "fastapi"]),
        ("herder.cli.app", [*HEAVY, "redis", "sqlalchemy", "httpx", "pydantic", "jwt"]),
        ("herder.errors", [*HEAVY, "sqlalchemy", "pydantic"]),
        ("herder.local.local_herd", HEAVY),
        ("herder.service.loop", HEAVY),
        ("ledger", [*HEAVY, "redis"]),
    ],
)
def test_importing_it_loads_nothing_heavy(module, heavy):
    look = LOOK.format(module=module, heavy=heavy)
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_the_exported_names_are_these():
    """A name that goes, or comes, is a decision: programs import them."""
    assert sorted(herder.__all__) == [
        "AccountExists",
        "AccountNotFound",
        "ApiKeyLimitReached",
        "ApiKeyNotFound",
        "AsyncClient",
        "Bid",
        "Client",
        "DatabaseVersionMismatch",
        "FeeAboveMax",
        "FeeTooLow",
        "Forbidden",
        "GrantNotFound",
        "HerdError",
        "HerdUnavailable",
        "IdempotencyKeyReused",
        "Info",
        "InsufficientBalance",
        "InvalidAmount",
        "InvalidBids",
        "InvalidFee",
        "InvalidIdempotencyKey",
        "InvalidMessage",
        "InvalidMultiplier",
        "InvalidName",
        "InvalidPrompt",
        "InvalidQuote",
        "InvalidReceipt",
        "InvalidReference",
        "InvalidRequest",
        "InvalidRunLimit",
        "InvalidSampling",
        "InvalidSchema",
        "InvalidStartBy",
        "InvalidStop",
        "InvalidTemplateArguments",
        "InvalidTokens",
        "InvalidWebhook",
        "ModelInfo",
        "ModelNotFound",
        "NotFound",
        "Order",
        "OrderCancelled",
        "OrderEnded",
        "OrderExpired",
        "OrderFailed",
        "OrderNotFound",
        "OrderNotWaiting",
        "OrderSetAside",
        "PromptTooLong",
        "Quote",
        "QuoteExpired",
        "QuoteMismatch",
        "Rate",
        "RateLimited",
        "RebidTooLow",
        "Receipt",
        "RefundRefused",
        "Result",
        "ResultTimeout",
        "SetupError",
        "StreamRestarted",
        "TokenCount",
        "TooManyTokens",
        "Unauthorized",
        "Usage",
        "WebhookNotFound",
        "WorkerNotFound",
        "__version__",
        "count_tokens",
        "info",
        "quote",
        "submit",
    ]


def test_every_exported_name_is_there_and_every_error_is_exported():
    for name in herder.__all__:
        assert getattr(herder, name) is not None
    from herder import errors

    tree = [errors.HerdError]
    for error in tree:
        tree += error.__subclasses__()
    ours = {error.__name__ for error in tree if error.__module__.startswith("herder.errors.")}
    assert ours <= set(herder.__all__)


def test_every_error_has_a_code_of_its_own():
    from herder import errors

    codes = [
        error.code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.HerdError)
    ]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("room", ["herder", "ledger", "workers"])
def test_modules_are_few_where_they_stand_and_none_is_long(room):
    modules = [path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    lengths = {path: len(path.read_text().splitlines()) for path in modules}
    assert median(lengths.values()) < 200
    assert {path: length for path, length in lengths.items() if length > 400} == {}
    if room != "ledger":  # a room of thirteen modules on one subject
        assert len([path for path in modules if path.parent == ROOT / room]) <= 12


def test_each_package_says_what_it_is_for_and_what_may_not_enter():
    """A room of the house says it in its README, a package in its docstring."""
    inits = [*(ROOT / "herder").rglob("__init__.py"), *(ROOT / "workers").rglob("__init__.py")]
    for init in inits:
        if init.parent.name != "versions" and not (init.parent / "README.md").exists():
            said = ast.get_docstring(ast.parse(init.read_text())) or ""
            assert "May not enter:" in said, init
