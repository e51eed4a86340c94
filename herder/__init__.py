"""Llama Herder: a shared herd of machines for LLM inference, paid by the prompt.

    from herder import submit

    print(submit("What is the meaning of life?", 20, fee=100).result().text)

Importing this package loads neither Celery nor SQLAlchemy nor a model; the first call does.
"""

from typing import TYPE_CHECKING, Any

from herder.client import Order, count_tokens, info, quote, submit
from herder.errors import (
    AccountExists,
    AccountNotFound,
    ApiKeyLimitReached,
    ApiKeyNotFound,
    DatabaseVersionMismatch,
    FeeAboveMax,
    FeeTooLow,
    Forbidden,
    GrantNotFound,
    HerdError,
    HerdUnavailable,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidAmount,
    InvalidBids,
    InvalidFee,
    InvalidIdempotencyKey,
    InvalidMessage,
    InvalidMultiplier,
    InvalidName,
    InvalidPrompt,
    InvalidQuote,
    InvalidReceipt,
    InvalidReference,
    InvalidRequest,
    InvalidRunLimit,
    InvalidSampling,
    InvalidSchema,
    InvalidStartBy,
    InvalidStop,
    InvalidTemplateArguments,
    InvalidTokens,
    InvalidWebhook,
    ModelNotFound,
    NotFound,
    OrderCancelled,
    OrderEnded,
    OrderExpired,
    OrderFailed,
    OrderNotFound,
    OrderNotWaiting,
    OrderSetAside,
    PromptTooLong,
    QuoteExpired,
    QuoteMismatch,
    RateLimited,
    RebidTooLow,
    RefundRefused,
    ResultTimeout,
    SetupError,
    StreamRestarted,
    TooManyTokens,
    Unauthorized,
    WebhookNotFound,
    WorkerNotFound,
)
from herder.types import Bid, Info, ModelInfo, Quote, Rate, Receipt, Result, TokenCount, Usage
from herder.version import __version__

if TYPE_CHECKING:
    from herder.client.http.async_client import AsyncClient
    from herder.client.http.client import Client


def __getattr__(name: str) -> Any:
    """`Client` and `AsyncClient`, loaded when they are asked for."""
    if name in ("Client", "AsyncClient"):
        from herder.client import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    # what a program calls
    "submit",
    "quote",
    "count_tokens",
    "info",
    # the same over HTTP
    "Client",
    "AsyncClient",
    # what it gets
    "Order",
    "Result",
    "Receipt",
    "Usage",
    "Quote",
    "Bid",
    "TokenCount",
    "Rate",
    "Info",
    "ModelInfo",
    # what can go wrong
    "HerdError",
    "InvalidRequest",
    "InvalidTemplateArguments",
    "InvalidTokens",
    "TooManyTokens",
    "InvalidFee",
    "InvalidMultiplier",
    "FeeTooLow",
    "FeeAboveMax",
    "InvalidPrompt",
    "PromptTooLong",
    "InvalidStop",
    "InvalidSampling",
    "InvalidSchema",
    "InvalidReference",
    "InvalidIdempotencyKey",
    "InvalidMessage",
    "InvalidName",
    "InvalidAmount",
    "InvalidRunLimit",
    "InvalidStartBy",
    "InvalidReceipt",
    "InvalidQuote",
    "QuoteMismatch",
    "InvalidBids",
    "InvalidWebhook",
    "NotFound",
    "AccountNotFound",
    "ModelNotFound",
    "OrderNotFound",
    "WorkerNotFound",
    "ApiKeyNotFound",
    "WebhookNotFound",
    "Unauthorized",
    "Forbidden",
    "GrantNotFound",
    "ApiKeyLimitReached",
    "AccountExists",
    "IdempotencyKeyReused",
    "RefundRefused",
    "RateLimited",
    "RebidTooLow",
    "OrderNotWaiting",
    "OrderSetAside",
    "QuoteExpired",
    "InsufficientBalance",
    "OrderEnded",
    "OrderFailed",
    "OrderCancelled",
    "OrderExpired",
    "StreamRestarted",
    "ResultTimeout",
    "SetupError",
    "DatabaseVersionMismatch",
    "HerdUnavailable",
    "__version__",
]
