"""How long a client may take to ask and to take its answer: uvicorn's connection with two clocks of its own.

uvicorn bounds the time between two requests of a connection, not that of a first one, of a head that comes byte by byte, or
of an answer that is not read: any of these holds a place for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from rankwise.serve.limits import Limits

_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class TimedProtocol(H11Protocol):
    """A connection that is closed when a request's head, or the reading of an answer, takes too long."""

    limits: ClassVar[Limits] = Limits()
    _clocks: dict[str, asyncio.TimerHandle]

    @classmethod
    def of(cls, limits: Limits) -> type[TimedProtocol]:
        """The same with other limits."""
        return type(cls.__name__, (cls,), {"limits": limits})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; its first head is awaited."""
        super().connection_made(transport)
        self._clocks = {}
        self._start("head", self.limits.head_s, self._no_head)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; once the head is whole the guard bounds the body's time."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop("head")

    def on_response_complete(self) -> None:
        """An answer is given; another head may follow."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._start("head", self.limits.head_s, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was closed."""
        self._stop("head")
        self._stop("answer")
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More of an answer waits than the system takes: the client reads slowly, or not at all."""
        super().pause_writing()  # type: ignore[no-untyped-call, unused-ignore]
        self._start("answer", self.limits.read_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        self._stop("answer")
        super().resume_writing()  # type: ignore[no-untyped-call, unused-ignore]

    def _no_head(self) -> None:
        if self.conn.trailing_data[0]:  # of a head that has begun
            self.transport.write(_TOO_SLOW)
        self.transport.close()

    def _start(self, clock: str, seconds: float, late: Callable[[], None]) -> None:
        self._stop(clock)
        self._clocks[clock] = self.loop.call_later(seconds, late)

    def _stop(self, clock: str) -> None:
        if clock in self._clocks:
            self._clocks.pop(clock).cancel()
