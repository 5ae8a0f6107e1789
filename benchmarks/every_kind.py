"""Every kind of file that data is kept in, written anew, through `rankwise train data.train=FILE` and `rankwise auto FILE`.

python benchmarks/every_kind.py DIR [--minutes 1] [--only csv ...] [--at-most SECONDS]

Prints a line a kind: both exit codes, how the file was read and how many of the rows auto's choice answers rightly; ends with
1 where a code is not 0. The rows are made here and tell two classes apart by their words. What is in the result file is not
run again, so that many short calls are one long one; `--again` runs it anew.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import random
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cells import Cells, add_arguments

from rankwise import files

RESULT = Path(__file__).parent / "results" / "every_kind.json"
ROWS = 160
MODEL = "packaged:all-MiniLM-L6-v2"
GOOD = ["fresh", "warm", "kind", "lovely", "tasty", "friendly", "quick", "clean", "bright", "generous"]
BAD = ["cold", "rude", "slow", "stale", "dirty", "noisy", "broken", "late", "bland", "greasy"]
Write = Callable[[Path, list[tuple[str, str]]], tuple[str, list[str]]]
"""Writes rows below a folder; gives the source's name there and the words it needs."""


def made() -> list[tuple[str, str]]:
    """Texts with their labels."""
    chance = random.Random(0)
    return [
        (f"the {a}, {b} soup and the waiter of day {n}", label)
        for n in range(ROWS)
        for label, words in [("good", GOOD) if n % 2 else ("bad", BAD)]
        for a, b in [chance.sample(words, 2)]
    ]


