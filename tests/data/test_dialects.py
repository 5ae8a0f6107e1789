"""Delimited files and lines as people have them beyond plain CSV: rare delimiters, titles, row names, quotes behind spaces."""

from __future__ import annotations

import csv
import io
import json

import pytest

from rankwise import config
from rankwise.data import sources
from rankwise.errors import UserError

ROWS = [(f"{text} number {n}", label) for n in range(10) for text, label in [
    ("a fine, warm soup", "good"), ("cold; and rude", "bad"), ("it was so so", "fair"), ("never again", "bad")
]]  # fmt: skip
HEADER = ("text", "label")


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


def pairs(source):
    return [(text.strip(), label) for text, (label,) in zip(source.texts, source.labels, strict=True)]


def table(rows=ROWS, delimiter=",", header=HEADER, quoting=csv.QUOTE_MINIMAL):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows([header, *rows] if header else rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", ["^", "~", "\x01", "§"])
def test_a_rare_delimiter_is_found_where_no_common_one_splits_the_rows(write, delimiter):
    rows = [(text.replace(",", "").replace(";", ""), label) for text, label in ROWS]
    source = read(write("rows.csv", table(rows, delimiter)))
    assert pairs(source) == rows
    assert repr(delimiter) in source.line


def test_lines_that_end_in_a_sign_and_a_label(write):
    source = read(write("Sentences.txt", "".join(f"{text} é@{label}\n" for text, label in ROWS), "latin-1"))
    assert pairs(source) == [(f"{text} é", label) for text, label in ROWS]


@pytest.mark.parametrize(
    ("top", "lines"),
    [("Survey of 2024,\r\n", 1), ("# made by hand\n# in 2024, twice\n", 2), ("Title\n\nas of May\n", 3)],
)
def test_lines_above_the_header_are_left_out_and_said(write, top, lines):
    source = read(write("rows.csv", top + table()))
    assert pairs(source) == ROWS
    assert f"{lines} line{'s' if lines > 1 else ''} above the header left out" in source.line
    with pytest.raises(UserError, match=rf"row 41 \(line {lines + 42}\) has 3 cells"):
        read(write("rows.csv", top + table() + "one, too many,good\n"))


def test_a_title_above_the_header_of_a_sheet(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Survey of 2024",), (), HEADER, *ROWS]:
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    source = read(tmp_path / "rows.xlsx")
    assert pairs(source) == ROWS
    assert "1 row above the header left out" in source.line


def test_names_of_rows_as_r_writes_them(write):
    lines = ['"text","label"', *(f'"{n}","{text}","{label}"' for n, (text, label) in enumerate(ROWS, 1))]
    source = read(write("rows.csv", "\n".join(lines) + "\n"))
    assert pairs(source) == ROWS
    assert "names of the rows first" in source.line


def test_quotes_behind_a_space_enclose_cells(write):
    source = read(write("rows.csv", "text, label\n" + "".join(f'"{text}", "{label}"\n' for text, label in ROWS)))
    assert pairs(source) == ROWS


def test_a_tsv_whose_quotes_were_doubled_by_a_program_is_quoted(write):
    rows = [(f'say "hi"\tyou\n{text}', label) for text, label in ROWS]
    source = read(write("rows.tsv", table(rows, "\t")))
    assert pairs(source) == rows
    assert not source.notes


@pytest.mark.parametrize(
    "how", ["{label}: {text}", "{label} {text}", "__label__{label} {text}", "{text} __label__{label}"]
)
def test_labels_before_or_behind_a_text(write, how):
    assert pairs(read(write("rows.txt", "".join(how.format(text=t, label=x) + "\n" for t, x in ROWS)))) == ROWS


def test_a_blank_line_between_labels_and_texts_is_no_row(write):
    lines = [f"{label} {text}\n" for text, label in 30 * ROWS]  # more than what a kind is told by
    with pytest.raises(UserError, match=r"row 1,201 \(line 1,202\) has no text"):
        read(write("rows.txt", "".join(["\n", *lines, "good \n"])))


def test_words_that_sentences_begin_with_are_no_labels(write):
    starts = [
        "I",
        "The",
        "It",
        "This",
        "We",
        "My",
        "There",
        "When",
        "After",
        "So",
        "A",
        "As",
        "At",
        "But",
        "He",
        "If",
        "In",
        "Now",
        "One",
        "Our",
        "She",
        "They",
        "To",
        "What",
        "You",
    ]
    lines = [f"{starts[n % len(starts)] if n % 9 else f'Seldom{n}'} went to place {n}" for n in range(1000)]
    with pytest.raises(UserError, match="holds texts without labels"):
        read(write("rows.txt", "\n".join(lines)))


def test_a_markdown_table_is_called_so(write):
    with pytest.raises(UserError, match="Markdown"):
        read(write("rows.md", "| text | label |\n|---|---|\n| a b | x |\n| c d | y |\n"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.db", b"SQLite format 3\0" + bytes(100), "SQLite"),
        ("a.csv", b"<!DOCTYPE html>\n<html><body>not found</body></html>", "HTML page"),
        ("a.xml", b"<?xml version='1.0'?>\n<rows/>", "XML"),
        ("a.csv", b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(90), "7z"),
        ("a.csv", b"\x89PNG\r\n\x1a\n" + bytes(90), "picture"),
        ("a.npy", b"\x93NUMPY\x01\0", "numpy"),
        ("a.orc", b"ORC" + bytes(90), "ORC"),
    ],
)
def test_a_file_of_another_trade_is_called_by_its_name(write, name, content, said):
    with pytest.raises(UserError, match=said):
        read(write(name, content))


def test_several_columns_of_bits_are_offered_as_labels(write):
    rows = [(n, text, n % 2, int(n % 3 == 0), int(n % 5 == 0)) for n, (text, _) in enumerate(ROWS)]
    path = write("rows.csv", table(rows, header=("id", "comment_text", "toxic", "obscene", "threat")))
    with pytest.raises(UserError) as caught:
        read(path)
    words = str(caught.value).partition("data.label=[")[2].partition("]")[0].split(",")
    assert "data.multi_label=true" in str(caught.value)
    assert read(path, label=words, multi_label=True).labels[0] == ("obscene", "threat")


@pytest.mark.parametrize(
    "filler", ["https://example.com/a/long/way/to/nothing/{n}", "2024-01-01 10:00:{n:02d}", "{n:040x}"]
)
def test_links_dates_and_codes_are_not_the_text_beside_words(write, filler):
    rows = [(filler.format(n=n), text, label) for n, (text, label) in enumerate(ROWS)]
    source = read(write("rows.csv", table(rows, header=("first", "words", "mood"))))
    assert "text is 'words'" in source.line


@pytest.mark.parametrize("cell", ["{{'{0}', 'x'}}", "('{0}', 'x')", "['{0}', 'x']"])
def test_labels_as_python_prints_sets_tuples_and_lists(write, cell):
    rows = [(text, cell.format(label)) for text, label in ROWS]
    source = read(write("rows.csv", table(rows)), multi_label=True)
    assert [set(labels) for labels in source.labels] == [{label, "x"} for _, label in ROWS]


# --- single quotes ------------------------------------------------------------------------------------


def single(cell, inside="''"):
    return "'" + cell.replace("'", inside) + "'"


APOSTROPHES = [(f"{text}, and it's done", label) for text, label in ROWS]


@pytest.mark.parametrize("inside", ["''", r"\'"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [HEADER, None])
def test_single_quotes_enclose_cells(tmp_path, inside, delimiter, header):
    rows = [(text + (",\nthen left" if n % 3 == 0 else ""), label) for n, (text, label) in enumerate(APOSTROPHES)]
    lines = [",".join(header).replace(",", delimiter)] if header else []
    lines += [delimiter.join(single(cell, inside) for cell in row) for row in rows]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    source = read(tmp_path / "rows.csv")
    assert pairs(source) == rows
    assert ", single quotes" in source.line


def test_single_quotes_only_around_what_needs_them(tmp_path):
    lines = [f"{single(text) if ',' in text else text},{label}" for text, label in ROWS]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines]))
    assert pairs(read(tmp_path / "rows.csv")) == ROWS


