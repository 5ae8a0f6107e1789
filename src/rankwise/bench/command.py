"""The verb: what is measured, in whose company, and the table and file that come of it. No torch in here."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean, median

import msgspec
from rich.console import Console
from rich.table import Table

from rankwise import files
from rankwise.bench.variants import BASELINE, TRAIN_VARIANTS, VARIANTS, chosen, isa_of
from rankwise.errors import UserError
from rankwise.machine.isa import ISAS, OVERRIDE
from rankwise.machine.latency import percentile_ms
from rankwise.records.record import Tree


@dataclass(frozen=True)
class Setting:
    """What every variant of one measurement has in common; sent to each process."""

    task: str
    data: str
    text: str
    label: str
    model: str
    tokenizer: str
    random_weights: bool
    scope: list[str]
    layers: list[int] | None
    rank: int
    dora: bool
    dropout: float
    batch_size: int
    max_length: int
    steps: int
    """of one turn"""
    warmup: int
    rounds: int
    threads: int | None
    seed: int

    @property
    def rows(self) -> int:
        """Rows that every variant sees: one batch a step."""
        return self.batch_size * (self.warmup + self.steps * self.rounds)

    @property
    def answers_alone(self) -> bool:
        """Whether texts are asked one by one, each when the one before has its answer."""
        return self.task == "predict" and self.batch_size == 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's arguments."""
    parser.add_argument("task", choices=VARIANTS, help="what to measure")
    parser.add_argument("--data", required=True, metavar="FILE", help="CSV or Parquet with a text and a label column")
    parser.add_argument("--text", default="text", help="text column (default: text)")
    parser.add_argument("--label", default="label", help="label column (default: label)")
    parser.add_argument(
        "--model",
        required=True,
        metavar="FOLDER",
        help="folder of the model, packaged:NAME, or a Hub name in the cache",
    )
    parser.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer's folder (default: the model's)")
    parser.add_argument("--random-weights", action="store_true", help="build the model from its config alone")
    parser.add_argument("--scope", default="query,value", help="adapted layers (default: query,value)")
    parser.add_argument("--layers", metavar="A-B", help="encoder layers with adapters, such as 8-11 (default: all)")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dora", action="store_true")
    parser.add_argument("--dropout", type=float, default=0.1, help="on the adapters' input (default: 0.1)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--single", action="store_true", help="one text a step: --batch-size 1 --steps 100")
    parser.add_argument("--max-length", type=int, default=512, help="tokens kept of a text (default: 512)")
    parser.add_argument("--steps", type=int, default=6, help="steps of one turn (default: 6)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every variant (default: 5)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first turn (default: 3)")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--variants",
        metavar="A,B",
        help=f"default: all that apply; {', '.join(TRAIN_VARIANTS)}; engine-ISA and products-ISA, with the kernels of {', '.join(ISAS)}",
    )
    parser.add_argument("--name", help="of the result's file (default: made from the setting)")
    parser.add_argument("--out", default="benchmarks/results", metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and no table")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the result's file."""
    setting = _setting(args)
    variants = chosen(setting.task, args.variants, with_layers=setting.layers is not None)
    console = Console(stderr=True)
    load = [_load()]
    rows = rows_of(setting, measure(setting, variants, console))
    result = {**summary(setting, rows), "load_before_and_after": [*load, _load()]}
    path = Path(args.out) / f"{args.name or _name(setting)}.json"
    files.make_writable_folder(path.parent)
    files.write_json(path, result)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        Console().print(table(setting, rows, _where(result)))
        console.print(f"written to {path}")
    return 0


def _load() -> float | None:
    """How many processes have wanted to run, over the last minute: other work beside a measurement spoils it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _setting(args: argparse.Namespace) -> Setting:
    if args.single:
        args.batch_size, args.steps = 1, 100
    for option in ("rank", "batch_size", "max_length", "steps", "rounds", "warmup"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option.replace('_', '-')} is {getattr(args, option)}, expected a number above zero")
    if not Path(args.data).is_file():
        raise UserError(f"--data {args.data} is not a file: give a CSV or Parquet file")
    given = {field.name: getattr(args, field.name) for field in fields(Setting)}
    given |= {"tokenizer": args.tokenizer or args.model, "scope": args.scope.split(","), "layers": _layers(args.layers)}
    return Setting(**given)


def _layers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    try:
        layers = list(range(int(first), int(last if dash else first) + 1))
    except ValueError:
        layers = []
    if not layers:
        raise UserError(f"--layers is '{text}', expected a layer or a range such as 8-11")
    return layers


# --- measuring ----------------------------------------------------------------------------------------


class Measured(msgspec.Struct):
    """What a variant's process says at its end, and seconds of every step."""

    peak_mb: int
    tokens: int
    trainable: int
    process_peak_mb: int | None = None
    seconds: list[float] = []


class Row(msgspec.Struct, omit_defaults=True):
    """A variant in the result's file. Shares and times are of the variants that they are called by, where those were measured.

    `peak_mb` is the accelerator's memory where there is one that counts it, and `process_peak_mb` then the process's own.
    """

    about: str
    step_s: float
    step_s_mean: float
    examples_per_s: float
    peak_mb: int
    tokens: int
    trainable: int
    p50_ms: float
    p99_ms: float
    seconds: list[float]
    process_peak_mb: int | None = None
    times_baseline: float | None = None
    times_baseline_mean: float | None = None
    memory_of_baseline: float | None = None
    share_of_products: float | None = None
    share_of_library_products: float | None = None


class Contestant:
    """One variant's process. It answers each line sent to it with one line of JSON."""

    def __init__(self, variant: str, setting: Setting) -> None:
        self.variant = variant
        isa = isa_of(variant)
        command = [sys.executable, "-m", "rankwise.bench.contestant", variant.removesuffix(f"-{isa}")]
        environment = os.environ if isa is None else {**os.environ, OVERRIDE: isa}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._send(json.dumps(asdict(setting)))

    def warmed_up(self) -> None:
        """Wait until its first turn may come."""
        self.answer()

    def turn(self) -> list[float]:
        """Let it run one turn. Returns: seconds of every step."""
        self._send("go")
        return msgspec.convert(self.answer()["seconds"], list[float])

    def finish(self) -> Measured:
        """End it. Returns: peak memory and counts."""
        self._send("end")
        last = msgspec.convert(self.answer(), Measured)
        self._process.wait()
        return last

    def stop(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> Tree:
        """Its next answer; what libraries print on its stdout is passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: Tree = json.loads(line)
                if "error" in answer:
                    raise UserError(answer["error"])
                if "bench" in answer:
                    return answer
        raise RuntimeError(f"the process of variant '{self.variant}' ended early; its message is above")


def measure(setting: Setting, variants: list[str], console: Console) -> dict[str, Measured]:
    """Seconds of every step and the peak memory of every variant.

    On a processor each warms up alone, as it is measured. What starts on a GPU is imports, which take most of the time and
    may overlap.
    """
    from rankwise.machine.device import device

    one_by_one = device().type == "cpu"
    contestants: list[Contestant] = []
    seconds: dict[str, list[float]] = {variant: [] for variant in variants}
    try:
        for variant in variants:
            console.print(f"starting {variant}", highlight=False)
            contestants.append(Contestant(variant, setting))
            if one_by_one:
                contestants[-1].warmed_up()
        for contestant in [] if one_by_one else contestants:
            contestant.warmed_up()
        for number in range(setting.rounds):
            # Every other round runs backwards, so that nobody always follows the same neighbour.
            for contestant in contestants if number % 2 == 0 else contestants[::-1]:
                seconds[contestant.variant] += contestant.turn()
            console.print(f"round {number + 1} of {setting.rounds}", highlight=False)
        measured = {contestant.variant: contestant.finish() for contestant in contestants}
    finally:
        for contestant in contestants:
            contestant.stop()
    for variant, one in measured.items():
        one.seconds = seconds[variant]
    return measured


# --- reporting ----------------------------------------------------------------------------------------


def rows_of(setting: Setting, measured: Mapping[str, Measured]) -> dict[str, Row]:
    """By variant: medians, ratios, memory, and every single step."""
    rows = {}
    for variant, one in measured.items():
        # Sorted texts make batches whose times spread by length: there only the mean compares with unsorted ones.
        step = median(one.seconds) if setting.task == "train" else fmean(one.seconds)
        rows[variant] = Row(
            about=VARIANTS[setting.task][variant],
            step_s=round(step, 5),
            step_s_mean=round(fmean(one.seconds), 5),
            examples_per_s=round(setting.batch_size / step, 2),
            peak_mb=one.peak_mb,
            tokens=one.tokens,
            trainable=one.trainable,
            process_peak_mb=one.process_peak_mb,
            p50_ms=round(percentile_ms(one.seconds, 0.5), 3),
            p99_ms=round(percentile_ms(one.seconds, 0.99), 3),
            seconds=[round(second, 5) for second in one.seconds],
        )
    for variant, row in rows.items():
        isa = isa_of(variant)
        own = "products" if isa is None else f"products-{isa}"
        if base := rows.get(BASELINE):
            row.times_baseline = round(base.step_s / row.step_s, 2)
            row.times_baseline_mean = round(base.step_s_mean / row.step_s_mean, 2)
            row.memory_of_baseline = round(row.peak_mb / base.peak_mb, 3)
        if variant in ("engine", "engine-torch", f"engine-{isa}"):
            if own in rows:
                row.share_of_products = round(rows[own].step_s / row.step_s, 3)
            if "products-torch" in rows:
                row.share_of_library_products = round(rows["products-torch"].step_s / row.step_s, 3)
    return rows


def summary(setting: Setting, rows: Mapping[str, Row]) -> Tree:
    """The result's file."""
    from rankwise.machine import description, device

    total = device.accelerator_bytes()
    # A result is published: the folders of whoever measured it say nothing to its readers.
    places = {key: Path(getattr(setting, key)).name for key in ("data", "model", "tokenizer")}
    return {
        "setting": {**asdict(setting), **places},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "variants": msgspec.to_builtins(rows),
        "environment": description.describe().to_dict(),
        "gpu_memory_mb": None if total is None else round(total / 1e6),
    }


_COLUMNS = {
    "s a step": ("step_s", "{:.4f}"),
    "examples/s": ("examples_per_s", "{:.1f}"),
    "times papers'": ("times_baseline", "{:.2f}x"),
    "(by means)": ("times_baseline_mean", "{:.2f}x"),
    "products": ("share_of_products", "{:.0%}"),
    "torch's": ("share_of_library_products", "{:.0%}"),
    "peak MB": ("peak_mb", "{}"),
    "process MB": ("process_peak_mb", "{}"),
    "memory": ("memory_of_baseline", "{:.0%}"),
    "p50 ms": ("p50_ms", "{:.2f}"),
    "p99 ms": ("p99_ms", "{:.2f}"),
}


def _where(result: Tree) -> str:
    """What computed, in words."""
    environment, total = result["environment"], result["gpu_memory_mb"]
    if environment.get("gpu") is None:
        return f"{environment['cpu']}, {environment['threads']} threads"
    return environment["gpu"] if total is None else f"{environment['gpu']}, {total / 1000:.0f} GB"


def table(setting: Setting, rows: Mapping[str, Row], where: str) -> Table:
    """The result as people read it."""
    shown = Table("variant", title=f"{_name(setting)} on {where}", box=None, header_style="bold")
    columns = dict(_COLUMNS)
    if all(row.process_peak_mb is None for row in rows.values()):
        del columns["process MB"]
    for heading in columns:
        shown.add_column(heading, justify="right")
    for variant, row in rows.items():
        cells = [(getattr(row, key), form) for key, form in columns.values()]
        shown.add_row(variant, *("-" if value is None else form.format(value) for value, form in cells))
    return shown


def _name(setting: Setting) -> str:
    model = Path(setting.model.removeprefix("packaged:")).name
    layers = f"-layers{setting.layers[0]}to{setting.layers[-1]}" if setting.layers else ""
    method = "dora" if setting.dora else "lora"
    scope = "+".join(setting.scope)
    return f"{setting.task}-{model}-{scope}-r{setting.rank}-{method}{layers}-b{setting.batch_size}"
