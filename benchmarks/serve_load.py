"""A server of twenty classifiers under load, and beside it FastAPI with a `transformers` pipeline for each.

python benchmarks/serve_load.py --tables TREC.parquet EMOTION.parquet SMS.parquet BANKING.parquet

64 clients, each on one connection, ask one text of one of twenty classifiers, drawn at random. Every answer is held to
what that classifier says alone (`rankwise.load`). Meanwhile classifiers are replaced, and strangers send bodies that are
too large or no JSON, heads that come byte by byte, and connections that are cut. In the end SIGTERM comes amid requests.
Clients and server share the machine's cores. A server is measured once more calm, with neither, as its peer is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, Cells, add_arguments
from twenty import texts_of, trained

import rankwise
from rankwise.inference import saved

RESULT = Path(__file__).parent / "results" / "serve_load.json"
APART = 1e-4
"""of a probability: sums in fp32 are in another order beside other batch mates"""


def main() -> None:
    """Train, serve, ask, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tables", nargs="+", type=Path, required=True, help="Parquet files, the one of most labels last"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/twenty"), help="where the classifiers are, or go")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, os.cpu_count() or 2])
    parser.add_argument("--peer-requests", type=int, default=2_000, help="that the peer is asked; 0 leaves it out")
    parser.add_argument("--prepare", action="store_true", help="train and write the expected answers, then stop")
    add_arguments(parser)
    args = parser.parse_args()
    runs = trained(args.folder, args.tables)
    material = Material.of(runs, texts_of(args.tables[-1])[:400] + texts_of(args.tables[0])[:100], args.folder)
    peer = args.folder / "merged"
    if args.peer_requests:
        write_merged(runs, peer)
    if args.prepare:
        return
    cells = Cells(RESULT, args, clients=args.clients, models=len(runs), precision="fp32")
    for count in args.workers:
        words = [
            *(f"{name}={path}" for name, path in runs.items()),
            *("--models-folder", str(args.folder), "--precision", "fp32"),
            *(["--workers", str(count)] if count > 1 else []),
        ]
        command = [sys.executable, "-m", "rankwise", "serve", *words]
        for kind in ("", ", calm"):
            cells.measure(
                (f"rankwise, {count} workers" if count > 1 else "rankwise") + kind,
                lambda command=command, kind=kind: loaded(  # type: ignore[misc]
                    Server(command, {}), material, args.requests, args.clients, disturbed=not kind
                ),
            )
    if args.peer_requests:
        command = [sys.executable, str(Path(__file__).parent / "serve_peer.py"), str(peer)]
        cells.measure(
            "fastapi, a pipeline each",
            lambda: loaded(
                Server(command, {"HF_HUB_OFFLINE": "1"}), material, args.peer_requests, args.clients, disturbed=False
            ),
        )


def loaded(server: Server, material: Material, requests: int, clients: int, *, disturbed: bool) -> Cell:
    """What became of the requests to a server, which is ended."""
    with server:
        return asyncio.run(measured(server, material, requests, clients, disturbed=disturbed))


@dataclass
class Material:
    """What is asked, and what must be answered.

    expected
        By model. Shape of each: (texts, classes)
    """

    texts: list[str]
    names: list[str]
    labels: dict[str, list[str]]
    expected: dict[str, np.ndarray]

    @staticmethod
    def of(runs: dict[str, Path], texts: list[str], folder: Path) -> Material:
        """The answers of each classifier loaded alone; kept, since the machine should rest when it is measured."""
        place = folder / "expected-fp32.npz"
        labels: dict[str, list[str]] = {}
        expected: dict[str, Any] = {}
        kept = dict(np.load(place)) if place.is_file() else {}
        for name, path in runs.items():
            labels[name] = saved.read(path).label_names
            expected[name] = kept.get(name)
            if expected[name] is None:
                expected[name] = rankwise.load(path, precision="fp32").predict_proba(texts)
        np.savez(place, **expected)  # type: ignore[arg-type]
        return Material(texts, list(runs), labels, expected)

    def wrong(self, name: str, row: int, answer: dict[str, Any]) -> float | None:
        """How far probabilities are from the single run's; None where the answer is another one."""
        shares = np.array([answer["probabilities"][label] for label in self.labels[name]])
        alone = self.expected[name][row]
        apart = float(np.abs(shares - alone).max())
        best = self.labels[name].index(answer["labels"][0])
        return None if apart > APART or alone[best] < alone.max() - APART else apart


