"""Train, validation and test, read and held apart.

A role that names its source is read from there; validation without one is held out of train, and so is test
when `test_size` says so. Test is drawn first, then validation, so that asking for another validation size
leaves the test rows as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rankwise import files
from rankwise.config import Data
from rankwise.data import cleaning, duplicates, folds, labels, remarks, sources
from rankwise.data.classes import declared
from rankwise.data.report import Report
from rankwise.data.rows import Rows
from rankwise.errors import UserError, listed
from rankwise.machine import caches

ROLES = ("train", "validation", "test")
MAX_VALIDATION_ROWS = 5_000
"""Rows held out at most by default: 91% measured on 5,000 rows is known to 0.8 points (95%)."""
_SHOWN = 10
_FOUND = ("text", "label", "label_separator", "classes")
_CACHED_AUDIT_ROWS = 5_000


@dataclass(frozen=True)
class Roles:
    """What `load` read: rows by role (None where not asked for or not there), class names, and a report.

    data: the configuration with what was found: columns, separator of labels, what numbers stand for.
    """

    train: Rows | None
    validation: Rows | None
    test: Rows | None
    label_names: list[str]
    report: Report = field(repr=False)
    data: Data = field(default_factory=Data, repr=False)

    def named(self) -> dict[str, Rows]:
        """The roles that hold rows, in the order train, validation, test."""
        return {role: rows for role in ROLES if (rows := getattr(self, role)) is not None}

    def found(self) -> dict[str, Any]:
        """The keys of `data` that reading settled, with their values."""
        values = {key: getattr(self.data, key) for key in _FOUND}
        return {key: value for key, value in values.items() if value is not None}


def load(
    data: Data,
    roles: Sequence[str] = ("train", "validation"),
    label_names: Sequence[str] | None = None,
    audit: bool = True,
    rows_at_hand: sources.Source | None = None,
) -> Roles:
    """Read the roles asked for.

    Args:
        data: the `data` section of the configuration.
        roles: any of train, validation and test. One without a source of its own is held out of train:
            validation when it is asked for or has a size, test when it has a size; else it stays None.
        label_names: the classes of a finished run; train is then read only when rows are held out of it.
        audit: count duplicates within and between the roles.
        rows_at_hand: the training source, where it need not be read.

    Raises: UserError for sources that cannot be read, classes that training lacks, and roles that share rows.
    """
    _check_sources(data, roles)
    parts: dict[str, sources.Source] = {}
    held_out = [role for role in ("validation", "test") if role in roles and getattr(data, role) is None]
    is_cut = "validation" in held_out or (bool(held_out) and data.test_size is not None)
    if "train" in roles or label_names is None or is_cut:
        parts = _split_train(data, "validation" in roles, rows_at_hand)
        # What the training source told holds for the other roles: they are read the same way.
        data = msgspec.structs.replace(data, **{key: getattr(parts["train"].data, key) for key in _FOUND})
    for role in ("validation", "test"):
        source = getattr(data, role)
        if source is not None and role in roles:
            parts[role] = sources.read(source, data, role)
    classes = list(label_names if label_names is not None else parts["train"].classes or ())
    given = declared(data)
    numbers = given if given is None or isinstance(given, Mapping) else labels.numbered(given, ())
    read = {role: part for role, part in parts.items() if role in roles}
    index = {
        role: labels.translator({name for label in part.labels for name in label}, classes, role, part.where, numbers)
        for role, part in read.items()
    }
    rows = {role: _rows(part, index[role], classes, data) for role, part in read.items()}
    if not rows:
        raise UserError(f"there are no {' or '.join(roles)} rows: name a source with data.{roles[0]}")
    whole = rows
    if data.folds is not None:  # validation rows are training rows of other folds: nothing is chosen by them
        rows = {role: held for role, held in rows.items() if role != "validation"} or rows
    report = Report(rows={role: len(r) for role, r in rows.items()}, classes=classes)
    report.balance = {role: labels.counts(r.labels, len(classes)) for role, r in rows.items()}
    by_line = {part.line: part for part in read.values()}  # roles held out of train were read with it
    report.sources = [line for line in by_line if line]
    report.notes = list(dict.fromkeys(note for part in by_line.values() for note in part.notes))
    report.notes += [note for role in rows if (note := _positions(index[role], role, classes))]
    report.notes += remarks.of_roles(
        rows, classes, report.balance, named_test=data.test is not None, named_validation=data.validation is not None
    )
    if audit:
        report.duplicates = audited(rows, data.preprocess)
    return Roles(whole.get("train"), whole.get("validation"), whole.get("test"), classes, report, data)


def audited(rows: dict[str, Rows], preprocess: Sequence[str]) -> list[duplicates.Overlap]:
    """The duplicates within and between roles, counted once for the same rows: of 26,000 it takes seconds."""
    roles = {role: (r.texts, r.ids, r.labels) for role, r in rows.items()}
    if sum(map(len, rows.values())) < _CACHED_AUDIT_ROWS:
        return duplicates.audit(roles)
    named = [[role, r.sha256, r.ids] for role, r in rows.items()]
    key = hashlib.sha256(json.dumps([duplicates.VERSION, list(preprocess), named], default=str).encode()).hexdigest()
    path = caches.cache("duplicates") / f"{key}.json"
    if path.is_file():
        with contextlib.suppress(UserError, msgspec.ValidationError):  # a damaged file is made anew
            return msgspec.convert(files.read_json(path), list[duplicates.Overlap])
    found = duplicates.audit(roles)
    with caches.optional():
        files.write_json(path, [overlap.to_dict() for overlap in found])
    return found


def _check_sources(data: Data, roles: Sequence[str]) -> None:
    """Refuse two roles that read the same rows, and a held-out role that has a source of its own."""
    named = {role: getattr(data, role) for role in ROLES if getattr(data, role) is not None}
    seen: dict[str, str] = {}
    for role, source in named.items():
        other = seen.setdefault(sources.identity(source, role), role)
        if other != role:
            raise UserError(
                f"data.{other} and data.{role} are the same rows ({source}): name different sources, "
                f"or leave data.{role} out and set data.{role}_size to hold rows out"
            )
    # A finished run may be evaluated on another test set: only with train is it unclear which is meant.
    for role in ("validation", "test") if "train" in roles else ():
        if role in named and getattr(data, f"{role}_size") is not None:
            raise UserError(f"data.{role} and data.{role}_size are both given: keep one")


# --- splitting ----------------------------------------------------------------------------------------


def _split_train(data: Data, hold_validation: bool, whole: sources.Source | None) -> dict[str, sources.Source]:
    """The training source without the rows held out of it, and those by role."""
    if data.train is None:
        raise UserError("data.train is not set: name a file, a folder, a Hub data set or packaged:bbc-news")
    whole = whole or sources.read(data.train, data, "train")
    present = labels.order(whole.labels, whole.where)
    # Classes are those of the whole source, so that no draw changes what the head predicts.
    rest = replace(whole, classes=whole.classes or tuple(present))
    if data.drop_duplicates:
        rest = _take(rest, duplicates.first_of_each(rest.texts))
    parts = {}
    if data.test is None and data.test_size is not None:
        parts["test"], rest = _hold_out(rest, data.test_size, "test", data)
    if data.folds is not None:
        if hold_validation:
            fold = folds.fold_of_each(_label_array(rest, data), data.folds, data.split_seed)
            parts["validation"] = _take(rest, np.flatnonzero(fold != folds.ALWAYS_TRAINED_ON))
    elif data.validation is None and (hold_validation or data.validation_size is not None):
        size = data.validation_size or default_validation_rows(len(rest.texts))
        parts["validation"], rest = _hold_out(rest, size, "validation", data)
    labels.order(rest.labels, f"what is left of {rest.where} for training")
    return {"train": rest, **parts}


def _hold_out(
    source: sources.Source, size: int | float, role: str, data: Data
) -> tuple[sources.Source, sources.Source]:
    """The rows drawn for a role, and the others. A share is rounded up, as `datasets` does."""
    rows = len(source.texts)
    count = size if isinstance(size, int) else math.ceil(size * rows)
    if count >= rows:
        raise UserError(f"data.{role}_size asks for {count:,} rows of {rows:,}: leave some for training")
    held, left = split(labels.strata(_label_array(source, data)) if data.stratify else rows, count, data.split_seed)
    return _take(source, held), _take(source, left)


def default_validation_rows(rows: int) -> int:
    """A tenth of the rows, at least one, at most 5,000."""
    return min(max(1, rows // 10), MAX_VALIDATION_ROWS)


def _label_array(source: sources.Source, data: Data) -> NDArray[Any]:
    index = {name: i for i, name in enumerate(source.classes or ())}
    return labels.to_array(source.labels, index, len(index), data.multi_label)


def split(strata: NDArray[np.int64] | int, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers held out and row numbers left, for the stratum of each row or a plain number of rows.

    Without strata the rows, and their order, are those of `datasets.Dataset.train_test_split(test_size=count,
    seed=seed)`, which the papers used. With strata each gives its share, rounded so that the sum is `count`
    (largest remainder), and both parts keep the order of the source.
    """
    generator = np.random.default_rng(seed)
    if isinstance(strata, int):
        order = generator.permutation(strata)
        return order[:count], order[count:]
    _, stratum, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    exact = sizes * count / len(strata)
    # A stratum keeps a row for training if it can: a class that training lacks could not be scored.
    room = np.maximum(sizes - 1, 0) if count <= len(strata) - len(sizes) else sizes
    quota = np.minimum(np.floor(exact).astype(np.int64), room)
    while quota.sum() < count:
        quota[np.argmax(np.where(quota < room, exact - quota, -np.inf))] += 1
    order = generator.permutation(len(strata))
    by_stratum = order[np.argsort(stratum[order], kind="stable")]
    place = np.arange(len(strata)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_held = np.zeros(len(strata), dtype=bool)
    is_held[by_stratum[place < np.repeat(quota, sizes)]] = True
    return np.flatnonzero(is_held), np.flatnonzero(~is_held)


def _take(source: sources.Source, rows: NDArray[np.int64]) -> sources.Source:
    chosen = rows.tolist()
    return replace(
        source,
        texts=[source.texts[i] for i in chosen],
        labels=[source.labels[i] for i in chosen],
        ids=[source.ids[i] for i in chosen],
    )


# --- classes ------------------------------------------------------------------------------------------


def _rows(part: sources.Source, index: dict[str, int], classes: list[str], data: Data) -> Rows:
    return Rows(
        texts=cleaning.preprocess(part.texts, data.preprocess),
        labels=labels.to_array(part.labels, index, len(classes), data.multi_label),
        ids=part.ids,
        sha256=_content_hash(part.texts, [[classes[index[n]] for n in label] for label in part.labels]),
        texts_sha256=_unordered_hash(part.texts),
    )


def _positions(index: dict[str, int], role: str, classes: Sequence[str]) -> str | None:
    """What the words of a role were taken for where they are not those of training."""
    other = sorted(set(index) - set(classes))
    if not other:
        return None
    shown = listed([f"{name} is {classes[index[name]]}" for name in other], _SHOWN)
    return f"{role} writes its labels otherwise than training: {shown}"


def _unordered_hash(texts: Sequence[str]) -> str:
    """sha256 over the texts' own, sorted."""
    each = sorted(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts)
    return hashlib.sha256(b"".join(each)).hexdigest()


def _content_hash(texts: Sequence[str], names: Sequence[Sequence[str]]) -> str:
    """sha256 over texts and class names; lengths go in too, so no two row sets read alike."""
    digest = hashlib.sha256()
    for row_text, row_names in zip(texts, names, strict=True):
        for part in (row_text, *row_names):
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(encoded) + encoded)
        digest.update(b"\n")
    return digest.hexdigest()
