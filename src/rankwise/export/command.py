"""Exporting: written beside its place, answered from a fresh process, and only then moved into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rankwise import files
from rankwise.errors import UserError
from rankwise.export import alone, beside
from rankwise.export.subject import Proof, subject_of
from rankwise.export.targets import Options, target_of


def export(run: str | Path, to: str, out: str | Path, options: Options | None = None) -> dict[str, Any]:
    """Write a trained classifier for another program, whole or not at all.

    run
        A run's folder, a search's (its winner) or any PEFT adapter's.
    to
        One of `targets.TARGETS`.
    out
        A folder that is not there yet, or an earlier export.

    Returns: target, out, bytes by file, the largest difference of logits in a fresh process, texts it was asked, facts.
    Raises: UserError when the artefact does not answer as the classifier does; nothing is left then.
    """
    options = options or Options()
    place = Path(out)
    _check_place(place)
    write = target_of(to).writer()
    subject = subject_of(run)
    with files.new_folder(place) as folder:
        written = write(subject, folder, options)
        beside.write_about(subject, folder)
        texts = subject.proof.texts
        single, joined = alone.answers(folder, subject.spoken(texts), load=written.load, unwanted=written.unwanted)
        proof = subject.proof if written.expected is None else Proof(texts, written.expected)
        what = f"the {to} artefact in a fresh process"
        largest = max(proof.check(single, what), proof.check(joined, f"{what}, asked many texts at once,"))
        facts = [
            f"{len(texts)} texts answered in a fresh process, logits at most {largest:.2g} apart.",
            *written.facts,
            *subject.notes,
        ]
        beside.write_readme(subject, folder, title=f"{subject.name}: {written.title}", use=written.use, facts=facts)
        sizes = {
            str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
        }
    return {
        "target": to,
        "out": str(place),
        "files": sizes,
        "bytes": sum(sizes.values()),
        "texts": len(texts),
        "largest_difference": largest,
        "facts": facts,
        **msgspec.to_builtins(written.report),
    }


def _check_place(place: Path) -> None:
    """Refuse a folder that holds something else than an export."""
    if place.is_file():
        raise UserError(f"--out {place} is a file, expected the name of a folder to make")
    if place.is_dir() and any(place.iterdir()) and not (place / beside.ABOUT).is_file():
        raise UserError(f"--out {place} is not empty and no earlier export: name another folder")
    if not place.resolve().parent.is_dir():
        raise UserError(f"--out {place}: the folder {place.parent} does not exist, create it first")