def write_merged(runs: dict[str, Path], folder: Path) -> None:
    """What a pipeline opens, for each."""
    from rankwise.export.subject import subject_of

    for name, path in runs.items():
        if not (folder / name / "config.json").is_file():
            subject = subject_of(path)
            subject.model.save_pretrained(folder / name)
            subject.saved.tokenizer.model_max_length = subject.saved.max_length
            subject.saved.tokenizer.save_pretrained(folder / name)


# --- the server ---------------------------------------------------------------------------------------


class Server:
    """A server's process, once it answers."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)], stdout=subprocess.DEVNULL, env={**os.environ, **environment}
        )
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            if self.process.poll() is not None:
                raise RuntimeError("the server has ended")
            time.sleep(0.1)
        self.start_s = time.perf_counter() - started

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()

    def memory_mb(self) -> float:
        """Of it and its workers, shared pages counted once."""
        return round(sum(map(_pss, [self.process.pid, *_children(self.process.pid)])) / 1e3, 1)


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def _pss(process: int) -> float:
    """The share of memory that is a process's, kB."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return float(line.split()[1])
    return 0.0


# --- clients ------------------------------------------------------------------------------------------


@dataclass
class Count:
    """What became of the requests."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0
    """asked, and neither answered nor refused"""
    wrong: int = 0
    apart: float = 0.0
    """the largest difference of a probability from the single run's"""
    strangers: Counter[str] = field(default_factory=Counter)


def request_of(name: str, text: str) -> bytes:
    """POST /v1/classify as bytes."""
    body = json.dumps({"texts": [text], "model": name}).encode()
    head = "POST /v1/classify HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body and whether the connection stays."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return status, await reader.readexactly(length), b"connection: close" not in head


async def client(
    port: int, orders: list[tuple[str, int]], material: Material, count: Count, stop: asyncio.Event
) -> None:
    """Ask until there is no order left; a connection that the server has said it closes is opened anew."""
    while orders and not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return  # refused: nothing was asked
        stays = True
        while stays and orders:
            name, row = orders.pop()
            started = time.perf_counter()
            try:
                writer.write(request_of(name, material.texts[row]))
                await writer.drain()
                status, body, stays = await answer_of(reader)
            except (OSError, asyncio.IncompleteReadError):
                count.lost += 1
                break
            count.seconds.append(time.perf_counter() - started)
            count.statuses[status] += 1
            if status == 200:
                apart = material.wrong(name, row, json.loads(body)["results"][name][0])
                count.wrong += apart is None
                count.apart = max(count.apart, apart or 0.0)
        writer.close()


