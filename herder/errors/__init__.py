"""One tree of errors: each has a sentence that says what was wrong and what would be right.

HerdError
├── InvalidRequest            the call is wrong; nothing was held
│   ├── InvalidTokens, InvalidFee, InvalidMultiplier, InvalidPrompt, InvalidStop, InvalidSampling
│   │   └── InvalidSchema; InvalidTemplateArguments, which is an InvalidPrompt
│   ├── InvalidReference, InvalidIdempotencyKey, InvalidName, InvalidAmount, InvalidRunLimit
│   ├── InvalidStartBy, InvalidReceipt, InvalidBids, InvalidWebhook, InvalidMessage
│   ├── InvalidQuote           no quote of this herd
│   ├── QuoteMismatch          the quote is for another order
│   ├── TooManyTokens         more than the model's context
│   ├── PromptTooLong         with its prompt, an InvalidPrompt
│   ├── FeeTooLow             below what is needed
│   └── FeeAboveMax           the automatic fee is above the caller's `max_fee`
├── NotFound: AccountNotFound, ModelNotFound, OrderNotFound, WorkerNotFound, ApiKeyNotFound,
│   └── GrantNotFound, WebhookNotFound
├── Unauthorized, Forbidden   no API key, or not for this
├── ApiKeyLimitReached           the API key may not spend that
├── AccountExists, IdempotencyKeyReused, RefundRefused
├── RateLimited               when to try again
├── RebidTooLow, OrderNotWaiting
├── QuoteExpired              its minute has passed
├── InsufficientBalance       the account has less than is needed
├── OrderEnded: OrderFailed, OrderCancelled, OrderExpired
├── OrderSetAside             it cannot be settled, and an operator decides
├── StreamRestarted, ResultTimeout
└── SetupError: DatabaseVersionMismatch; HerdUnavailable

Rules: an error is a sentence, a stable code and its data; a new one is exported by `herder`. The
package hands on all of them. What reaches a buyer names no command of an operator's: that is its
`hint`, or the error is a SetupError, whose `told_callers` is what reaches buyers over HTTP.

May not enter: anything of ours but the plain data of `herder.types`.
"""

from herder.errors.absent import (
    AccountNotFound,
    ApiKeyNotFound,
    GrantNotFound,
    ModelNotFound,
    NotFound,
    OrderNotFound,
    WebhookNotFound,
    WorkerNotFound,
)
from herder.errors.base import HerdError, sentence, shown
from herder.errors.ends import (
    OrderCancelled,
    OrderEnded,
    OrderExpired,
    OrderFailed,
    OrderSetAside,
    ResultTimeout,
    StreamRestarted,
)
from herder.errors.refusals import (
    AccountExists,
    ApiKeyLimitReached,
    Forbidden,
    IdempotencyKeyReused,
    InsufficientBalance,
    OrderNotWaiting,
    QuoteExpired,
    RateLimited,
    RebidTooLow,
    RefundRefused,
    Unauthorized,
)
from herder.errors.requests import (
    FeeAboveMax,
    FeeTooLow,
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
    PromptTooLong,
    QuoteMismatch,
    TooManyTokens,
)
from herder.errors.setup import DatabaseVersionMismatch, HerdUnavailable, SetupError

__all__ = [
    "shown",
    "sentence",
    "HerdError",
    "InvalidRequest",
    "InvalidTokens",
    "TooManyTokens",
    "InvalidRunLimit",
    "InvalidStartBy",
    "InvalidReceipt",
    "InvalidQuote",
    "QuoteMismatch",
    "InvalidBids",
    "InvalidWebhook",
    "InvalidMessage",
    "InvalidFee",
    "InvalidMultiplier",
    "FeeTooLow",
    "DatabaseVersionMismatch",
    "FeeAboveMax",
    "InvalidPrompt",
    "PromptTooLong",
    "InvalidStop",
    "InvalidSampling",
    "InvalidSchema",
    "InvalidTemplateArguments",
    "InvalidReference",
    "InvalidIdempotencyKey",
    "InvalidName",
    "InvalidAmount",
    "NotFound",
    "AccountNotFound",
    "ModelNotFound",
    "OrderNotFound",
    "ApiKeyNotFound",
    "GrantNotFound",
    "WebhookNotFound",
    "Unauthorized",
    "Forbidden",
    "ApiKeyLimitReached",
    "WorkerNotFound",
    "AccountExists",
    "IdempotencyKeyReused",
    "RefundRefused",
    "RateLimited",
    "RebidTooLow",
    "OrderNotWaiting",
    "QuoteExpired",
    "InsufficientBalance",
    "OrderEnded",
    "OrderFailed",
    "OrderCancelled",
    "OrderExpired",
    "OrderSetAside",
    "StreamRestarted",
    "ResultTimeout",
    "SetupError",
    "HerdUnavailable",
]
