"""Answer over HTTP with any number of classifiers, those of one base in shared passes.

POST /v1/classify {"texts": [...], "model": NAME, or null for all}; a page at / to try it; /predict as Text Embeddings
Inference has it; /v1/models, /healthz, /readyz, /metrics, /openapi.json. Addresses other than this machine's own need a
token in the environment variable RANKWISE_TOKEN.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

from rankwise.errors import UserError, missing_extra

EXAMPLE = "rankwise serve runs/mine runs/other --port 8000"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="a run's or an adapter's folder; NAME=RUN names it otherwise"
    )
    parser.add_argument("--host", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument(
        "--models-folder", metavar="DIR", help="PUT and DELETE /v1/models/NAME add and remove the classifiers in it"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="that compute (default: the machine's cores)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=1,
        help="processes that answer, of one thread each, sharing the memory of the classifiers (default: one process, whose "
        "threads share the work of a batch)",
    )
    parser.add_argument(
        "--precision", choices=["auto", "fp32", "bf16", "fp16", "int8"], help="default: that of the training"
    )
    parser.add_argument(
        "--calibrated", action="store_true", help="probabilities at the temperatures fitted by rankwise calibrate"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            raise missing_extra(package, "serve")
    if args.workers < 1:
        raise UserError(f"--workers is {args.workers}, expected 1 or more")
    if not 0 < args.port < 65_536:
        raise UserError(f"--port is {args.port}, expected 1 to 65535")
    from rankwise.machine.threads import check
    from rankwise.serve.running import Serving, place_of, server_of, workers_of

    check(args.threads, "--threads")
    named = _named(args.runs)
    if not named and not args.models_folder:
        raise UserError("nothing to serve: name a run, or --models-folder")
    place = place_of(args.host, args.port)
    how = Serving(
        host=args.host,
        port=args.port,
        token=os.environ.get("RANKWISE_TOKEN") or None,
        folder=Path(args.models_folder) if args.models_folder else None,
        threads=args.threads,
        calibrated=args.calibrated,
        precision=args.precision,
    )
    if args.workers > 1:
        workers = workers_of(named, how, args.workers)
        _say(named, place, f", {args.workers} workers")
        workers.run()
        return 0
    server = server_of(named, how)
    _say(named, place)
    try:
        server.run()
    except SystemExit as error:
        raise UserError(f"the server cannot listen at {place}: is the port taken?") from error
    return 0


def _say(named: dict[str, str], place: str, more: str = "") -> None:
    print(f"{len(named)} classifier{'s' if len(named) != 1 else ''} at http://{place}/{more}", flush=True)


def _named(words: list[str]) -> dict[str, str]:
    """Folders by name: RUN, or NAME=RUN. Raises: UserError when two have one name."""
    from rankwise.inference.many import name_of

    named: dict[str, str] = {}
    for word in words:
        name, sign, path = word.partition("=")
        name, path = (name, path) if sign and not Path(word).exists() else (name_of(word), word)
        if name in named:
            raise UserError(f"two runs have the name '{name}': write NAME=RUN")
        named[name] = path
    return named
