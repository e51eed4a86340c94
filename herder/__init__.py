"""Llama Herder: a shared herd of machines for LLM inference, paid by the prompt.

    from herder import submit

    print(submit("What is the meaning of life?", 20, fee=100).result().text)

Importing this package loads neither Celery nor SQLAlchemy nor a model; the first call does.
"""

from herder.client import Order, info, quote, submit
from herder.errors import (
    AccountExists,
    AccountNotFound,
    FeeAboveMax,
    FeeTooLow,
    HerdError,
    HerdUnavailable,
    InsufficientBalance,
    InvalidAmount,
    InvalidFee,
    InvalidKey,
    InvalidMultiplier,
    InvalidName,
    InvalidPrompt,
    InvalidReference,
    InvalidRequest,
    InvalidRunLimit,
    InvalidSampling,
    InvalidStop,
    InvalidTokens,
    KeyReused,
    ModelNotFound,
    NotFound,
    OrderCancelled,
    OrderEnded,
    OrderExpired,
    OrderFailed,
    OrderNotFound,
    RefundRefused,
    ResultTimeout,
    SetupError,
    StreamRestarted,
    TooManyTokens,
)
from herder.receipts import Info, ModelInfo, Quote, Rate, Receipt, Result, Usage
from herder.version import __version__

__all__ = [
    # what a program calls
    "submit",
    "quote",
    "info",
    # what it gets
    "Order",
    "Result",
    "Receipt",
    "Usage",
    "Quote",
    "Rate",
    "Info",
    "ModelInfo",
    # what can go wrong
    "HerdError",
    "InvalidRequest",
    "InvalidTokens",
    "TooManyTokens",
    "InvalidFee",
    "InvalidMultiplier",
    "FeeTooLow",
    "FeeAboveMax",
    "InvalidPrompt",
    "InvalidStop",
    "InvalidSampling",
    "InvalidReference",
    "InvalidKey",
    "InvalidName",
    "InvalidAmount",
    "InvalidRunLimit",
    "NotFound",
    "AccountNotFound",
    "ModelNotFound",
    "OrderNotFound",
    "AccountExists",
    "KeyReused",
    "RefundRefused",
    "InsufficientBalance",
    "OrderEnded",
    "OrderFailed",
    "OrderCancelled",
    "OrderExpired",
    "StreamRestarted",
    "ResultTimeout",
    "SetupError",
    "HerdUnavailable",
    "__version__",
]
