"""The server's process: classifiers loaded, a socket opened, requests drained at its end."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import uvicorn

from rankwise.errors import UserError
from rankwise.inference.many import load_many
from rankwise.serve.app import make_app
from rankwise.serve.collection import Collection
from rankwise.serve.limits import Limits


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


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server_of(
    runs: Mapping[str, str | Path],
    *,
    host: str,
    port: int,
    token: str | None = None,
    folder: Path | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    calibrated: bool = False,
) -> uvicorn.Server:
    """The server, its classifiers loaded, not yet listening.

    Raises: UserError when a classifier cannot be loaded, or the address needs a token.
    """
    check_address(host, token)
    if folder is not None and not folder.is_dir():
        raise UserError(f"--models-folder {folder} is no folder")
    limits = limits or Limits()
    many = load_many(runs, threads=threads, calibrated=calibrated)
    app = make_app(Collection(many, folder), limits=limits, token=token)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http="h11",
            ws="none",
            h11_max_incomplete_event_size=limits.header_bytes,
            limit_concurrency=limits.connections,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=limits.drain_s,
            server_header=False,
            log_level="warning",
        )
    )
