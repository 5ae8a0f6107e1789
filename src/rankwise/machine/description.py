"""What a result was made with: versions, processor, memory, code."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from rankwise.machine.isa import of_processor
from rankwise.records.result import Environment

_PACKAGES = ("rankwise", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "pyarrow")


def describe() -> Environment:
    """The environment block of result.json."""
    import torch

    from rankwise.machine import device

    return Environment(
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        platform=platform.platform(),
        cpu=cpu(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=device.accelerator_name(),
        commit=_commit(),
    )


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_mb() -> float:
    """The most resident memory this process has had, in megabytes; on an accelerator that counts its own, of that."""
    from rankwise.machine import device

    allocated = device.peak_allocated()
    return process_peak_mb() if allocated is None else round(allocated / 1e6, 1)


def process_peak_mb() -> float:
    """The most resident memory this process has had, in megabytes."""
    if sys.platform == "win32":
        import psutil  # a dependency of accelerate

        return round(psutil.Process().memory_info().peak_wset / 1e6, 1)
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return round(used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6, 1)


@functools.cache
def version(package: str) -> str | None:
    """Of an installed package; None where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def cpu() -> str:
    """The processor's name."""
    return of_processor("model name") or platform.processor() or platform.machine()


@functools.cache
def _commit() -> str | None:
    """The commit of Rankwise itself when it runs from a checkout: as it was when this process first asked."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except OSError:
        return None
    return answer.stdout.strip() or None
