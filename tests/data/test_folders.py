"""Folders as people unpack and clone them: what lies around the data, beside them and between the classes."""

from __future__ import annotations

import pytest

from rankwise import config
from rankwise.data import sources
from rankwise.data.streams import stream
from rankwise.errors import UserError

GOOD = [f"a warm soup on day {n}" for n in range(6)]
BAD = [f"a rude waiter on day {n}" for n in range(6)]
ROWS = [*((text, "good") for text in GOOD), *((text, "bad") for text in BAD)]
TABLE = "text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS)


def read(path, role="train", **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, role)


def pairs(source):
    return sorted((text.strip(), label) for text, (label,) in zip(source.texts, source.labels, strict=True))


def classes(folder, texts=ROWS):
    return {f"{folder}/{label}/{number}.txt": text for number, (text, label) in enumerate(texts)}


def lay(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


TEXTS = "".join(f"{text}\n" for text, _ in ROWS)
LABELS = "".join(f"{label}\n" for _, label in ROWS)


@pytest.mark.parametrize(
    "files",
    [
        {"news/README.TXT": "about the data", **classes("news")},
        {"README.md": "---", "data/train.csv": TABLE, "data/test.csv": "text,label\nno,good\n"},
        {"train.csv": TABLE, "models/first.bin": "0", "notes/todo.txt": "tidy up"},
        {**classes("news-bydate-train"), **classes("news-bydate-test", [("a", "good"), ("b", "bad")])},
        {**classes("train_set"), **classes("test_set", [("a", "good"), ("b", "bad")])},
        {"train/seq.in": TEXTS, "train/label": LABELS, "train/seq.out": TEXTS, "test/seq.in": "a\n", "test/label": "bad\n"},
        {"X_train.txt": TEXTS, "y_train.txt": LABELS, "X_test.txt": "a\n", "y_test.txt": "bad\n"},
        {"en_train.csv": TABLE, "en_test.csv": "text,label\nno,good\n", "notes.txt": "so"},
        {"train_1.csv": TABLE[: TABLE.index("a rude")], "train_2.csv": f"text,label\n{TABLE[TABLE.index('a rude') :]}", "test.csv": TABLE},
        {"part-00000-a.csv": TABLE[: TABLE.index("a rude")], "part-00001-a.csv": f"text,label\n{TABLE[TABLE.index('a rude') :]}"},
    ],
    ids=["papers beside the folder of classes", "a repository", "folders beside a table", "20 Newsgroups", "a role that comes first", "ATIS", "X and y", "a role in a name", "shards", "Spark"],
)  # fmt: skip
def test_what_is_meant_lies_in_folders_as_they_come(tmp_path, files):
    assert pairs(read(lay(tmp_path, files))) == sorted(ROWS)


def test_the_test_rows_of_20_newsgroups_are_in_the_other_folder(tmp_path):
    folder = lay(tmp_path, {**classes("news-train"), **classes("news-test", [("a", "good"), ("b", "bad")])})
    assert pairs(read(folder, "test")) == [("a", "good"), ("b", "bad")]


def test_classes_that_are_called_by_one_role_are_classes(tmp_path):
    folder = lay(tmp_path, {"crash-test/1.txt": "a wall", "drop-test/1.txt": "a floor"})
    assert pairs(read(folder, "test")) == [("a floor", "drop-test"), ("a wall", "crash-test")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"good/1.txt": "a", "bad/1.txt": "b", "bad/more/2.txt": "c"}, "bad holds the folder more"),
        ({"good/1.csv": TABLE, "bad/1.csv": TABLE}, "1.csv is a table, as are all files"),
    ],
)
def test_files_that_would_be_lost_or_are_no_texts_are_told(tmp_path, files, said):
    with pytest.raises(UserError, match=said):
        read(lay(tmp_path, files))


def test_texts_without_a_label_are_told(tmp_path):
    folder = lay(tmp_path, {**classes("train"), "train/unsup/1.txt": "so so"})
    assert any("data.exclude=[unsup]" in note for note in read(folder).notes)
    assert not any("unsup" in note for note in read(folder, exclude=["unsup"]).notes)


@pytest.mark.parametrize(("texts", "said"), [("\n\n", "row 1 is in one alone"), ("a soup\nbread\n", "row 2 is")])
def test_texts_and_labels_of_unequal_numbers_are_told(tmp_path, texts, said):
    folder = lay(tmp_path, {"train_text.txt": texts, "train_labels.txt": "good\n"})
    with pytest.raises(UserError, match=f"do not have the same number of lines: {said}"):
        read(folder / "train_text.txt")


def test_a_pattern_may_be_a_whole_path(tmp_path):
    lay(
        tmp_path,
        {"alpha.csv": TABLE[: TABLE.index("a rude")], "beta.csv": f"text,label\n{TABLE[TABLE.index('a rude') :]}"},
    )
    assert pairs(read(tmp_path / "*.csv")) == sorted(ROWS)


def test_papers_are_no_texts_to_predict(tmp_path):
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(UserError, match="is empty"):
        stream(str(tmp_path), ["text"], 10)
    (tmp_path / "1.md").write_text("a warm soup")
    assert [batch.texts for batch in stream(str(tmp_path), ["text"], 10)] == [["a warm soup"]]