def table(rows: Sequence[tuple[str, str]], delimiter: str = ",", *, header: bool = True) -> str:
    """Rows as delimited text."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([("text", "label"), *rows] if header else rows)
    return text.getvalue()


def _file(name: str, content: Callable[[list[tuple[str, str]]], bytes | str], *words: str) -> Write:
    def write(folder: Path, rows: list[tuple[str, str]]) -> tuple[str, list[str]]:
        made = content(rows)
        (folder / name).write_bytes(made if isinstance(made, bytes) else made.encode())
        return name, list(words)

    return write


def _files(name: str, contents: Callable[[list[tuple[str, str]]], dict[str, str]], encoding: str = "utf-8") -> Write:
    def write(folder: Path, rows: list[tuple[str, str]]) -> tuple[str, list[str]]:
        for path, text in contents(rows).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text.encode(encoding))
        return name, []

    return write


def _objects(rows: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in rows]


def _lines(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in _objects(rows))


def _of(rows: Sequence[tuple[str, str]], label: str) -> list[str]:
    return [text for text, own in rows if own == label]


def _sheet(folder: Path, rows: list[tuple[str, str]]) -> tuple[str, list[str]]:
    import openpyxl

    book = openpyxl.Workbook()
    for row in [("text", "label"), *rows]:
        book.active.append(row)
    book.save(folder / "rows.xlsx")
    return "rows.xlsx", []


def _arrow(folder: Path, rows: list[tuple[str, str]], name: str) -> tuple[str, list[str]]:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    columns = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    (pyarrow.parquet.write_table if name.endswith("parquet") else pyarrow.feather.write_feather)(columns, folder / name)
    return name, []


def _saved(folder: Path, rows: list[tuple[str, str]]) -> tuple[str, list[str]]:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows_of = datasets.Dataset.from_list(_objects(rows)).cast(features)
    datasets.DatasetDict({"train": rows_of}).save_to_disk(folder / "saved")
    return "saved", []


def _archive(folder: Path, rows: list[tuple[str, str]], name: str) -> tuple[str, list[str]]:
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for place, (text, label) in enumerate(rows):
                archive.writestr(f"reviews/{label}/{place}.txt", text)
        return name, []
    with tarfile.open(folder / name, "w:gz") as archive:
        for place, (text, label) in enumerate(rows):
            member = tarfile.TarInfo(f"reviews/{label}/{place}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return name, []


def _zstd(rows: Sequence[tuple[str, str]]) -> bytes:
    import pyarrow as pa

    return bytes(pa.compress(table(rows).encode(), "zstd", asbytes=True))


def _split(rows: list[tuple[str, str]]) -> dict[str, str]:
    return {f"data/train-0000{n}-of-00002.csv": table(rows[n::2]) for n in range(2)}


KINDS: dict[str, Write] = {
    "csv": _file("rows.csv", table),
    "semicolons, Windows-1252": _file("european.csv", lambda rows: table([(f"{t} café", x) for t, x in rows], ";").encode("cp1252")),
    "no header": _file("headerless.csv", lambda rows: table(rows, header=False)),
    "tsv with loose quotes": _file("loose.tsv", lambda rows: "text\tlabel\n" + "".join(f'"{t}\t{x}\n' for t, x in rows)),
    "tsv in UTF-16": _file("utf16.tsv", lambda rows: table(rows, "\t").encode("utf-16")),
    "bars": _file("rows.psv", lambda rows: table(rows, "|")),
    "a label and a space first": _file("trec.txt", lambda rows: "".join(f"{x} {t}\n" for t, x in rows)),
    "fastText": _file("reviews.train", lambda rows: "".join(f"__label__{x} {t}\n" for t, x in rows)),
    "JSON Lines": _file("rows.jsonl", _lines),
    "JSON Lines named .json": _file("lines.json", _lines),
    "a JSON array": _file("array.json", lambda rows: json.dumps(_objects(rows))),
    "JSON by split": _file("clinc.json", lambda rows: json.dumps({"train": [list(row) for row in rows], "val": []})),
    "JSON columns": _file("columns.json", lambda rows: json.dumps({"text": [t for t, _ in rows], "label": [x for _, x in rows]})),
    "multi-hot lists": _file(
        "multihot.jsonl",
        lambda rows: "".join(json.dumps({"text": t, "labels": [int(x == "good"), int(x == "bad"), n % 2]}) + "\n" for n, (t, x) in enumerate(rows)),
        "data.multi_label=true",
    ),
    "a column of 0 and 1 a label": _file(
        "bits.csv",
        lambda rows: "text,good,long\n" + "".join(f'"{t}",{int(x == "good")},{n % 3 // 2}\n' for n, (t, x) in enumerate(rows)),
        "data.label=[good,long]",
        "data.multi_label=true",
    ),
    "text pairs": _file(
        "pairs.csv",
        lambda rows: "premise,hypothesis,label\n" + "".join(f'"{t}","{u}",{x}\n' for (t, x), (u, _) in zip(rows, rows[::-1], strict=True)),
        "data.text=[premise,hypothesis]",
        "data.pair=true",
    ),
    "Excel": _sheet,
    "Parquet": lambda folder, rows: _arrow(folder, rows, "rows.parquet"),
    "Arrow": lambda folder, rows: _arrow(folder, rows, "rows.arrow"),
    "datasets.save_to_disk": _saved,
    "gz": _file("rows.csv.gz", lambda rows: gzip.compress(table(rows).encode())),
    "bz2": _file("rows.csv.bz2", lambda rows: bz2.compress(table(rows).encode())),
    "xz": _file("rows.csv.xz", lambda rows: lzma.compress(table(rows).encode())),
    "zst": _file("rows.csv.zst", _zstd),
    "zip of class folders": lambda folder, rows: _archive(folder, rows, "reviews.zip"),
    "tar.gz of class folders": lambda folder, rows: _archive(folder, rows, "reviews.tar.gz"),
    "a folder a class": _files("news", lambda rows: {f"news/{x}/{n}": f"{t} é" for n, (t, x) in enumerate(rows)}, "latin-1"),
    "a file a class": _files("polarity", lambda rows: {f"polarity/rt.{end}": "".join(f"{t}\n" for t in _of(rows, x)) for x, end in (("good", "pos"), ("bad", "neg"))}),
    "labels in a file beside": _files("train_text.txt", lambda rows: {"train_text.txt": "".join(f"{t}\n" for t, _ in rows), "train_labels.txt": "".join(f"{x}\n" for _, x in rows)}),
    "shards of a role": _files("data", _split),
}  # fmt: skip


def main() -> int:
    """Write each kind and run both verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=1.0, help="of auto, for each kind")
    add_arguments(parser)
    given = parser.parse_args()
    cells = Cells(RESULT, given)
    for kind in KINDS:
        cells.measure(kind, lambda kind=kind: answered(kind, given.folder, given.minutes))  # type: ignore[misc]
    failed = [kind for kind, told in cells.cells.items() if told["train"] or told["auto"]]
    print(f"{len(cells.cells)} of {len(KINDS)} kinds, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}")
    return int(bool(failed))


def answered(kind: str, folder: Path, minutes: float) -> dict[str, Any]:
    """A kind's exit codes, how it was read, what auto chose and scored, and the seconds of both."""
    place = folder / str(list(KINDS).index(kind))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    source, words = KINDS[kind](place, made())
    told: dict[str, Any] = {"source": source, "words": words, "minutes": minutes}
    verbs = {
        "train": [f"data.train={source}", *words, f"model.name={MODEL}", "train.steps=2", "--out", "run"],
        "auto": [source, *words, "--max-minutes", str(minutes), "--out", "search"],
    }
    for verb, arguments in verbs.items():
        started = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", "rankwise", verb, *arguments], cwd=place, capture_output=True, text=True, check=False
        )
        told[verb] = process.returncode
        told[f"{verb}_s"] = round(time.monotonic() - started, 1)
        if process.returncode:
            told[f"{verb}_said"] = (process.stderr + process.stdout).strip()[-500:]
    if told["train"] == 0:
        told["line"] = files.read_json(place / "run" / "result.json")["texts"]["sources"]
    if told["auto"] == 0:
        record = files.read_json(place / "search" / "search.json")
        told["winner"] = record["winner"]
    return told


if __name__ == "__main__":
    sys.exit(main())
