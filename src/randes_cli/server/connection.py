"""A client's connection, which ends where it is silent for too long."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """A connection that ends where no request comes, or nobody takes what is sent."""

    def __init__(self, *given: Any, seconds: float, **more: Any) -> None:
        super().__init__(*given, **more)
        self._seconds, self._since, self._untaken = seconds, 0.0, 0
        self._stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self.loop.call_later(self._seconds, self._look)

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, and for a client to take what is left."""
        self._since, self._untaken = self.loop.time(), self.transport.get_write_buffer_size()
        super().on_response_complete()

    def shutdown(self) -> None:
        """End after the answer under way; at once where no whole request came."""
        cycle = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_started:
            self.transport.abort()
        else:
            super().shutdown()

    def _look(self) -> None:
        """End the connection if no whole head of a request came in time, nor anything was taken.

        One that is closing, too: it waits for its client to take what is left.
        """
        if self not in self.connections:
            return
        now, left = self.loop.time(), self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        end = self._since + self._seconds
        if answering or (now >= end and 0 < left < self._untaken):
            self._since, self._untaken, end = now, left, now + self._seconds
        if now >= end:
            self.transport.abort()
        else:
            self.loop.call_later(end - now, self._look)

    def pause_writing(self) -> None:
        """Begin to wait for a client that takes nothing."""
        super().pause_writing()
        self._await_taking(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """It took something."""
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _await_taking(self, before: int) -> None:
        self._stuck = self.loop.call_later(self._seconds, self._look_if_taken, before)

    def _look_if_taken(self, before: int) -> None:
        size = self.transport.get_write_buffer_size()
        if size >= before:
            self.transport.abort()
        else:
            self._await_taking(size)
