"""Prediction input: row order, ids, constant memory, and mistakes told before anything is predicted."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankwise.data import streams
from rankwise.errors import UserError

ROWS = 2500


@pytest.fixture
def inputs(tmp_path):
    """The same texts, without labels, in every format."""
    texts = [f"text {i}" for i in range(ROWS)]
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts))
    (tmp_path / "a.tsv").write_text("text\tother\n" + "".join(f"{text}\t.\n" for text in texts))
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts))
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts))
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=700)
    return tmp_path, texts


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.txt", "a.parquet"])
def test_rows_keep_their_order_in_batches(inputs, name):
    folder, texts = inputs
    stream = streams.stream(folder / name, ["text"], 1000)
    assert stream.rows == ROWS
    for _ in range(2):
        batches = list(stream)
        assert [len(batch.texts) for batch in batches] == [1000, 1000, 500]
        assert [text for batch in batches for text in batch.texts] == texts
        assert [i for batch in batches for i in batch.ids] == list(range(ROWS))


def test_ids_come_from_the_id_column(tmp_path):
    pq.write_table(pa.table({"Id": [7, 3, 5], "t": ["a", "b", "c"], "u": ["x", None, "z"]}), tmp_path / "a.parquet")
    (batch,) = streams.stream(tmp_path / "a.parquet", ["t", "u"], 10)
    assert (batch.ids, batch.texts) == ([7, 3, 5], ["a x", "b", "c z"])


def test_a_folder_of_text_files_is_read_in_the_order_of_names(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(f"in {name}")
    (batch,) = streams.stream(tmp_path, ["text"], 10)
    assert (batch.ids, batch.texts) == (["a.txt", "b.txt"], ["in a.txt", "in b.txt"])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("text\n", "is empty"),
        ("body\na\n", "no column 'text'"),
        ("text,x\n" + "a,b\n" * 1799 + "a\n", "row 1,800 (line 1,801)"),
    ],
)
def test_mistakes_are_told_before_the_first_batch(tmp_path, content, expected):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError) as caught:
        streams.stream(tmp_path / "a.csv", ["text"], 100)
    assert expected in str(caught.value)


def test_a_row_without_text_is_kept_and_counted(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n7,a\n8,\n9,  \n10,b\n")
    rows = streams.stream(tmp_path / "a.csv", ["text"], 10)
    (batch,) = rows
    assert (batch.ids, batch.texts) == (["7", "8", "9", "10"], ["a", "", "", "b"])
    assert rows.notes == ["2 rows without a text got the answer of an empty one"]
    with pytest.raises(UserError, match=r"row 2 \(line 3\) has no text, one of 2"):
        streams.stream(tmp_path / "a.csv", ["text"], 10, empty="refuse")
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\n{}\n')
    (batch,) = streams.stream(tmp_path / "a.jsonl", ["text"], 10)
    assert batch.texts == ["a", "", ""]


def test_blank_last_lines_are_no_texts(tmp_path):
    (tmp_path / "a.txt").write_text("a\n\nnan\r\n\n \n")
    (batch,) = streams.stream(tmp_path / "a.txt", None, 10)
    assert (batch.ids, batch.texts) == ([0, 1, 2], ["a", "", "nan"])


def test_a_file_of_one_column_needs_no_header(tmp_path):
    lines = [
        f"the text of row {n} and more than a name would ever be long so that it is none of 20 words" for n in range(4)
    ]
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    (batch,) = streams.stream(tmp_path / "a.tsv", ["text"], 10)
    assert batch.texts == lines


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no file or folder"):
        streams.stream(tmp_path / "a.csv", ["text"], 100)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's peak memory")
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_rows(tmp_path, suffix):
    """A file of 60 MB of text is read in less than half of that beyond what 6 MB take."""
    peaks = []
    for rows in (30_000, 300_000):
        path = tmp_path / f"{rows}.{suffix}"
        texts = pa.array([f"{i} " + "word " * 40 for i in range(rows)])
        if suffix == "csv":
            path.write_text("text\n" + "\n".join(texts.to_pylist()))
        else:
            pq.write_table(pa.table({"text": texts}), path, row_group_size=20_000)
        code = f"""
from rankwise.data import streams
rows = sum(len(batch.texts) for batch in streams.stream({str(path)!r}, ["text"], 4096))
assert rows == {rows}
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
        outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peaks.append(int(outcome.stdout) / 1024)
    assert peaks[1] - peaks[0] < 30


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("PhraseId,SentenceId,Phrase", "PhraseId"),
        ("SentenceId,PhraseId,Phrase", None),
        ("review_id,text", "review_id"),
        ("Review ID,text", "Review ID"),
        ("text,tweetID", "tweetID"),
        ("paid,text", None),
        ("valid,text", None),
    ],
)
def test_the_column_that_names_rows_is_known_by_its_end_and_never_repeats(tmp_path, header, expected):
    names = header.split(",")
    path = tmp_path / "new.csv"
    cells = {
        "Phrase": "some words {n}",
        "text": "some words {n}",
        "SentenceId": "{half}" if names[0] != "SentenceId" else "s{n}",
    }
    lines = [",".join(cells.get(name, "r{n}").format(n=n, half=n // 2) for name in names) for n in range(6)]
    path.write_text("\n".join([header, *lines]) + "\n")
    assert streams.stream(path, None, 4).id_column == expected


def test_a_list_of_texts_is_a_row_for_each(tmp_path):
    (tmp_path / "texts.json").write_text('["a warm soup", "a rude waiter"]')
    (batch,) = streams.stream(str(tmp_path / "texts.json"), ["text"], 10)
    assert batch.texts == ["a warm soup", "a rude waiter"]
