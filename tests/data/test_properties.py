"""Tables drawn at random, in any dialect and damaged anywhere: rows written are rows read."""

import bz2
import contextlib
import csv
import gzip
import lzma
import random

from hypothesis import given
from hypothesis import strategies as st

from data.reading import ROWS, complaint, pairs, read, table
from rankwise.data import labels
from rankwise.errors import UserError
from rankwise.scoring.writers import joined_labels

_CELLS = st.text(
    st.sampled_from(list("abcdefgh ") * 2 + list(",;|\t\"'\n") + ["\u00e9", "\u00fc", "\u2019"]),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip() == text and text.strip("\n\t ") != "")
_TABLES = st.lists(st.tuples(_CELLS, st.sampled_from(["good", "bad"])), min_size=6, max_size=30)


@given(
    rows=_TABLES,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    encoding=st.sampled_from(
        ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "mac_roman"]
    ),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    pack=st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
)
def test_rows_written_are_rows_read(tmp_path, rows, delimiter, encoding, quoting, end, pack):
    path = tmp_path / "rows.csv"
    path.write_bytes(pack(table(rows, delimiter, quoting=quoting, end=end).encode(encoding)))
    said = {"encoding": encoding} if encoding in ("cp1252", "mac_roman") else {}
    try:
        source = read(path, **said)
    except UserError as error:  # a question, which its key answers
        said |= {"delimiter": delimiter} if "data.delimiter" in str(error) else {"quotes": True}
        source = read(path, **said)
    if "quotes are characters" in source.line:  # between tabs, and said; a file of no other evidence
        source = read(path, quotes=True, **said)
    assert pairs(source) == rows


@given(
    rows=_TABLES,
    delimiter=st.sampled_from([",", ";", "\t"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    place=st.randoms(use_true_random=False),
    damage=st.sampled_from(['"', "", ",", "\t", "\n", '""']),
)
def test_a_damaged_cell_never_loses_another_row_silently(tmp_path, rows, delimiter, quoting, place, damage):
    """One character of one row is replaced: the file is refused, or every other row is still there, or a note says so."""
    lines = [table([row], delimiter, header=None, quoting=quoting, end="\n") for row in rows]
    number = place.randrange(len(lines))
    at = place.randrange(len(lines[number]) - 1)
    lines[number] = lines[number][:at] + damage + lines[number][at + 1 :]
    path = tmp_path / "rows.csv"
    path.write_text(table([], delimiter, end="\n", quoting=quoting) + "".join(lines), encoding="utf-8", newline="")
    try:
        source = read(path, empty="drop")
    except UserError:
        return
    kept = pairs(source)
    others = [row for n, row in enumerate(rows) if n != number]
    lost = [row for row in others if row not in kept]
    assert not lost or source.notes, (lost, kept)


def test_a_quote_doubled_by_accident_is_told_where_the_rows_it_joins_are_as_wide(write):
    rows = [(";", "good"), (";;;;;;;;;;;;", "good"), ("a", "good"), (";\na", "good"), (";", "good")]
    text = table(rows, ";", end="\n", quoting=csv.QUOTE_MINIMAL).replace('";;;;;;;;;;;;";', '";;;;;;;;;;;;""')
    assert "line 6 has a quote that closes nothing" in " ".join(read(write("rows.csv", text), empty="drop").notes)
    whole = table([*rows, ('5"; or 7"', "good")], ";", end="\n", quoting=csv.QUOTE_MINIMAL)
    assert not read(write("whole.csv", whole), empty="drop").notes


_ACCENTED = st.text(st.sampled_from("abc éüßñ—’чк日本한"), min_size=3, max_size=20).filter(
    lambda text: text.strip() == text
)


@given(
    rows=st.lists(st.tuples(_ACCENTED, st.sampled_from(["good", "bad"])), min_size=6, max_size=20),
    place=st.randoms(use_true_random=False),
    byte=st.integers(128, 255),
)
def test_a_damaged_byte_never_changes_another_row_silently(tmp_path, rows, place, byte):
    """One byte beyond ASCII takes another's place: refused, or every other row as it was, or a note that says so."""
    lines = [table([row], header=None, end="\n").encode() for row in rows]
    number = place.randrange(len(lines))
    damaged = bytearray(lines[number])
    damaged[place.randrange(len(damaged) - 6)] = byte  # not in the label
    lines[number] = bytes(damaged)
    path = tmp_path / "rows.csv"
    path.write_bytes(table([], end="\n").encode() + b"".join(lines))
    try:
        source = read(path)
    except UserError:
        return
    lost = [row for n, row in enumerate(rows) if n != number and row not in pairs(source)]
    assert not lost or source.notes, (lost, source.line)


def test_a_row_that_is_an_apostrophe_joins_no_other(write):
    rows = [("';", "good"), ("'", "bad"), ("'", "good"), ("';'", "good"), ("'", "bad"), ("a", "good")]
    path = write("rows.csv", table(rows, ";", quoting=csv.QUOTE_MINIMAL, end="\n"))
    assert "expected 2 as in the header" in complaint(path)
    assert pairs(read(path, quotes=True)) == rows
    apart = [("'a", "good"), ("b'", "bad"), ("'", "good"), ("c", "bad"), ("'", "good"), ("d'", "bad")]
    assert pairs(read(write("other.csv", table(apart, ",", quoting=csv.QUOTE_MINIMAL, end="\n")))) == apart


def test_a_quote_too_many_is_no_row_that_ends_in_an_empty_cell(write):
    content = 'text,label\n"one","good"\n"two","bad""\n",\n;","good"\n'
    assert "row 2 (line 3) has 3 cells, expected 2" in complaint(write("rows.csv", content))


def test_any_piece_of_a_file_is_read_or_refused(tmp_path):
    chance = random.Random(0)
    whole = table(ROWS * 5).encode() + bytes(range(256)) + "é".encode("cp1252") * 3
    for n in range(200):
        path = (
            tmp_path / f"{n}.{chance.choice(['csv', 'json', 'jsonl', 'txt', 'parquet', 'xlsx', 'zip', 'gz', 'arrow'])}"
        )
        start = chance.randrange(len(whole))
        path.write_bytes(whole[start : start + chance.randrange(1, 300)])
        with contextlib.suppress(UserError):
            read(path)


@given(
    names=st.lists(
        st.text(st.sampled_from(list('ab&|,;#["]\\ ')), min_size=1, max_size=6).filter(
            lambda name: name.strip() == name
        ),
        max_size=4,
        unique=True,
    ),
    separator=st.sampled_from([",", ";", "|", "#"]),
)
def test_labels_written_in_one_cell_are_the_labels_read(names, separator):
    assert labels.names_of(joined_labels(names, separator), None, separator) == tuple(names)
