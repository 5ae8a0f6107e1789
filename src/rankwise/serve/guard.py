"""What is refused before a route sees it: strangers, strange hosts, bodies that are large, slow or no JSON."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from rankwise.serve.limits import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/", "/healthz", "/readyz")
"""that need no token: they tell nothing of the classifiers"""
_READ_ON = 8
"""times the largest body, and no more, of one that is too large"""


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Guard:
    """An ASGI application around another.

    token
        That every request but those for `OPEN_PATHS` must bear. Without one the server is for this machine alone, and a
        page of another site, whose name was made to mean this machine, is refused by its Host.
    """

    def __init__(self, app: App, limits: Limits, token: str | None) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.draining = False
        """whether answers close their connections: the server is about to end"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on with the body read."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        try:
            body = await asyncio.wait_for(self._body(receive), self.limits.body_s)
        except asyncio.TimeoutError:
            await _answer(send, 408, "the body did not arrive in time")
            return
        if body is None:
            await _answer(send, 413, f"the body has more than {self.limits.body_bytes:,} bytes")
            return
        await self.app(scope, _replay(body, receive), _last(send) if self.draining else send)

    def _refused(self, scope: Scope, headers: MutableMapping[str, str]) -> tuple[int, str] | None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self.limits.header_bytes:
            return 431, f"the headers have more than {self.limits.header_bytes:,} bytes"
        if self.token is None:
            host = headers.get("host", "")
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if not is_loopback(name.removeprefix("[").removesuffix("]")):
                return 421, "this server answers on this machine alone"
        elif scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
            if not hmac.compare_digest(given, self.token.encode()):
                return 401, "a bearer token is needed"
        if scope["method"] == "POST" and not headers.get("content-type", "").lower().startswith("application/json"):
            return 415, "expected content-type: application/json"
        return None

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, None when it is too large: then it is read on for a while, or the client would not read why."""
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            piece = message.get("body", b"")
            size += len(piece)
            if size <= self.limits.body_bytes:
                pieces.append(piece)
            if not message.get("more_body") or size > _READ_ON * self.limits.body_bytes:
                return b"".join(pieces) if size <= self.limits.body_bytes else None


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _last(send: Send) -> Send:
    """Answers that say that their connection closes."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing


async def _answer(send: Send, status: int, detail: str) -> None:
    content = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
