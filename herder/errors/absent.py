"""Raised when something that was named does not exist."""

from __future__ import annotations

from herder.errors.base import HerdError, shown


class NotFound(HerdError):
    """Raised when something that was named does not exist."""

    code = "not_found"


class AccountNotFound(NotFound):
    """Raised when no account has this name."""

    code = "account_not_found"

    def __init__(self, account: str) -> None:
        super().__init__(
            f"There is no account {account!r}; the herd's operator creates accounts.",
            account=account,
        )
        self.hint = f"`herd account create {account}` creates it."


class ModelNotFound(NotFound):
    """Raised when nobody has configured this model."""

    code = "model_not_found"

    def __init__(self, model: str, known: list[str]) -> None:
        has = ", ".join(known) if known else "none yet"
        super().__init__(f"There is no model {model!r} here. Known models: {has}.", model=model)


class OrderNotFound(NotFound):
    """Raised when no order has this id, or it is another account's."""

    code = "order_not_found"

    def __init__(self, order: str) -> None:
        super().__init__(f"There is no order {order!r}.", order=order)


class ApiKeyNotFound(NotFound):
    """Raised when no API key has this id, or it is another account's."""

    code = "api_key_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"There is no API key {shown(key)!r}.", key=shown(key))


class GrantNotFound(NotFound):
    """Raised when no grant has this id."""

    code = "grant_not_found"

    def __init__(self, grant: str) -> None:
        super().__init__(f"There is no grant {shown(grant)!r}.", grant=shown(grant))


class WebhookNotFound(NotFound):
    """Raised when no webhook or message of one has this id, or it is another account's."""

    code = "webhook_not_found"

    def __init__(self, webhook: str) -> None:
        super().__init__(f"There is no webhook {shown(webhook)!r}.", webhook=shown(webhook))


class WorkerNotFound(NotFound):
    """Raised when no worker of this name is here."""

    code = "worker_not_found"

    def __init__(self, worker: str, here: list[str]) -> None:
        has = ", ".join(here[:20]) if here else "none"
        super().__init__(f"There is no worker {worker!r} here. Workers: {has}.", worker=worker)
