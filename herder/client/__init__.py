"""The library for programs that buy: `submit`, `quote`, `info`, `Order`, here or over HTTP.

Rules: written against `herder.interface`; it asks nowhere whether the herd is on this machine. An
API key is no argument of a command and stands in no message. It works where only the client is
installed: what else a module imports belongs to an extra and stands in `optional`.

May not enter: SQLAlchemy, Redis, Celery, structlog, pydantic-settings (a contract of import-linter
holds that), or any rule about money; the herder decides, the client asks.
"""

from herder.client.api import count_tokens, info, quote, submit
from herder.client.order import Order

__all__ = ["Order", "count_tokens", "info", "quote", "submit"]
