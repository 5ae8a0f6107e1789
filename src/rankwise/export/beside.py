"""What lies beside an artefact's weights: tokenizer, labels and temperature, a program of a few lines, a README."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise import files
from rankwise.data import cleaning
from rankwise.data.report import kept_in_words
from rankwise.data.tokens import special_tokens
from rankwise.export.subject import Subject
from rankwise.machine import segments
from rankwise.scoring.decisions import thresholds

ABOUT = "classifier.json"

_PREDICT = '''"""Labels {what} of standard input. Needs numpy, tokenizers and {needs}."""

import json
import sys
from pathlib import Path

import numpy
import tokenizers
{imports}
HERE = Path(__file__).resolve().parent
ABOUT = json.loads((HERE / "classifier.json").read_text(encoding="utf-8"))
TOKENIZER = tokenizers.Tokenizer.from_file(str(HERE / "tokenizer.json"))
{session}

def logits(texts):
    """Raw scores of cleaned texts. Shape: (texts, classes)"""
    rows = {rows}
    {scores}


def probabilities(texts):
    """Shape: (texts, classes)"""
    scores = logits({texts}) / ABOUT["temperature"]
    {share}


def predict(texts):
    """{answer}"""
    {names}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(predict([{line}])[0], ensure_ascii=False))
'''

# A tokenizer's own truncation keeps the first tokens alone.
_ENDS = '''PADDING = TOKENIZER.padding
TOKENIZER.no_padding()
Row = collections.namedtuple("Row", "ids type_ids attention_mask")


def ends(rows):
    """Texts that are too long by their first and last tokens, padded to the longest where rows are padded."""
    cut = [segments.cut({marked}, ABOUT["max_length"], {behind}, ABOUT["truncation"]) for row in rows]
    longest = max(map(len, cut)) if PADDING else 0
    padded = []
    for text in cut:
        none = [0] * (longest - len(text))
        pads = [PADDING["pad_id"] for _ in none]
        ids, types = segments.ids_of(text).tolist() + pads, segments.types_of(text).tolist() + none
        padded.append(Row(ids, types, [1] * len(text) + none))
    return padded

'''
_CLEANED = 'cleaning.preprocess(texts, ABOUT["preprocess"])'
_CLEANED_PAIRS = (
    "[text.split(cleaning.PAIR, 1) for text in "
    'cleaning.preprocess([cleaning.PAIR.join(pair) for pair in texts], ABOUT["preprocess"])]'
)
_SHARES = """shares = numpy.exp(scores.astype(numpy.float64) - scores.max(1, keepdims=True))
    shares = shares / shares.sum(1, keepdims=True)"""
_SOFTMAX = f"{_SHARES}\n    return shares"
_SIGMOID = "return 1 / (1 + numpy.exp(-scores))"
_ONE = 'return [ABOUT["labels"][row.argmax()] for row in probabilities(texts)]'
_BY_COST = """scores = logits({texts}) / ABOUT["decision"]["temperature"]
    {share}
    expected = shares @ numpy.array(ABOUT["decision"]["costs"])
    return [ABOUT["labels"][row.argmin()] for row in expected]"""
_BY_THRESHOLD = """scores = logits({texts})
    {share}
    fitted = ABOUT["decision"]["thresholds"]
    places = [ABOUT["labels"].index(name) for name in fitted]
    over = shares[:, places] / numpy.array(list(fitted.values()))
    shares[:, places] = -1
    best = numpy.where(over.max(1) >= 1, numpy.array(places)[over.argmax(1)], shares.argmax(1))
    return [ABOUT["labels"][label] for label in best]"""
_SEVERAL = """rows = probabilities(texts) >= ABOUT["thresholds"]
    return [[name for name, carried in zip(ABOUT["labels"], row) if carried] for row in rows]"""


def write_about(subject: Subject, folder: Path) -> None:
    """The labels and what turns logits into answers, as JSON."""
    about: dict[str, Any] = {
        "labels": subject.saved.label_names,
        "multi_label": subject.saved.multi_label,
        "pair": subject.saved.pair,
        "temperature": subject.temperature,
        "max_length": subject.saved.max_length,
        "truncation": subject.saved.truncation,
        "preprocess": list(subject.saved.preprocess),
    }
    if subject.saved.multi_label:
        limits = thresholds(subject.saved.decision, subject.saved.label_names, temperature=subject.temperature)
        about["thresholds"] = limits
    if subject.saved.decision is not None:
        about["decision"] = subject.saved.decision.to_dict()
    files.write_json(folder / ABOUT, about)


def write_tokenizer(subject: Subject, folder: Path) -> None:
    """One tokenizer.json that pads as the classifier was trained, for `tokenizers` alone; it cuts where the first tokens are kept."""
    backend = subject.saved.tokenizer.backend_tokenizer
    if subject.saved.truncation == segments.HEAD:
        backend.enable_truncation(max_length=subject.saved.max_length)
    backend.enable_padding(pad_id=subject.saved.tokenizer.pad_token_id, pad_token=subject.saved.tokenizer.pad_token)
    try:
        backend.save(str(folder / "tokenizer.json"))
    finally:
        backend.no_truncation()
        backend.no_padding()


_OF_TOKENS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""what `tokenizers` calls the tensors of `transformers`"""


