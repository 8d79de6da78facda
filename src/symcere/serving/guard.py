"""What stands before every request: limits, the token, headers that keep a browser safe, a line in the log."""

import asyncio
import hmac
import json
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger("symcere.serving")
_CLIENTS = 10_000  # whose rate is remembered
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What one request, one client and the process may ask for.

    Args:
        body_bytes: Largest body; 413 above.
        rate: Requests a second of one client, after a burst of twice as many; 429 above. 0 for no limit.
        concurrent: Requests in hand; 503 above.
        seconds: A body that takes longer to arrive is given up; 408.
    """

    body_bytes: int = 65_536
    rate: float = 200.0
    concurrent: int = 64
    seconds: float = 10.0


class _RefusedError(HTTPException):
    """Of Starlette's kind, because FastAPI lets no other pass while it reads a body."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(status.value, message)


class Guard:
    """ASGI middleware; health and page need no token.

    Args:
        app: What it stands before.
        limits: The limits.
        token: What `Authorization: Bearer` must hold for /v1 and /metrics; None for anybody.
        registry: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, registry: CollectorRegistry) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.in_hand = 0
        self.clients: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.counted = Counter("symcere_requests", "Requests", ["path", "status"], registry=registry)
        self.seconds = Histogram("symcere_request_seconds", "Seconds a request took", ["path"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it with the reason why not."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, started = time.perf_counter(), 500, False

        async def guarded_send(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                headers = [*message.get("headers", [])]
                there = {name.lower() for name, _ in headers}
                more = ((name.encode(), value.encode()) for name, value in _HEADERS.items())
                message = {**message, "headers": headers + [(n, v) for n, v in more if n not in there]}
            await send(message)

        self.in_hand += 1
        try:
            self._check(scope)
            await self.app(scope, self._limited(receive), guarded_send)
        except _RefusedError as refused:
            if not started:
                await _answer(guarded_send, HTTPStatus(refused.status_code), refused.detail)
        finally:
            self.in_hand -= 1
            path = getattr(scope.get("route"), "path_format", "other")
            took = time.perf_counter() - began
            self.counted.labels(path, str(status)).inc()
            self.seconds.labels(path).observe(took)
            line = {"method": scope["method"], "path": path, "status": status, "ms": round(took * 1_000, 2)}
            _LOG.info(json.dumps(line))  # no query: what people search for is theirs

    def _check(self, scope: Scope) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        if path in ("/health", "/ready"):
            return
        if self.in_hand > self.limits.concurrent:
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "Too many requests are in hand. Try again soon.")
        client = (scope.get("client") or ("nobody",))[0]
        if self.limits.rate and not self._may(client):
            raise _RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS, f"More than {self.limits.rate:g} requests a second. Try again later."
            )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limits.body_bytes:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {self.limits.body_bytes:,} bytes."
            )
        if self.token is not None and (path.startswith("/v1") or path == "/metrics"):
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, f"Bearer {self.token}".encode()):
                raise _RefusedError(HTTPStatus.UNAUTHORIZED, "This service wants Authorization: Bearer TOKEN.")

    def _may(self, client: str) -> bool:
        """A token bucket a client: filled by `rate` a second up to twice of it."""
        now, rate = time.monotonic(), self.limits.rate
        left, since = self.clients.pop(client, (2 * rate, now))
        left = min(left + (now - since) * rate, 2 * rate)
        self.clients[client] = (left - 1 if left >= 1 else left, now)
        if len(self.clients) > _CLIENTS:
            self.clients.popitem(last=False)
        return left >= 1

    def _limited(self, receive: Receive) -> Receive:
        """Receive no more, and wait no longer, than the limits say."""
        arrived, whole, until = 0, False, 0.0

        async def limited() -> Message:
            nonlocal arrived, whole, until
            until = until or asyncio.get_running_loop().time() + self.limits.seconds  # one limit for all chunks
            try:
                async with asyncio.timeout_at(None if whole else until):
                    message = await receive()
            except TimeoutError:
                raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time.") from None
            arrived += len(message.get("body", b""))
            if arrived > self.limits.body_bytes:
                raise _RefusedError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body may have {self.limits.body_bytes:,} bytes."
                )
            whole = not message.get("more_body", False)  # what comes next is the end of the connection: there is time
            return message

        return limited


async def _answer(send: Send, status: HTTPStatus, message: str) -> None:
    body = json.dumps({"error": {"code": status.phrase.lower().replace(" ", "_"), "message": message}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers.append((b"retry-after", b"1"))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
