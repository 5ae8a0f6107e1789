"""Twenty fine-tuned classifiers of 2 to 154 labels on one base, made of the packaged and of any labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import rankwise

COUNT = 20
MODEL = "packaged:all-MiniLM-L6-v2"
_CLASSES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40, 50, 60, 70, 77, 154)
"""of the table with the most labels: its first so many, or each of them once for short and once for long texts"""


def texts_of(path: str | Path) -> list[str]:
    """The texts of a table."""
    texts: list[str] = pq.read_table(path)["text"].to_pylist()
    return texts


def trained(folder: Path, tables: list[Path], *, layers: list[int] | None = None, steps: int = 60) -> dict[str, Path]:
    """Runs by name, trained where they are not there yet.

    tables
        Parquet files with a text and a label column; the last is the one with the most labels.
    layers
        Of the encoder, that adapters are on.
    """
    runs = {}
    for number, rows in enumerate(_sources(tables)):
        name = f"c{number:02d}-{len({row['label'] for row in rows})}"
        runs[name] = folder / name
        if not (runs[name] / "adapter").is_dir():
            begun = (runs[name] / "config.yaml").is_file()
            rankwise.train(_tree(rows, number, layers, steps), out=runs[name], resume=begun)
            print(f"{name}: trained on {len(rows):,} rows", flush=True)
    return runs


def _sources(tables: list[Path]) -> list[list[dict[str, Any]]]:
    """The rows of each classifier."""
    plain = [pq.read_table(path).to_pylist() for path in tables]
    most = plain[-1]
    names = sorted({row["label"] for row in most})
    sources = plain[: COUNT - len(_CLASSES)]
    for count in _CLASSES[len(_CLASSES) - (COUNT - len(sources)) :]:
        if count <= len(names):
            sources.append([row for row in most if row["label"] in names[:count]])
        else:
            middle = sorted(len(row["text"]) for row in most)[len(most) // 2]
            sources.append([{**row, "label": f"{row['label']} {len(row['text']) < middle}"} for row in most])
    return sources


def _tree(rows: list[dict[str, Any]], seed: int, layers: list[int] | None, steps: int) -> dict[str, Any]:
    adapter: dict[str, Any] = {"scope": "all", "rank": 8, "alpha": 16, "dora": seed % 4 == 3}
    if layers is not None:
        adapter["layers"] = layers
    return {
        "model": {"name": MODEL},
        "adapter": adapter,
        "data": {"train": rows, "validation_size": 100, "max_length": 128},
        "train": {"steps": steps, "batch_size": 16, "learning_rate": 2e-3, "eval_every": steps, "seed": seed},
        "budget": {"max_trainable": None},
    }
