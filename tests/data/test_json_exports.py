"""What annotation tools and chats export is read as texts and labels; what has no label is left out and counted."""

from __future__ import annotations

import json

import pytest

from rankwise import config
from rankwise.data import sources

ROWS = [
    (f"{text} on day {n}", label)
    for n in range(12)
    for text, label in [("a warm soup", "good"), ("a rude waiter", "bad")]
]


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


def pairs(source):
    return [(text.strip(), label) for text, (label,) in zip(source.texts, source.labels, strict=True)]


def label_studio(text, label):
    result = [{"type": "choices", "from_name": "mood", "to_name": "text", "value": {"choices": [label]}}]
    cancelled = {"was_cancelled": True, "result": []}
    return {"id": 7, "data": {"text": text}, "annotations": [cancelled, {"result": result}], "predictions": []}


def chat(text, label, key="messages", role="role", content="content", names=("user", "assistant")):
    return {key: [{role: name, content: words} for name, words in zip(names, (text, label), strict=True)]}


RECORDS = {
    "Label Studio": label_studio,
    "Label Studio before 1.0": lambda text, label: {"data": {"text": text}, "completions": label_studio(text, label)["annotations"]},
    "Prodigy": lambda text, label: {"text": text, "options": [{"id": "good"}, {"id": "bad"}], "accept": [label], "answer": "accept", "_task_hash": 1},
    "spaCy": lambda text, label: {"text": text, "cats": {"good": float(label == "good"), "bad": float(label == "bad")}},
    "spaCy's pairs": lambda text, label: [text, {"cats": {"good": label == "good", "bad": label == "bad"}}],
    "doccano": lambda text, label: {"text": text, "annotations": [{"label": label, "user": 1}, {"label": label, "user": 2}], "meta": {}},
    "Argilla": lambda text, label: {"text": text, "label": [{"user_id": "a", "value": label, "status": "submitted"}]},
    "Argilla 2": lambda text, label: {"id": "a", "fields": {"text": text}, "metadata": {}, "responses": {"mood": [{"value": "odd", "status": "discarded"}, {"value": label, "status": "submitted"}]}},
    "LightTag": lambda text, label: {"content": text, "classifications": [{"classname": label, "classification_id": "a"}]},
    "a chat": lambda text, label: {"messages": [{"role": "system", "content": "Judge."}, *chat(text, label)["messages"]]},
    "a chat of parts": lambda text, label: chat([{"type": "text", "text": text}], label),
    "ShareGPT": lambda text, label: chat(text, label, "conversations", "from", "value", ("human", "gpt")),
    "contents": lambda text, label: chat([{"text": text}], [{"text": label}], "contents", content="parts", names=("user", "model")),
    "prompt and completion": lambda text, label: {"prompt": chat(text, label)["messages"][:1], "completion": chat(text, label)["messages"][1:]},
    "a list of two": lambda text, label: [text, label],
    "a list of two, the label first": lambda text, label: [label, text],
    "objects in objects": lambda text, label: {"row": {"text": text, "given": {"label": label}}},
}  # fmt: skip


@pytest.mark.parametrize("as_lines", [True, False], ids=["lines", "array"])
@pytest.mark.parametrize("kind", RECORDS)
def test_an_export_is_read_as_texts_and_labels(tmp_path, kind, as_lines):
    records = [RECORDS[kind](*row) for row in ROWS]
    content = "".join(f"{json.dumps(record)}\n" for record in records) if as_lines else json.dumps(records)
    path = tmp_path / ("rows.jsonl" if as_lines else "rows.json")
    path.write_text(content)
    assert pairs(read(path)) == ROWS


@pytest.mark.parametrize(
    ("record", "empty"),
    [
        (label_studio, {"annotations": []}),
        (label_studio, {"annotations": [{"result": None}]}),
        (RECORDS["spaCy"], {"cats": {"good": None, "bad": 0.0}}),
        (RECORDS["Argilla 2"], {"responses": {}}),
    ],
)
def test_tasks_that_nobody_labelled_are_left_out_and_counted(tmp_path, record, empty):
    records = [record(*row) for row in ROWS] + [{**record("later", ""), **empty}] * 3
    (tmp_path / "tasks.json").write_text(json.dumps(records))
    source = read(tmp_path / "tasks.json")
    assert pairs(source) == ROWS
    assert any("3 rows" in note and "left out" in note for note in source.notes)


@pytest.mark.parametrize("labels", [("SPAM",), ("SPAM", "NEWS")], ids=["one label", "two labels"])
def test_what_was_rejected_is_not_the_label(tmp_path, labels):
    records = [
        {"text": text, "label": labels[n % len(labels)], "answer": answer, "_task_hash": n}
        for n, (text, _) in enumerate(ROWS)
        for answer in [("accept", "accept", "reject", "ignore")[n // 2 % 4]]
    ]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    source = read(tmp_path / "rows.jsonl")
    known = [r for r in records if r["answer"] == "accept" or (r["answer"] == "reject" and len(labels) == 1)]
    assert pairs(source) == [(r["text"], r["label"] if r["answer"] == "accept" else f"not {r['label']}") for r in known]


def test_a_class_of_a_taxonomy_is_its_path(tmp_path):
    results = [{"from_name": "mood", "value": {"taxonomy": [["food", label]]}} for _, label in ROWS]
    records = [
        {"data": {"text": text}, "annotations": [{"result": [result]}]}
        for (text, _), result in zip(ROWS, results, strict=True)
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(records))
    assert pairs(read(tmp_path / "tasks.json")) == [(text, f"food/{label}") for text, label in ROWS]


@pytest.mark.parametrize("around", [False, True], ids=["alone", "under a key"])
def test_intents_by_name(tmp_path, around):
    intents = {
        label: {"responses": ["well"], "patterns": [text for text, own in ROWS if own == label]}
        for label in ("good", "bad")
    }
    (tmp_path / "intents.json").write_text(json.dumps({"intents": intents} if around else intents))
    assert sorted(pairs(read(tmp_path / "intents.json"))) == sorted(ROWS)


def test_fasttext_ends_a_label_at_a_tab_too(tmp_path):
    (tmp_path / "rows.txt").write_text("".join(f"__label__{label}\t{text}\n" for text, label in ROWS))
    assert pairs(read(tmp_path / "rows.txt")) == ROWS
