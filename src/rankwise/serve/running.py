"""The server's processes: classifiers loaded, a socket opened, requests drained at the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from rankwise.errors import UserError
from rankwise.inference.many import load_many
from rankwise.serve.app import Service, make_app
from rankwise.serve.collection import Collection
from rankwise.serve.guard import is_loopback
from rankwise.serve.limits import Limits
from rankwise.serve.protocol import TimedProtocol
from rankwise.serve.workers import Change, Link, Workers


def check_address(host: str, token: str | None) -> None:
    """Refuse an address that others can reach, without a token they would need. Raises: UserError."""
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: put a token into the environment variable RANKWISE_TOKEN, "
            "which every request must then bear"
        )
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise UserError(
            "RANKWISE_TOKEN is too weak or no plain text: at least 16 printable ASCII characters are needed"
        )


def place_of(host: str, port: int) -> str:
    """An address and its port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Server(uvicorn.Server):
    """One process that answers."""

    def __init__(self, service: Service, *, host: str, port: int, token: str | None) -> None:
        self.service, limits = service, service.limits
        self.guard = make_app(service, token=token)
        super().__init__(
            uvicorn.Config(
                self.guard,
                host=host,
                port=port,
                http=TimedProtocol.of(limits),
                ws="none",
                h11_max_incomplete_event_size=limits.header_bytes,
                limit_concurrency=limits.connections,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=limits.drain_s,
                server_header=False,
                log_level="error",  # what a client does wrong is told to it, and counted
            )
        )

    def apply(self, change: Change) -> Any:
        """Carry out a change in this process. Raises: UserError."""
        return self.service.apply(change)

    def stop(self) -> None:
        """Answer what was accepted, and end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell those who hold a connection that it closes, each with its next answer, before any is closed: a request that
        is on its way would be lost with it."""
        self.service.ready = False
        self.guard.draining = True
        if self.server_state.connections:
            await asyncio.sleep(self.service.limits.linger_s)
        await super().shutdown(sockets)


@dataclass(frozen=True)
class Serving:
    """How classifiers are served.

    folder
        Where more may be added from.
    threads
        That compute, in a process.
    precision
        As `rankwise.load` has it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    folder: Path | None = None
    limits: Limits = field(default_factory=Limits)
    threads: int | None = None
    calibrated: bool = False
    precision: str | None = None


def server_of(runs: Mapping[str, str | Path], how: Serving) -> Server:
    """The server, its classifiers loaded, not yet listening.

    Raises: UserError when a classifier cannot be loaded, or the address needs a token.
    """
    service = Service(_collection(runs, how), how.limits)
    return Server(service, host=how.host, port=how.port, token=how.token)


def workers_of(runs: Mapping[str, str | Path], how: Serving, count: int) -> Workers:
    """Processes that share the classifiers loaded here and one socket, which listens already.

    Raises: UserError as `server_of`, and when the address is taken.
    """
    if how.threads not in (None, 1):
        raise UserError(f"--workers compute with one thread each: leave --threads {how.threads} out")
    import torch

    torch.set_num_threads(1)  # its pool of threads would not survive the fork
    collection = _collection(runs, replace(how, threads=1))

    def worker(link: Link) -> Server:
        service = Service(collection, how.limits, link)
        return Server(service, host=how.host, port=how.port, token=how.token)

    return Workers(_listening(how.host, how.port), count, worker, collection.apply)


def _collection(runs: Mapping[str, str | Path], how: Serving) -> Collection:
    check_address(how.host, how.token)
    if how.folder is not None and not how.folder.is_dir():
        raise UserError(f"--models-folder {how.folder} is no folder")
    many = load_many(runs, threads=how.threads, calibrated=how.calibrated, precision=how.precision)
    return Collection(many, how.folder)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UserError(f"the server cannot listen at {place_of(host, port)}: {error.strerror or error}") from error