def test_apostrophes_are_characters(tmp_path):
    rows = [(f"'tis {text}, isn't it 'so'", label) for text, label in ROWS]
    (tmp_path / "rows.csv").write_text(table(rows))
    assert pairs(read(tmp_path / "rows.csv")) == rows
    rows = [(text.replace(",", "").replace(";", "") + " or 'so'", label) for text, label in ROWS]
    (tmp_path / "bare.csv").write_text(table(rows))
    assert pairs(read(tmp_path / "bare.csv")) == rows


def test_single_quotes_that_do_not_close_are_told(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(f"'{text}','{label}'" for text, label in APOSTROPHES))
    with pytest.raises(UserError, match=r"row from line 1 cannot be read: .* double the quotes inside it"):
        read(path)
    path.write_text("\n".join(f"'{label}';'{text}'" for text, label in [*ROWS[:6], *APOSTROPHES[6:7], *ROWS[7:]]))
    with pytest.raises(UserError, match=r"line 7 .*data\.quotes=false"):
        read(path)


def test_a_quote_that_is_neither_doubled_nor_escaped_is_not_lost(tmp_path):
    rows = [(f'he said \\"{text}\\" twice', label) for text, label in ROWS]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(f'"{text}",{label}' for text, label in rows))
    assert read(path).texts[0] == f'he said "{ROWS[0][0]}" twice'
    path.write_text("\n".join(f'"{text}",{label}' for text, label in [*rows, ('so "it" is', "bad")]))
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


