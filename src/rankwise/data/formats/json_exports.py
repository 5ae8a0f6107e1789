"""Rows of JSON as annotation tools and chat services export them, brought to a text and a label.

Each kind is known by its own keys in every row at the file's start: Label Studio, Prodigy, spaCy, doccano, Argilla and
LightTag, and the messages of a chat whose one answer is the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rankwise.data.columns import LABEL_NAMES

Record = Mapping[str, Any]
Row = Callable[[Record], Record]


class Export(NamedTuple):
    """A kind of export: what it is called in the line that is printed, and a record as a row."""

    name: str
    row: Row


def export_of(records: Sequence[Record]) -> Export | None:
    """The kind that all records are of; None for rows that are what they are."""
    for name, is_known, rows in _KINDS:
        if records and all(map(is_known, records)):
            return Export(name, rows(records))
    return None


# --- tools that label texts ---------------------------------------------------------------------------


def _annotations(record: Record) -> Any:
    return record.get("annotations", record.get("completions"))  # as versions before 1.0 call them


def _is_label_studio(record: Record) -> bool:
    return isinstance(record.get("data"), dict) and isinstance(_annotations(record), list)


def _label_studio(record: Record) -> Record:
    """A task with the choices of its first annotation that was not cancelled, under the name of their control."""
    row = {"id": record.get("id"), **record["data"]}
    done = [made for made in _annotations(record) if not made.get("was_cancelled")]
    for result in (done[0].get("result") or []) if done else []:
        value = result.get("value", {})
        paths = ["/".join(path) for path in value.get("taxonomy", [])]
        chosen = paths or value.get("choices", value.get("rating"))
        if chosen is not None:
            row[result.get("from_name", "label")] = chosen
    return row


def _is_prodigy(record: Record) -> bool:
    return record.get("answer") in ("accept", "reject", "ignore") and bool({"accept", "label"} & set(record))


def _prodigy(records: Sequence[Record]) -> Row:
    """Accepted labels; what is rejected is not the label where there is one, and none of several that is known."""
    asked = {str(record.get("label")) for record in records if "accept" not in record}

    def row(record: Record) -> Record:
        label = record.get("accept", record.get("label"))
        if record["answer"] != "accept":
            label = f"not {label}" if record["answer"] == "reject" and len(asked) == 1 else None
        return {name: cell for name, cell in record.items() if name not in _OF_PRODIGY} | {"label": label}

    return row


_OF_PRODIGY = ("accept", "answer", "options", "_input_hash", "_task_hash", "_view_id", "_timestamp")


def _is_spacy(record: Record) -> bool:
    return isinstance(_categories(record), dict)


def _categories(record: Record) -> Any:
    label = record.get("label")
    return label.get("cats") if isinstance(label, dict) else record.get("cats")


def _spacy(record: Record) -> Record:
    chosen = [name for name, score in _categories(record).items() if (score or 0) >= 0.5]
    return {name: cell for name, cell in record.items() if name != "cats"} | {"label": chosen}


def _is_argilla(record: Record) -> bool:
    return isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), dict)


def _argilla(record: Record) -> Record:
    """A record of version 2 with the first answer to each question that was not discarded."""
    said = {
        question: next((one.get("value") for one in given if one.get("status") != "discarded"), None)
        for question, given in record["responses"].items()
    }
    return {"id": record.get("id"), **record["fields"], **said}


_NAMES = ("label", "value", "classname")
"""what the name of a label is called in its details: by doccano, Argilla 1 and LightTag"""


def _are_labels(cell: Any) -> bool:
    """Whether a cell lists labels with their details, and no spans of a text."""
    return isinstance(cell, list) and all(
        isinstance(item, dict) and set(_NAMES) & set(item) and not any("start" in key for key in item) for item in cell
    )


def _key_of_labels(record: Record) -> str | None:
    return next((key for key in ("annotations", "classifications", *LABEL_NAMES) if _are_labels(record.get(key))), None)


def _details(record: Record) -> Record:
    """doccano's annotations, Argilla's responses and LightTag's classifications: their labels alone."""
    key = _key_of_labels(record) or ""
    said = [next(item[name] for name in _NAMES if name in item) for item in record[key]]
    labels = [label for place, label in enumerate(said) if label not in said[:place]]  # which several people may give
    return {name: cell for name, cell in record.items() if name != key} | {"label": labels}


# --- chats --------------------------------------------------------------------------------------------

_ASKS = ("user", "human")
_ANSWERS = ("assistant", "gpt", "model", "bot")


def _turns(record: Record, roles: Sequence[str]) -> list[str]:
    """What some roles say in the messages of a chat."""
    messages = next((record[key] for key in ("messages", "conversations", "contents") if key in record), None)
    if isinstance(record.get("prompt"), list) and isinstance(record.get("completion"), list):
        messages = [*record["prompt"], *record["completion"]]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return []
    said = [message for message in messages if message.get("role", message.get("from")) in roles]
    return [_words(next((m[key] for key in ("content", "value", "parts") if key in m), "")) for m in said]


def _words(content: Any) -> str:
    parts = content if isinstance(content, list) else [content]
    return "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in parts)


def _is_chat(record: Record) -> bool:
    return len(_turns(record, _ASKS)) == 1 and len(_turns(record, _ANSWERS)) <= 1


def _chat(record: Record) -> Record:
    """The one question, and its answer as the class."""
    others = {name: cell for name, cell in record.items() if not isinstance(cell, list)}
    return {
        **others,
        "text": next(iter(_turns(record, _ASKS)), ""),
        "label": next(iter(_turns(record, _ANSWERS)), None),
    }


def _each(row: Row) -> Callable[[Sequence[Record]], Row]:
    return lambda records: row


_KINDS: tuple[tuple[str, Callable[[Record], bool], Callable[[Sequence[Record]], Row]], ...] = (
    ("Label Studio's tasks", _is_label_studio, _each(_label_studio)),
    ("Prodigy's answers", _is_prodigy, _prodigy),
    ("spaCy's categories", _is_spacy, _each(_spacy)),
    ("Argilla's records", _is_argilla, _each(_argilla)),
    ("labels with their details", lambda record: _key_of_labels(record) is not None, _each(_details)),
    ("messages of a chat", _is_chat, _each(_chat)),
)
