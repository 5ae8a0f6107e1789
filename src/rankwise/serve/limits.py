"""How much one client may ask for, so that no request takes the server from the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a request; what is beyond is answered with its status and closed."""

    text_chars: int = 100_000
    """of one text (413): some thousand tokens are read of it in any case"""
    texts: int = 256
    """of one request (413)"""
    body_bytes: int = 4_000_000
    """(413)"""
    header_bytes: int = 16_384
    """(431)"""
    queued_texts: int = 4_096
    """waiting for their turn (429 with Retry-After)"""
    head_s: float = 10.0
    """to send a request's head in (408), from the connection or the last answer on it"""
    body_s: float = 10.0
    """to send a body in (408)"""
    read_s: float = 30.0
    """to take an answer in (closed)"""
    answer_s: float = 30.0
    """from a request to its answer (503)"""
    connections: int = 512
    """(503)"""
    linger_s: float = 1.0
    """after SIGTERM, for clients that hold a connection to hear that it closes, with their next answer"""
    drain_s: int = 30
    """then, to finish what was accepted"""