async def measured(
    server: Server, material: Material, requests: int, clients: int, *, disturbed: bool
) -> dict[str, Any]:
    """Ask, watch the memory, and end it amid requests.

    disturbed
        Classifiers are replaced and strangers knock meanwhile, and SIGTERM comes.
    """
    chance = random.Random(0)
    orders = lambda number: [  # noqa: E731
        (chance.choice(material.names), chance.randrange(len(material.texts))) for _ in range(number)
    ]
    calm = asyncio.Event()
    await asked(server.port, orders(min(1000, requests // 4)), material, clients, Count(), calm)  # warm
    memory = [server.memory_mb()]
    count = Count()
    others = [asyncio.create_task(watch(server, memory))]
    if disturbed:
        others += [
            asyncio.create_task(replace(server.port, material.names, count)),
            asyncio.create_task(strangers(server.port, count)),
        ]
    started = time.perf_counter()
    await asked(server.port, orders(requests), material, clients, count, calm)
    seconds = time.perf_counter() - started
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    milliseconds = 1000 * np.array(count.seconds)
    told = {
        "requests": requests,
        "answered": dict(count.statuses),
        "lost": count.lost,
        "wrong": count.wrong,
        "most_apart": round(count.apart, 6),
        "p50_ms": round(float(np.percentile(milliseconds, 50)), 1),
        "p99_ms": round(float(np.percentile(milliseconds, 99)), 1),
        "requests_per_s": round(requests / seconds, 1),
        "start_s": round(server.start_s, 1),
        "memory_first_mb": memory[0],
        "memory_of_thirds_mb": [round(float(np.mean(third)), 1) for third in np.array_split(memory, 3)],
        "memory_last_mb": server.memory_mb(),
        "strangers": dict(count.strangers),
    }
    if disturbed:
        told["sigterm"] = await ended(server, orders(4 * clients * 40), material, clients)
    return told


async def asked(
    port: int, orders: list[tuple[str, int]], material: Material, clients: int, count: Count, stop: asyncio.Event
) -> None:
    """All of the orders, by so many clients."""
    await asyncio.gather(*(client(port, orders, material, count, stop) for _ in range(clients)))


async def ended(server: Server, orders: list[tuple[str, int]], material: Material, clients: int) -> dict[str, Any]:
    """SIGTERM amid requests."""
    count, stop = Count(), asyncio.Event()

    async def end() -> None:
        while len(count.seconds) < clients * 4:
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        stop.set()

    await asyncio.gather(asked(server.port, orders, material, clients, count, stop), end())
    return {"answered": dict(count.statuses), "lost": count.lost, "wrong": count.wrong, "exit": server.process.wait(60)}


# --- what goes on meanwhile ---------------------------------------------------------------------------


async def watch(server: Server, memory: list[float]) -> None:
    """Its memory, every second."""
    while True:
        await asyncio.sleep(1)
        memory.append(await asyncio.to_thread(server.memory_mb))


async def replace(port: int, names: list[str], count: Count) -> None:
    """One classifier after the other is loaded anew in its place."""
    number = 0
    while True:
        await asyncio.sleep(2)
        name, number = names[number % len(names)], number + 1
        head = f"PUT /v1/models/{name} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
        count.strangers[f"replaced: {await one(port, head.encode())}"] += 1


async def strangers(port: int, count: Count) -> None:
    """Requests that must be refused, and connections that must not hold anything up."""
    long = b"POST /v1/classify HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
    slow: list[asyncio.StreamWriter] = []
    while True:
        await asyncio.sleep(1)
        bodies = {"oversize": (5_000_000, b" " * 5_000_000), "no JSON": (3, b"{a}")}
        for kind, (length, body) in bodies.items():
            status = await one(port, long + b"%d\r\n\r\n" % length + body)
            count.strangers[f"{kind}: {status}"] += 1
        status = await one(port, b"HELLO\r\n\r\n")
        count.strangers[f"no HTTP: {status}"] += 1
        with contextlib.suppress(OSError):
            _, cut = await asyncio.open_connection("127.0.0.1", port)
            cut.write(long + b"100\r\n\r\n{")
            await cut.drain()
            cut.transport.abort()
            count.strangers["cut"] += 1
            _, head = await asyncio.open_connection("127.0.0.1", port)
            head.write(b"POST /v1/cl")
            slow.append(head)
            count.strangers["slow"] += 1
        for writer in slow:
            with contextlib.suppress(OSError):
                writer.write(b"a")
        gone = [writer for writer in slow if writer.transport.is_closing()]
        count.strangers["slow, closed by the server"] += len(gone)
        slow = [writer for writer in slow if writer not in gone]


async def one(port: int, content: bytes) -> int | str:
    """The status of one request on a connection of its own."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(content)
        with contextlib.suppress(OSError):
            await writer.drain()
        status = int((await reader.readline())[9:12])
        writer.close()
        return status
    except (OSError, ValueError):
        return "closed"


if __name__ == "__main__":
    main()