# --- delimiters of several characters -----------------------------------------------------------------

SIGNS = ["::", ":::", " => ", " -> ", "###", "$$", "@@", "~|~", " +++$+++ ", "<sep>", "[SEP]"]


@pytest.mark.parametrize("mark", SIGNS)
@pytest.mark.parametrize("name", ["rows.txt", "rows.csv", "rows.dat"])
def test_several_signs_between_text_and_label(tmp_path, mark, name):
    rows = [(f"{text}, really", label) for text, label in ROWS]  # a comma in every text splits them alike too
    (tmp_path / name).write_text("\n".join(f"{label}{mark}{text}" for text, label in rows))
    source = read(tmp_path / name)
    assert pairs(source) == rows
    assert repr(mark) in source.line
    (tmp_path / f"named-{name}").write_text("\n".join(f"{text}{mark}{label}" for text, label in [HEADER, *rows]))
    assert pairs(read(tmp_path / f"named-{name}")) == rows


@pytest.mark.parametrize("mark", ["||", "|||", "\t\t"])
def test_a_delimiter_that_stands_twice_gives_nameless_columns(tmp_path, mark):
    (tmp_path / "rows.txt").write_text("\n".join(f"{label}{mark}{text}, so" for text, label in ROWS))
    assert pairs(read(tmp_path / "rows.txt")) == [(f"{text}, so", label) for text, label in ROWS]


def test_quotes_enclose_cells_that_hold_such_a_delimiter(tmp_path):
    (tmp_path / "rows.csv").write_text("\n".join(f'"{label}"::"{text} :: so"' for text, label in ROWS))
    assert pairs(read(tmp_path / "rows.csv")) == [(f"{text} :: so", label) for text, label in ROWS]


def test_a_row_that_such_a_delimiter_splits_otherwise_is_told_and_any_can_be_named(tmp_path):
    lines = [f"{label}::{text}" for text, label in ROWS]
    (tmp_path / "rows.txt").write_text("\n".join([*lines[:30], f"{lines[30]}::more", *lines[31:]]))
    with pytest.raises(UserError, match=r"row 31 \(line 31\) has 3 cells, expected 2"):
        read(tmp_path / "rows.txt")
    (tmp_path / "odd.csv").write_text("\n".join(f"{label} vs. {text}" for text, label in ROWS))
    assert pairs(read(tmp_path / "odd.csv", delimiter=" vs. ")) == ROWS


# --- what is none of these ---------------------------------------------------------------------------


@pytest.mark.parametrize("quotes", ["``", "“”", ("", "")])
def test_a_comma_that_nobody_quoted_makes_no_names_of_rows(tmp_path, quotes):
    left, right = quotes
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"{left}warm {n}, so{right},good\n" for n in range(9)))
    with pytest.raises(UserError, match=r"row 1 \(line 2\) has 3 cells, expected 2"):
        read(tmp_path / "rows.csv")


