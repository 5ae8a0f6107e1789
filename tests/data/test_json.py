"""JSON of every shape gives the same rows, a row at a time."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise import config
from rankwise.data import sources
from rankwise.data.formats.json_walk import Walk
from rankwise.data.streams import stream
from rankwise.errors import UserError

ROWS = [("the soup was warm", "good"), ("cold soup and rude", "bad"), ("fresh bread", "good"), ("an hour of it", "bad")]
OBJECTS = [{"text": text, "label": label} for text, label in ROWS]
BY_NAME = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


def pairs(source):
    return [(text, label) for text, (label,) in zip(source.texts, source.labels, strict=True)]


@pytest.mark.parametrize(
    "document",
    [
        OBJECTS,
        [list(row) for row in ROWS],
        {"version": "1", "data": OBJECTS},
        {"train": OBJECTS, "test": []},
        {"train": [list(row) for row in ROWS], "val": []},
        {"set": {"rows": OBJECTS}},
        {"train": BY_NAME, "test": {"text": [], "label": []}},
        BY_NAME,
        {name: {str(n): cell for n, cell in enumerate(cells)} for name, cells in BY_NAME.items()},
        {f"row{n}": row for n, row in enumerate(OBJECTS)},
        {"columns": ["text", "label"], "index": [0, 1, 2, 3], "data": [list(row) for row in ROWS]},
        {"schema": {"fields": []}, "data": OBJECTS},
    ],
    ids=["objects", "pairs", "data", "splits", "pairs by split", "nested", "columns by split", "columns", "pandas columns", "by key", "pandas split", "pandas table"],
)  # fmt: skip
@pytest.mark.parametrize("indent", [None, 1])
def test_every_shape_of_a_document_gives_the_same_rows(tmp_path, document, indent):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(document, indent=indent))
    assert pairs(read(path)) == ROWS


def test_texts_by_label_and_objects_one_after_the_other(tmp_path):
    by_label = tmp_path / "labels.json"
    by_label.write_text(json.dumps({name: [t for t, label in ROWS if label == name] for name in ("good", "bad")}))
    assert sorted(pairs(read(by_label))) == sorted(ROWS)
    path = tmp_path / "rows.json"
    path.write_text("\n".join(json.dumps(row, indent=2) for row in OBJECTS))
    assert pairs(read(path)) == ROWS


def test_objects_inside_of_rows_are_columns_and_words_in_a_list_a_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"data": {"text": text.split()}, "label": label}) + "\n" for text, label in ROWS)
    )
    source = read(path)
    assert pairs(source) == ROWS
    assert "text is 'data.text'" in source.line
    path.write_text(json.dumps({"text": ["one text", "another"], "label": "a"}) + "\n" + json.dumps(OBJECTS[0]))
    with pytest.raises(UserError, match="several texts in its text column"):
        read(path)


INTENTS = {
    "greet": (["Hi there", "Hello", "Good day to you"], ["Welcome back", "How are you"]),
    "bye": (["See you later", "Bye", "I am off now"], ["Have a nice day"]),
}
UTTERED = [(text, tag) for tag, (texts, _) in INTENTS.items() for text in texts]


def listed(tag, texts, answers=None):
    return [{tag: name, texts: said, **({answers: own} if answers else {})} for name, (said, own) in INTENTS.items()]


@pytest.mark.parametrize(
    "document",
    [
        {"intents": [{**row, "context": [""]} for row in listed("tag", "patterns", "responses")]},
        {"version": "1", "nlu": {"examples_by_intent": listed("intent", "examples")}},
        listed("name", "utterances"),
        listed("category", "what people say"),
        {
            "rasa_nlu_data": {
                "common_examples": [{"text": text, "intent": tag, "entities": []} for text, tag in UTTERED],
                "regex_features": [{"name": "zip", "pattern": "[0-9]{5}"}],
            }
        },
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_label_with_a_list_of_texts_is_a_row_for_each(tmp_path, document, indent):
    (tmp_path / "bot.json").write_text(json.dumps(document, indent=indent))
    source = read(tmp_path / "bot.json")
    assert pairs(source) == UTTERED
    assert ", 6 rows" in source.line
    if isinstance(document, list):
        (tmp_path / "bot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in document))
        assert pairs(read(tmp_path / "bot.jsonl")) == UTTERED


def test_which_of_two_lists_holds_the_texts_is_a_question(tmp_path):
    (tmp_path / "bot.json").write_text(json.dumps(listed("a", "b", "c")))
    with pytest.raises(UserError, match=r"which list holds the texts, 'b' or 'c'\? Name it with data\.text=b"):
        read(tmp_path / "bot.json")
    assert pairs(read(tmp_path / "bot.json", text="b", label="a")) == UTTERED
    assert read(tmp_path / "bot.json", text="c", label="a").texts[0] == "Welcome back"


def test_lists_of_labels_beside_a_text_make_no_rows(tmp_path):
    rows = [{"text": f"text {n}", "labels": ["a b", "c d"] if n % 2 else ["e f"]} for n in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    source = read(tmp_path / "rows.json", multi_label=True)
    assert source.labels[:2] == [("e f",), ("a b", "c d")]
    one = [{"text": row["text"], "label": [row["labels"][0]]} for row in rows]
    (tmp_path / "one.json").write_text(json.dumps(one))
    assert read(tmp_path / "one.json").labels[:2] == [("e f",), ("a b",)]


def test_a_part_may_lie_below_an_object_around_all(tmp_path):
    inner = {"first": [{"text": "a b", "label": "x"}] * 2, "second": [{"text": "c d", "label": "y"}] * 2}
    (tmp_path / "rows.json").write_text(json.dumps({"all": inner}))
    assert read(f"{tmp_path / 'rows.json'}[second]").texts == ["c d"] * 2
    with pytest.raises(UserError, match="no split 'secnd', did you mean 'second'"):
        read(f"{tmp_path / 'rows.json'}[secnd]")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(OBJECTS)[:-20], "is not JSON"),
        (json.dumps(OBJECTS) + "x", "is not JSON"),
        (json.dumps(OBJECTS)[:-1] + ",]", "is not JSON"),
        (json.dumps(OBJECTS)[:-1], "where it ends"),
        ('{"text": ["a b", "c d"], "label": ["x"]}', "unequal numbers"),
        ("[[[[]]]]" * 3, "row"),
        ("[" * 100_000, "nested too deeply|is not JSON"),
        ("[]", "is empty"),
        ("{}", "no split|is empty|which column"),
        ("3", "expected rows"),
    ],
)
def test_a_document_that_is_no_table_is_refused_in_one_sentence(tmp_path, content, said):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_long_document_of_one_line_needs_no_more_memory_than_a_short_one(tmp_path):
    """Twenty megabytes in one line: what is held is a window of it."""

    def peak(rows):
        path = tmp_path / f"{rows}.json"
        with path.open("w") as file:
            file.write("[")
            for n in range(rows):
                file.write((", " if n else "") + json.dumps({"id": n, "text": f"text {n} " + "word " * 80}))
            file.write("]")
        tracemalloc.start()
        count = sum(len(batch.texts) for batch in stream(path, None, 256))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == rows
        return most

    assert peak(50_000) < 1.2 * peak(20_000)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class _Slow:
    """A text that gives few characters at a time, so that a window cuts it anywhere."""

    def __init__(self, content, step):
        self.content, self.step, self.place = content, step, 0

    def read(self, size):
        piece = self.content[self.place : self.place + min(size, self.step)]
        self.place += len(piece)
        return piece


@given(values=st.lists(_VALUES), step=st.integers(1, 40), indent=st.sampled_from([None, 2]))
def test_a_walk_gives_what_the_standard_library_reads(values, step, indent):
    content = json.dumps(values, indent=indent)
    walk = Walk(_Slow(content, step), "rows")
    found = list(walk.rows())
    walk.end()
    assert repr(found) == repr(json.loads(content))


_SHAPES = {
    "objects": lambda rows: [{"text": text, "label": label} for text, label in rows],
    "pairs": lambda rows: [list(row) for row in rows],
    "columns": lambda rows: {"text": [text for text, _ in rows], "label": [label for _, label in rows]},
    "by key": lambda rows: {f"k{n}": {"text": text, "label": label} for n, (text, label) in enumerate(rows)},
    "by split": lambda rows: {"train": [list(row) for row in rows], "test": []},
}


@given(
    rows=st.lists(
        st.tuples(st.text(min_size=1).filter(str.strip), st.sampled_from(["good", "bad"])), min_size=4, max_size=12
    ),
    shape=st.sampled_from(sorted(_SHAPES)),
    ascii_only=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
def test_rows_written_in_any_shape_are_rows_read(tmp_path, rows, shape, ascii_only, encoding):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(_SHAPES[shape](rows), ensure_ascii=ascii_only), encoding=encoding)
    source = read(path, text="text", label="label")
    assert [(text, label) for text, (label,) in zip(source.texts, source.labels, strict=True)] == [
        (text.replace("\x1f", " "), label) for text, label in rows
    ]
