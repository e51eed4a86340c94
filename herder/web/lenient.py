"""Takes calls that other servers take: a path with a slash at its end, and HEAD wherever GET is."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

IS_HEAD = "is_head"
"""The name in a call's state under which a response finds that nobody reads its body."""


class Lenient:
    """Serves a path with slashes at its end as the path without, and HEAD as GET.

    The server itself leaves the body of an answer to HEAD out. A response whose body has effects
    of its own, as a stream of an order's text has, asks `is_head`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a call."""
        if scope["type"] == "http":
            scope = dict(scope)
            scope["state"] = dict(scope.get("state", {}))
            if scope["method"] == "HEAD":
                scope["method"] = "GET"
                scope["state"][IS_HEAD] = True
            scope["path"] = scope["path"].rstrip("/") or "/"
            scope["raw_path"] = scope.get("raw_path", b"").rstrip(b"/") or b"/"
        await self._app(scope, receive, send)


def is_head(scope: Scope) -> bool:
    """Return whether nobody reads the body of a call's answer."""
    return bool(scope.get("state", {}).get(IS_HEAD))
