"""The model card of a run: README.md in its adapter's folder, written from the files once the scores are known."""

from __future__ import annotations

from pathlib import Path

from rankwise import files
from rankwise.config import Config
from rankwise.data.report import kept_in_words
from rankwise.encoders import encoder_of
from rankwise.machine.segments import HEAD_AND_TAIL
from rankwise.methods import method_of
from rankwise.records import Result, Scores
from rankwise.records.result import Parameters
from rankwise.runs.folder import Run, open_run
from rankwise.scoring import looks
from rankwise.scoring.decisions import thresholds

GROUPS = (
    ("adapter", "adapter"),
    ("dora", "DoRA magnitudes"),
    ("bias", "biases"),
    ("head", "head"),
    ("encoder", "encoder"),
    ("words", "TF-IDF of words"),
)
# A class table longer than this belongs into a report.
_MOST_CLASSES = 40


def write(path: str | Path | Run) -> Path:
    """Write the card of a finished run into its adapter's folder, in place of the one it was saved with.

    Call it again after an evaluation: the card then holds the test scores.

    Raises: UserError when the folder is not a run's.
    """
    run = open_run(path)
    card = run.adapter / "README.md"
    files.write_text(card, text(run))
    return card


def text(run: Run) -> str:
    """The card as Markdown with the metadata that model hubs read."""
    result, config = run.record, run.config
    parts = [
        _front_matter(config),
        f"# {config.adapter.method} adapter for {_base_name(config)}",
        _what(result, config),
        f"## Scores\n\n{_scores(result)}",
        f"## Trained parameters\n\n{_parameters(result.parameters)}",
        f"## Data\n\n{_data(result, config)}",
        f"## Limits\n\n{_limits(result, config)}",
        f"## Use\n\n{_use(result, config)}",
        f"## How it was made\n\n{_made(result)}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(config: Config) -> str:
    # A folder's path says nothing to other machines; only a Hub name is metadata.
    base = "" if Path(config.model.name).is_dir() or ":" in config.model.name else f"base_model: {config.model.name}\n"
    return f"---\n{base}library_name: peft\npipeline_tag: text-classification\ntags: [{config.adapter.method}, rankwise]\n---"


def _base_name(config: Config) -> str:
    return Path(config.model.name).name if Path(config.model.name).is_dir() else config.model.name


def _what(result: Result, config: Config) -> str:
    many = "any number of" if config.data.multi_label else "one of"
    adapter = config.adapter
    scope = adapter.scope if isinstance(adapter.scope, str) else ", ".join(adapter.scope)
    rank = f" of rank {adapter.rank} on {scope}" if method_of(config).ranked else ""
    if method_of(config).trains_encoder:
        made = f"It is the whole encoder `{_base_name(config)}`, fine-tuned, with its classification head."
    else:
        made = (
            f"It is a {adapter.method} adapter{rank} with its classification head; the encoder "
            f"`{_base_name(config)}` is frozen and not in this folder."
        )
    return f"Gives a text {many} {len(result.labels)} labels: {', '.join(map(_cell, result.labels))}.\n\n{made}"


def _scored(result: Result) -> list[tuple[str, Scores]]:
    """The scores of each role that was scored, those of test rows first."""
    each = [("test", result.metrics.test), ("validation", result.metrics.validation)]
    return [(role, scores) for role, scores in each if scores is not None]


def _scores(result: Result) -> str:
    scored, floor = _scored(result), result.metrics.floor
    if not scored:
        return "It was not scored."
    named = [(f"{role} rows", scores) for role, scores in scored]
    if floor is not None:
        below = {"test": floor.test, "validation": floor.validation}
        named += [(f"floor on {role} rows", lower) for role, _ in scored if (lower := below[role]) is not None]
    lines = [
        "| | rows | accuracy (95% interval) | macro F1 | loss | calibration error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {scores.examples:,} | {_with_interval(scores)} | {scores.macro_f1:.4f} | {scores.loss:.4f} | {scores.ece:.4f} |"
        for name, scores in named
    ]
    sentences = []
    if floor is not None:
        sentences.append(f"The floor is {floor.method} on the same rows.")
    test = result.metrics.test
    if test is not None:
        said = looks.sentence(test.looks or 1, test.looks_all)
        sentences.append(f"{said[0].upper()}{said[1:]}.")
        sentences += [f"Note: {note}." for note in test.notes]
    validation = result.metrics.validation
    if validation is not None and validation.folds is not None:
        sentences.append(
            f"Validation rows are the training rows, each scored by one of {validation.folds} runs that was not fitted on it; "
            "this adapter was fitted on all of them."
        )
    elif validation is not None:
        sentences.append("Validation rows chose the weights, so their scores are a little too good.")
    role, scores = scored[0]
    return "\n".join(lines) + "\n\n" + " ".join(sentences) + "\n\n" + _classes(scores, role)


def _with_interval(scores: Scores) -> str:
    low, high = scores.accuracy_ci95
    return f"{100 * scores.accuracy:.2f}% ({100 * low:.2f} to {100 * high:.2f})"


def _classes(scores: Scores, role: str) -> str:
    rows = list(scores.per_class.items())
    lines = [f"| class ({role} rows) | precision | recall (95% interval) | F1 | rows |", "|---|---:|---:|---:|---:|"]
    for name, row in rows[:_MOST_CLASSES]:
        ends = row.recall_ci95
        interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        lines.append(
            f"| {_cell(name)} | {_share(row.precision)} | {_share(row.recall)}{interval} | {_share(row.f1)} | {row.support:,} |"
        )
    more = f"\n\n{len(rows) - _MOST_CLASSES} more classes are in the run's report." if len(rows) > _MOST_CLASSES else ""
    return "\n".join(lines) + more


def _parameters(parameters: Parameters) -> str:
    budget = f" of {parameters.budget:,} allowed" if parameters.budget else ""
    counts = [(title, getattr(parameters, group)) for group, title in GROUPS]
    groups = ", ".join(f"{title} {count:,}" for title, count in counts if count)
    return (
        f"{parameters.trainable:,}{budget}: {groups}. Frozen: {parameters.frozen:,}. "
        f"The adapter's file has {parameters.adapter_bytes:,} bytes."
    )


def _data(result: Result, config: Config) -> str:
    lines = ["| role | source | rows | sha256 of the rows |", "|---|---|---:|---|"]
    for role, rows in result.data.items():
        named = rows.source or getattr(config.data, role)
        source = _source(named) if named else f"held out of {_source(str(config.data.train))}"
        lines.append(f"| {role} | {_cell(source)} | {rows.rows:,} | `{rows.sha256[:16]}` |")
    text, label = (" + ".join(c) if isinstance(c, list) else c for c in (config.data.text, config.data.label))
    columns = f"\n\nText column: `{text}`; label column: `{label}`." if text and label else ""
    return "\n".join(lines) + columns


def _source(source: str) -> str:
    """A file by its name: where it lay on one machine says nothing on another."""
    return Path(source).name if Path(source).exists() or "/" in source else source


def _limits(result: Result, config: Config) -> str:
    limits = [
        "It knows only the labels above and gives one of them to any text, also to one that is about none of them."
    ]
    if config.data.multi_label:
        limits = ["It knows only the labels above; a text that is about others gets none or a wrong one."]
    train = result.texts.get("tokens", {}).get("train")
    if train:
        limits.append(
            f"It reads {kept_in_words(train['max_length'], config.data.truncation)}; {train['texts_cut']:,} training texts were longer."
        )
    if result.status != "finished":
        limits.append(f"Training ended as `{result.status}` after {result.timing.steps:,} steps.")
    limits += _weak_classes(result)
    limits.append("It was scored on rows like those it was trained on; on texts of another kind it may do worse.")
    return "\n".join(f"- {limit}" for limit in [*limits, *result.notes])


def _weak_classes(result: Result) -> list[str]:
    """The class found least often, when that is worth a sentence."""
    scored = next((scores.per_class for _, scores in _scored(result) if scores.per_class), {})
    rows = [(row.recall, name) for name, row in scored.items() if row.recall is not None]
    if len(rows) < 2 or min(rows)[0] == max(rows)[0]:
        return []
    recall, name = min(rows)
    return [f"It finds {_cell(name)} least often: {100 * recall:.1f}% of its rows."]


def _use(result: Result, config: Config) -> str:
    labels, decision, multi_label = result.labels, result.decision, config.data.multi_label
    kind = ', problem_type="multi_label_classification"' if multi_label else ""
    if multi_label:
        limits = [round(limit, 6) for limit in thresholds(decision, labels)]
        told = f"limits = {limits}\nprint([label for label, p, limit in zip(labels, logits[0].sigmoid(), limits) if p >= limit])"
    else:
        told = "print(labels[logits.argmax(-1).item()])"
    ours = f"""{_decided(result)}With Rankwise:

```python
import rankwise

rankwise.load("THIS_FOLDER").predict(["a text"])
```"""
    if config.data.truncation == HEAD_AND_TAIL:
        ours += "\n\nOther programs read the first tokens of a long text alone, and may answer otherwise there."
    if config.head.pooling != "first":
        from rankwise.models.adapter_file import peft_lines

        encoder = encoder_of(config.model).pooled(config.head.pooling)
        return f"{ours}\n\n{peft_lines('THIS_FOLDER', encoder, len(labels))}"
    return f"""{ours}

With `peft` alone:

```python
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

labels = {list(labels)!r}
model = AutoPeftModelForSequenceClassification.from_pretrained("THIS_FOLDER", num_labels={len(labels)}{kind})
tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")
logits = model(**tokenizer(["a text"], truncation=True, return_tensors="pt")).logits
{told}
```"""


def _decided(result: Result) -> str:
    """How answers are decided where they are not the most probable label, which is what other programs would take."""
    decision = result.decision
    if decision is None:
        return ""
    if decision.costs:
        how = "the answer that is expected to cost least"
    else:
        limits = ", ".join(f"{_cell(name)} from {limit:.4f}" for name, limit in decision.thresholds.items())
        how = f"by probability, {limits}"
    return (
        f"Answers are decided for `{decision.goal}`, {how}, fitted on {decision.rows:,} validation rows; `rankwise.json` holds "
        "it, and a program that takes the most probable label does not follow it.\n\n"
    )


def _made(result: Result) -> str:
    versions = result.environment.versions
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("rankwise", "torch", "transformers", "peft") if versions.get(name)
    )
    timing = result.timing
    return (
        f"{timing.steps:,} steps in {timing.train_s:,.0f} s, seed {result.seed}, configuration "
        f"`{result.config_hash}`, with {named}. The run's folder holds the configuration, which runs again as it is."
    )


def _cell(value: str) -> str:
    """A name inside a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