def arrays(subject: Subject) -> str:
    """Python for the tensors of rows of `tokenizers`."""
    each = [f'"{name}": numpy.array([row.{_OF_TOKENS[name]} for row in rows], numpy.int64)' for name in subject.inputs]
    return "{\n        " + ",\n        ".join(each) + ",\n    }"


def write_program(subject: Subject, folder: Path, *, needs: str, imports: str, session: str, scores: str) -> None:
    """`predict.py`, the cleaning of texts where the classifier was trained on cleaned ones, and the cutting of texts where the
    tokenizer cannot.

    imports, session, scores
        Lines of the target's own: what it imports, what it opens, and how rows of `tokenizers` become logits.
    """
    steps, both_ends = list(subject.saved.preprocess), subject.saved.truncation == segments.HEAD_AND_TAIL
    taken = [module for module, needed in ((cleaning, steps), (segments, both_ends)) if needed]
    for module in taken:
        shutil.copyfile(str(module.__file__), folder / Path(str(module.__file__)).name)
    if taken:
        names = [module.__name__.rpartition(".")[2] for module in taken]
        imports += "\nsys.path.insert(0, str(Path(__file__).resolve().parent))\n"
        imports += "".join(f"import {name}\n" for name in names)
    is_pair = subject.saved.pair
    rows = f"TOKENIZER.encode_batch({'[tuple(pair) for pair in texts]' if is_pair else 'list(texts)'})"
    if both_ends:
        behind = special_tokens(subject.saved.tokenizer)[1]
        marked = f"segments.marks_of(row, {behind})" if is_pair else "numpy.array(row.ids)"
        session += _ENDS.format(marked=marked, behind=behind)
        imports, rows = f"import collections\n{imports}", f"ends({rows})"
    cleaned = (_CLEANED_PAIRS if is_pair else _CLEANED) if steps else "texts"
    program = _PREDICT.format(
        what="pairs of texts, a tab between them, one a line" if is_pair else "texts, one a line",
        rows=rows,
        line='line.rstrip("\\n").partition("\\t")[::2]' if is_pair else 'line.rstrip("\\n")',
        needs=needs,
        imports=imports if imports.endswith("\n") or not imports else f"{imports}\n",
        session=f"{session}\n" if session else "",
        scores=scores,
        texts=cleaned,
        share=_SIGMOID if subject.saved.multi_label else _SOFTMAX,
        answer="The labels of each text." if subject.saved.multi_label else "The label of each text.",
        names=_names(subject).format(texts=cleaned, share=_SHARES),
    )
    files.write_text(folder / "predict.py", program)


def _names(subject: Subject) -> str:
    """The lines that turn scores into answers as the classifier decides."""
    decision = subject.saved.decision
    if subject.saved.multi_label:
        return _SEVERAL
    if decision is not None and decision.costs:
        return _BY_COST
    return _BY_THRESHOLD if decision is not None and decision.thresholds else _ONE


def write_readme(subject: Subject, folder: Path, *, title: str, use: str, facts: Sequence[str]) -> None:
    """The artefact's README: what it is, how it is used, what was proven of it."""
    many = "any number of" if subject.saved.multi_label else "one of"
    lines = [f"- {fact}" for fact in facts]
    if subject.temperature != 1.0:
        lines.append(f"- Calibrated: logits are divided by {subject.temperature:.4f} before they become probabilities.")
    steps = ", ".join(subject.saved.preprocess)
    if steps:
        lines.append(f"- It was trained on cleaned texts ({steps}).")
    if subject.saved.pair:
        lines.append(
            "- It reads pairs: `predict([(first, second), ...])`, and on a line of standard input a tab between them."
        )
    lines.append(f"- It reads {kept_in_words(subject.saved.max_length, subject.saved.truncation)}.")
    if subject.saved.truncation == segments.HEAD_AND_TAIL:
        lines.append("- `predict.py` cuts longer texts; `tokenizer.json` alone does not, and must not stand for it.")
    labels = ", ".join(subject.saved.label_names)
    files.write_text(
        folder / "README.md",
        f"# {title}\n\nGives {'two texts' if subject.saved.pair else 'a text'} {many} {len(subject.saved.label_names)} labels: {labels}.\n\n{use}\n\n"
        + "\n".join(lines)
        + "\n",
    )
