"""The command in a process of its own, without its start: forked from one that has imported what commands import.

A fresh interpreter spends five seconds of a core on importing torch, transformers and peft. Here one process, begun when a
test first asks for it and asked by all workers of the run, has imported them and forks a child for every command: a real process with a pid, a folder, an
environment and files for what it says, that can be killed and has an exit code. The start itself is under test elsewhere
(test_layers.py, engine/test_wheel.py, test_bad_input.py).
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock
import psutil

PATH = Path(__file__)
PAUSE_S = 0.01
LIMIT_S = 300


class Process:
    """`rankwise WORDS`, or `python SCRIPT WORDS` where a script is given."""

    def __init__(self, *words, script=None, folder=None, environment=None, own_session=False):
        self._folder = Path(tempfile.mkdtemp(prefix="rankwise-test-"))
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        order = {
            "words": [str(word) for word in words],
            "script": None if script is None else str(script),
            "cwd": str(folder or Path.cwd()),
            "environment": {**os.environ, **(environment or {})},
            "own_session": own_session,
            "said": str(self._folder),
        }
        self.returncode: int | None = None
        self.pid = _forked(order)

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            ended = self._folder / "code"
            if ended.is_file():
                self.returncode = int(ended.read_text())
        return self.returncode

    def wait(self, timeout: float = LIMIT_S) -> int:
        self.wait_for(lambda: self.poll() is not None, timeout)
        return self.returncode

    def wait_for(self, condition, timeout: float = LIMIT_S) -> None:
        """Until a condition holds; it must hold before the process ends."""
        until = time.monotonic() + timeout
        while not condition():
            assert self.poll() is None or condition(), f"it ended with {self.returncode}\n{self.out}\n{self.err}"
            assert time.monotonic() < until, f"not within {timeout} s\n{self.out}\n{self.err}"
            time.sleep(PAUSE_S)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text(encoding="utf-8")

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_) -> None:
        self.kill()
        self.wait()


def finished(*words, **options) -> Process:
    """A command that has ended."""
    with Process(*words, **options) as process:
        process.wait()
    return process


def _forked(order: dict) -> int:
    """The pid of a command in a process of its own."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(_address())
        asking.sendall(json.dumps(order).encode() + b"\n")
        pid = asking.makefile().readline()
    assert pid, "the process that forks has ended: what it said is on standard error"
    return int(pid)


@functools.cache
def _address() -> str:
    """Where the process that forks listens, one for all workers of a run; it ends after whoever runs the workers."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    owner = os.getppid() if run else os.getpid()
    folder = Path(tempfile.gettempdir(), f"rankwise-forks-{run}") if run else Path(tempfile.mkdtemp())
    folder.mkdir(mode=0o700, exist_ok=True)
    address = folder / "socket"
    with filelock.FileLock(folder / "lock"):
        if not address.exists():
            command = [sys.executable, PATH, str(owner), str(address)]
            begun = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
            assert begun.stdout.readline(), "the process that forks has ended: what it said is on standard error"
    return str(address)


# --- the process that forks -----------------------------------------------------------------------------


def _serve(owner: int, address: Path) -> None:
    _import_all()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # watchers are not waited for
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen()
        listening.settimeout(1)
        print("it listens", flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        while True:
            try:
                asked, _ = listening.accept()
            except TimeoutError:
                if not psutil.pid_exists(owner):
                    shutil.rmtree(address.parent, ignore_errors=True)
                    return
                continue
            asked.settimeout(None)
            order = json.loads(asked.makefile().readline())
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _watch(order, asked)
                return
            asked.close()


def _import_all() -> None:
    """What commands import, which stays: nothing of it need be looked at meanwhile."""
    gc.disable()
    import peft  # noqa: F401
    import pyarrow.csv
    import pyarrow.parquet  # noqa: F401
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch
    import torch.distributed.nn  # noqa: F401
    import transformers  # noqa: F401

    import rankwise.estimator
    import rankwise.inference.predict_file
    import rankwise.search.driver
    import rankwise.training.execution  # noqa: F401

    os.fsync = lambda _: None  # as in environment.py
    gc.freeze()
    gc.enable()
    # A fork has the locks that other threads held, and not the threads. (pyarrow's allocator knows how to be forked.)
    threads = {file.read_text(encoding="utf-8").strip() for file in Path("/proc/self/task").glob("[0-9]*/comm")}
    if not threads <= {Path("/proc/self/comm").read_text(encoding="utf-8").strip(), "jemalloc_bg_thd"}:
        raise RuntimeError(f"threads run after the imports, so that this process cannot be forked: {threads}")


def _watch(order: dict, asked: socket.socket) -> None:
    """Wait for the command, which is no child of the tests, and keep its exit code; return in the command itself."""
    child = os.fork()
    if child == 0:
        asked.close()
        _become(order)
        return
    with asked:
        asked.sendall(f"{child}\n".encode())
    os.close(0)
    os.close(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    part = Path(order["said"], "code.part")
    part.write_text(str(code), encoding="utf-8")
    part.rename(part.with_suffix(""))
    os._exit(0)


def _become(order: dict) -> None:
    """This process as the command's own would be: what it says, its folder, environment and chance."""
    import huggingface_hub.constants
    import numpy

    if order["own_session"]:
        os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(order["said"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    numpy.random.seed()
    importlib.reload(huggingface_hub.constants)  # read from the environment when imported
    sys.argv = [order["script"] or "rankwise", *order["words"]]
    sys.path[0] = str(Path(order["script"]).parent) if order["script"] else order["cwd"]
    sys.path[1:1] = filter(None, order["environment"].get("PYTHONPATH", "").split(os.pathsep))
    if order["script"]:
        runpy.run_path(order["script"], run_name="__main__")
    else:
        runpy.run_module("rankwise", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
