"""Bulk prediction over Ray Data: more texts than one machine cares to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise.data.formats import open_file
from rankwise.data.table import Reading
from rankwise.errors import UserError
from rankwise.inference import saved
from rankwise.search.sweep.ray_workers import connect

_READERS = {".parquet": "read_parquet", ".csv": "read_csv", ".jsonl": "read_json", ".json": "read_json"}


def predict(
    run: str | Path,
    source: str,
    output: str | Path,
    *,
    address: str = "auto",
    text: str | list[str] | None = None,
    calibrated: bool = False,
    base: str | None = None,
    workers: int | None = None,
    batch_rows: int = 1024,
) -> int:
    """Label the rows of files into a folder of Parquet files; the input's columns are kept.

    source
        A file, a folder or a pattern of Parquet, CSV or JSONL files that every machine can read.
    text
        Text columns; by default those the run was trained on.
    calibrated
        Apply the temperature kept with the adapter (`rankwise calibrate`).
    base
        As in `rankwise.load`.
    workers
        Processes that hold the model, one cpu each; one fewer than the cluster has cpus by default.

    Returns: rows written.
    Raises: UserError for a source that cannot be read or lacks the text columns, and for an output that exists.
    """
    paths = _paths(source)
    if base is not None and Path(base).is_dir():
        base = str(Path(base).resolve())  # a worker may stand elsewhere
    target = str(output) if "://" in str(output) else str(Path(output).resolve())  # a worker may stand elsewhere
    if Path(output).is_file() or (Path(output).is_dir() and any(Path(output).iterdir())):
        raise UserError(f"{output} exists already: name a folder to be made")
    suffix = Path(paths[0]).suffix
    if suffix not in _READERS:
        raise UserError(f"{source}: expected {', '.join(_READERS)} files")
    ray = connect(address)
    import ray.data as reading
    from pyarrow.dataset import dataset
    from ray.data import ActorPoolStrategy

    rows: Any = getattr(reading, _READERS[suffix])(paths)
    columns = [text] if isinstance(text, str) else text or saved.read_any(run, base=base).text
    # Ray would start workers to learn the names.
    names = (
        rows.schema().names if "://" in paths[0] else open_file(Path(paths[0]), None, Reading(labelled=False)).columns
    )
    missing = [column for column in columns if column not in names]
    if missing:
        raise UserError(f"{source} has no column '{missing[0]}'; its columns are {', '.join(names)}")
    # A reader needs a cpu beside the predictors, or a cluster of one would wait for itself.
    cpus = int(ray.cluster_resources().get("CPU", 1))
    count = workers or max(1, cpus - 1)
    labelled = rows.map_batches(
        _Labeller,
        fn_constructor_args=(str(Path(run).resolve()), columns, calibrated, base),
        batch_size=batch_rows,
        compute=ActorPoolStrategy(size=count),
        num_cpus=1 if count < cpus else 0,
    )
    try:
        labelled.write_parquet(target)
    except ray.exceptions.RayError as error:
        # The labeller's own sentence stands at the end of what Ray says.
        told = [line for line in str(error).splitlines() if "UserError: " in line]
        if not told:
            raise
        raise UserError(told[-1].partition("UserError: ")[2]) from error
    written: int = dataset(target, format="parquet").count_rows()
    return written


def _paths(source: str) -> list[str]:
    """The files a source names, absolute, since a worker may stand elsewhere; an address elsewhere as it is.

    Raises: UserError when there is none.
    """
    if "://" in source:
        return [source]
    if Path(source).is_dir():  # whose _SUCCESS is no data
        found = [path for path in sorted(Path(source).iterdir()) if not path.name.startswith((".", "_"))]
    else:
        found = _matching(source)
    files = [str(path.resolve()) for path in found if path.is_file()]
    if not files:
        raise UserError(f"{source}: no such file, and no file matches it")
    return files


def _matching(pattern: str) -> list[Path]:
    path = Path(pattern)
    start = Path(path.anchor) if path.is_absolute() else Path()
    return sorted(start.glob(str(path.relative_to(start))))


class _Labeller:
    """A predictor that stays in its worker from block to block."""

    def __init__(self, run: str, columns: list[str], calibrated: bool, base: str | None) -> None:
        from rankwise.inference.predictor import load

        self.predictor = load(run, calibrated=calibrated, base=base)
        self.columns = columns

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with `predicted` and `p_<label>` columns."""
        import numpy as np

        from rankwise.data.cleaning import PAIR
        from rankwise.data.text import joined

        rows = zip(*(batch[column] for column in self.columns), strict=True)
        pair = self.predictor.pair
        texts = [joined(cells, lambda: "a row", pair=pair) or (PAIR if pair else "") for cells in rows]
        probabilities = self.predictor.predict_proba(texts)
        names = self.predictor.label_names
        shares = {f"p_{name}": probabilities[:, place].astype(np.float32) for place, name in enumerate(names)}
        predicted = np.empty(len(probabilities), dtype=object)  # a list a row when a text may carry several labels
        predicted[:] = self.predictor.names_of(probabilities)
        return {**batch, "predicted": predicted, **shares}
