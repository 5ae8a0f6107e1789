"""What this machine offers, what is missing, and the line that installs it."""

from __future__ import annotations

import argparse
import re
from importlib import metadata

from rankwise.cli import common
from rankwise.errors import UserError
from rankwise.machine import description

EXAMPLE = "rankwise doctor"

# What each extra is for; which packages it installs is written in the package's own metadata.
PURPOSES = {
    "export": "exporting as ONNX, in fp32 and int8",
    "export-openvino": "exporting as OpenVINO",
    "hub": "data sets by their Hub name",
    "text": "stemming and lemmatising",
    "floor": "the TF-IDF floor beside every score",
    "serve": "a server for many classifiers on one base",
    "search": "rankwise search and auto",
    "ray": "searches and predictions on a cluster",
    "report": "the HTML report",
    "sklearn": "BudgetedTextClassifier",
    "track-tensorboard": "curves in TensorBoard",
    "track-mlflow": "curves in MLflow",
    "track-wandb": "curves in Weights & Biases",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    found = description.describe().to_dict()
    found["capabilities"] = _capabilities()
    found["backends"] = _backends()
    found["extras"] = {extra: {name: description.version(name) for name in _packages(extra)} for extra in PURPOSES}
    lines = [f"{'cpu':<14} {found['cpu']}, {found['cores']} cores, {found['threads']} threads"]
    lines.append(f"{'gpu':<14} {found['gpu'] or 'none'}")
    for name, (present, meaning) in found["capabilities"].items():
        lines.append(f"{name:<14} {'yes' if present else 'no':<4} {meaning}")
    for precision, choice in found["backends"].items():
        lines.append(f"{'engine, ' + precision:<14} {choice['takes']}: {choice['reason']}")
    lines += [f"{package:<14} {version or 'missing'}" for package, version in found["versions"].items()]
    for extra, packages in found["extras"].items():
        missing = [name for name, version in packages.items() if version is None]
        told = f"needs {', '.join(missing)}: pip install 'rankwise[{extra}]'" if missing else "installed"
        lines.append(f"{f'[{extra}]':<20} {PURPOSES[extra]}: {told}")
    return common.show(args, found, *lines)


def _capabilities() -> dict[str, tuple[bool, str]]:
    """What this machine and its tools can do for the fast engine: present or not, and what it means."""
    import torch

    from rankwise.engine.native.building import compiler
    from rankwise.machine.precision import fastest

    return {
        "bf16": (
            fastest() == "bf16",
            "instructions for bf16 products: on a processor about four times as fast as fp32",
        ),
        "mkldnn": (torch._C._has_mkldnn, "pre-packed frozen weights"),
        "compiler": (compiler() is not None, "makes the engine's own kernels where no wheel brings them"),
    }


def _backends() -> dict[str, dict[str, str]]:
    """What computes the fast engine's layers in each precision, and why; nothing where a run would be refused it."""
    from rankwise.engine.native.backend import choose
    from rankwise.machine.precision import DTYPES, precision_of

    found = {}
    for name in DTYPES:
        try:
            choice = choose(precision_of(name, "fast"))
        except UserError as error:
            found[name] = {"takes": "nothing", "reason": str(error)}
        else:
            takes = "torch" if choice.backend is None else choice.backend.isa.name
            found[name] = {"takes": takes, "reason": choice.reason}
    return found


def _packages(extra: str) -> list[str]:
    """Names of the packages that an extra installs."""
    lines = [line for line in metadata.requires("rankwise") or [] if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return [re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0] for line in lines]
