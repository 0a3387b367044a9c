"""Around every request: a number to find it by, and what is counted of it."""

import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.serving.metrics import Metrics

COUNTED = "/v1/depth"
ID = "x-request-id"


class Watch:
    """Gives each request a number, its client's own or a new one, and counts it.

    Args:
        app: What answers.
        metrics: What counts.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        scope.setdefault("state", {})["id"] = number = _number(Headers(scope=scope))

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[ID] = number
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            if scope["path"] == COUNTED:
                adapter = scope["state"].get("adapter") or ""
                self.metrics.requests.labels(status, adapter).inc()
                self.metrics.taken("whole")(time.monotonic() - began)


def _number(headers: Headers) -> str:
    given = headers.get(ID, "")
    fits = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
    return given if fits else uuid.uuid4().hex