def test_marks_of_lists_are_no_labels_and_python_is_no_table(tmp_path):
    (tmp_path / "nlu.md").write_text("## intent:a\n" + "".join(f"- text {n}\n" for n in range(40)))
    with pytest.raises(UserError, match="which column is the"):
        read(tmp_path / "nlu.md")
    rows = [{"text": text, "label": label} for text, label in ROWS]
    (tmp_path / "rows.txt").write_text("".join(f"{row}\n" for row in rows))
    with pytest.raises(UserError, match="is not JSON"):
        read(tmp_path / "rows.txt")
    (tmp_path / "json.txt").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert pairs(read(tmp_path / "json.txt")) == ROWS


# --- spreadsheets -------------------------------------------------------------------------------------


def test_merged_cells_hold_their_value_in_every_row_and_sheets_are_known_by_their_role(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Train"
    for number, row in enumerate([(None, None, None), (None, "label", "text"), *[(None, x, t) for t, x in ROWS]]):
        for column, cell in enumerate(row):
            sheet.cell(number + 1, column + 1).value = cell
    for top in range(3, 43, 4):
        sheet.merge_cells(start_row=top, end_row=top + 1, start_column=2, end_column=2)
    for title in ("test", "Notes"):
        book.create_sheet(title).append(["text", "label"] if title == "test" else ["by hand"])
    book["test"].append(["another", "good"])
    book.save(tmp_path / "rows.xlsx")
    source = read(tmp_path / "rows.xlsx")
    expected = [(text, "good" if label == "bad" and "cold" in text else label) for text, label in ROWS]
    assert pairs(source) == expected
    assert "sheet 'Train', 40 rows" in source.line
    test = sources.read(str(tmp_path / "rows.xlsx"), config.from_dict({"data": {}}).data, "test")
    assert test.texts == ["another"]


@pytest.mark.parametrize(
    ("names", "types", "roles"),
    [
        (("Day", "Speaker", "Notes"), ("time", "d", "string"), ("", "class", "meta include=True")),
        (("Content", "Speaker", "Notes"), ("string", "ann bob", "s"), ("ignore", "c", "include=True title=True")),
        (("Day", "Speaker", "Text"), ("", "discrete", "string"), ("", "class", "")),
        (("Day", "Speaker", "Text"), ("", "Discrete", "String"), ("", "Class", "")),
    ],
)
def test_orange_declares_columns_in_two_rows_below_the_names(write, names, types, roles):
    rows = [
        (f"2024-03-{n:02}", ("ann", "bob")[n % 2], f"the soup was {'fine' if n % 2 else 'cold'} on day {n}")
        for n in range(1, 29)
    ]
    lines = ["\t".join(row) for row in [names, types, roles, ("", "", ""), *rows]]
    source = read(write("talk.tab", "\n".join(lines) + "\n"))
    assert pairs(source) == [(text, who) for _, who, text in rows]
    assert "label is 'Speaker' (as its header declares)" in source.line
    assert any("1 row of train without a text left out" in note for note in source.notes)


def test_rows_that_look_like_types_in_part_are_rows(write):
    source = read(write("rows.tsv", table([("string", "d"), ("fine soup", "class"), *ROWS], "\t")))
    assert pairs(source)[:2] == [("string", "d"), ("fine soup", "class")]


def test_a_row_with_a_label_and_no_text_is_still_told(write):
    with pytest.raises(UserError, match="row 41 .* has no text"):
        read(write("rows.tsv", table([*ROWS, ("", "good")], "\t")))


def test_a_comma_inside_of_numbers_is_no_delimiter(write):
    lines = "".join(f"a warm soup on day {n};{n % 7},{n % 10};{'ab'[n % 2]}\n" for n in range(40))
    source = read(write("rows.csv", lines))
    assert "';'" in source.line
    assert {label for (label,) in source.labels} == {"a", "b"}


def test_a_row_of_too_few_cells_is_told_what_to_do(write):
    with pytest.raises(UserError, match="has 1 cells, expected 2 as in the header: fill in what is missing"):
        read(write("rows.csv", table(ROWS) + "alone\n"))
