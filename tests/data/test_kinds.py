"""The files that people really have: each kind is read as it is meant and said in one line, or refused in one sentence."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import zipfile

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from data.reading import ROWS, complaint, keys, pairs, read, table
from rankwise import data
from rankwise.data import sources
from rankwise.errors import UserError

# --- dialects and encodings ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("delimiter", "quoting", "said"),
    [(",", csv.QUOTE_MINIMAL, "','"), (";", csv.QUOTE_ALL, "';'"), ("\t", csv.QUOTE_ALL, "tabs"), ("|", 0, "'|'")],
)
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.txt", "rows"])
def test_a_delimiter_is_found_whatever_the_ending(write, delimiter, quoting, said, name):
    source = read(write(name, table(delimiter=delimiter, quoting=quoting)))
    assert pairs(source) == ROWS
    assert f"UTF-8, {said}, 4 rows; text is 'text'" in source.line


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("cp1252", "Windows-1252")],
)
def test_an_encoding_is_found_and_said(write, encoding, said):
    rows = [*ROWS, ("caf\u00e9 for \u00a3500 \u2019t", "good")] * 3
    source = read(write("rows.csv", table(rows), encoding))
    assert pairs(source) == rows
    assert f": {said}, ','" in source.line


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "\u041e\u0442\u043b\u0438\u0447\u043d\u044b\u0439 \u0442\u043e\u0432\u0430\u0440, \u0440\u0435\u043a\u043e\u043c\u0435\u043d\u0434\u0443\u044e \u0432\u0441\u0435\u043c"),
        ("cp932", "\u3053\u308c\u306f\u3068\u3066\u3082\u826f\u3044\u6620\u753b\u3067\u3057\u305f\u3002\u6700\u60aa\u306e\u30b5\u30fc\u30d3\u30b9\u3067\u3059"),
        ("iso2022_jp", "\u3053\u308c\u306f\u3068\u3066\u3082\u826f\u3044\u6620\u753b\u3067\u3057\u305f"),
        ("gb18030", "\u8fd9\u90e8\u7535\u5f71\u975e\u5e38\u597d\u770b"),
    ],
)  # fmt: skip
def test_other_alphabets_are_never_read_as_latin_letters(write, encoding, text):
    rows = [(f"{text} {n}", "ab"[n % 2]) for n in range(10)]
    assert pairs(read(write("rows.csv", table(rows), encoding))) == rows
    assert pairs(read(write("named.csv", table(rows), encoding), encoding=encoding)) == rows


def test_a_byte_that_windows_1252_leaves_open_stops_nobody(write):
    content = table([("it said \u2019x", "a"), ("caf\u00e9 y", "b")]).encode("cp1252").replace(b" y", b" \x9dy")
    assert read(write("rows.csv", content)).texts == ["it said \u2019x", "caf\u00e9 \x9dy"]


def test_a_reading_that_is_ambiguous_is_a_question(write):
    path = write("rows.csv", "eins;zwei,drei\na b;c,x\nd e;f,y\n")
    message = complaint(path)
    assert "',' split its rows into 2 cells and ';' into 2" in message
    assert "data.delimiter" in message
    assert read(path, delimiter=";", text="eins", label="zwei,drei").texts == ["a b", "d e"]
    assert read(path, text="eins;zwei", label="drei").texts == ["a b;c", "d e;f"], "columns asked for decide"


def test_without_a_header_columns_are_numbers(write):
    rows = [(str(n % 4 + 1), f"title {n}", f"the text of the row {n}") for n in range(16)]
    path = write("train.csv", table(rows, header=None, quoting=csv.QUOTE_ALL))
    source = read(path)
    assert pairs(source) == [(text, label) for label, _, text in rows]
    assert "no header, 16 rows; text is '2' (the longest strings); label is '0'" in source.line
    assert read(path, text=[1, 2], label=0).texts[0] == "title 0 the text of the row 0"
    assert len(read(path, header=True, text="the text of the row 0", label="1").texts) == 15
    labels_first = write("sms.tsv", "".join(f"{'ham' if n % 2 else 'spam'}\ttext number {n}\n" for n in range(20)))
    assert len(read(labels_first).texts) == 20


def test_loose_quotes_of_a_tsv_lose_no_row(write):
    lines = ['ham\t"gimme a few" was it', "spam\twin", 'ham\t" so', 'ham\t20" telly', 'spam\t"FREE"', 'ham\t"see you']
    source = read(write("sms.tsv", "label\ttext\n" + "\n".join(lines) + "\n"))
    assert pairs(source) == [tuple(line.split("\t")[::-1]) for line in lines]
    assert "quotes are characters" in source.line
    paired = ["fine\tham", '"hello there\tham', "win a prize\tspam", 'says hi"\tham', "free\tspam"]
    source = read(write("paired.tsv", "text\tlabel\n" + "\n".join(paired) + "\n"))
    assert source.texts[1] == '"hello there'
    assert len(source.texts) == 5
    assert "would join 6 lines into 4" in source.notes[0]
    assert len(read(write("p.tsv", "text\tlabel\n" + "\n".join(paired)), quotes=True).texts) == 3


def test_line_breaks_inside_quotes_are_counted(write):
    rows = [*ROWS, ("two\nlines", "good"), ('three\n\nlines, "so"', "bad")]
    source = read(write("rows.csv", table(rows)))
    assert pairs(source) == rows
    assert "6 rows, 2 with line breaks inside" in source.line


def test_quotes_escaped_by_a_backslash(write):
    source = read(write("rows.csv", 'text,label\n"he said \\"hi, you\\"",a\n"no, thanks",b\n'))
    assert source.texts == ['he said "hi, you"', "no, thanks"]


def test_a_header_may_end_in_columns_that_nobody_named(write):
    content = 'v1,v2,,,\r\nham,"see you, at six?",,,\r\nspam,win,"spilled",,\r\nham,short\r\n'
    assert pairs(read(write("spam.csv", content), text="v2", label="v1")) == [
        ("see you, at six?", "ham"),
        ("win", "spam"),
        ("short", "ham"),
    ]


# --- kinds of files -----------------------------------------------------------------------------------


def shapes(folder):
    """The same rows as every kind of file."""
    objects = [{"text": text, "label": label} for text, label in ROWS]
    lines = "".join(json.dumps(row) + "\n" for row in objects)
    yield "lines.json", lines
    yield "windows.JSONL", lines.replace("\n", "\r\n")
    yield "array.json", json.dumps(objects)
    yield "pretty.json", json.dumps(objects, indent=2)
    yield "splits.json", json.dumps({"train": [[t, y] for t, y in ROWS], "test": [["x", "good"]]})
    yield "columns.json", json.dumps({"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]})
    yield (
        "pandas.json",
        json.dumps({"text": dict(enumerate(t for t, _ in ROWS)), "label": dict(enumerate(y for _, y in ROWS))}),
    )
    yield "first.txt", "".join(f"{y} {t}\n" for t, y in ROWS)
    yield "fast.txt", "".join(f"__label__{y} {t}\n" for t, y in ROWS)
    yield "fast.train", "".join(f"__label__{y} {t}\n" for t, y in ROWS)
    plain = table().encode()
    yield "rows.csv.gz", gzip.compress(plain)
    yield "rows.csv.bz2", bz2.compress(plain)
    yield "rows.csv.xz", lzma.compress(plain)
    yield "rows.tsv.zst", pa.compress(table(delimiter="\t").encode(), codec="zstd", asbytes=True)
    yield "packed.csv", gzip.compress(plain)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("inner/rows.csv", plain)
        zipped.writestr("__MACOSX/._rows.csv", b"\0")
    yield "rows.zip", archive.getvalue()
    rows = pa.table({"text": [t for t, _ in ROWS], "label": [y for _, y in ROWS]})
    for name, write_table in (("rows.parquet", pq.write_table), ("rows.arrow", feather.write_feather)):
        write_table(rows, folder / name)
        yield name, (folder / name).read_bytes()
    yield "rows.parquet.gz", gzip.compress((folder / "rows.parquet").read_bytes())
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "Data"
    for row in [("text", "label"), *ROWS]:
        book.active.append(row)
    book.create_sheet("Notes").append(["written in spring"])
    book.save(folder / "rows.xlsx")
    yield "rows.xlsx", (folder / "rows.xlsx").read_bytes()


def test_every_kind_of_file_gives_the_same_rows(tmp_path, write):
    for name, content in shapes(tmp_path):
        source = read(write(f"in/{name}", content))
        assert pairs(source) == ROWS, name
        assert source.line.startswith(str(tmp_path / "in" / name)), "one line says how it was read"
        assert "4 rows" in source.line


def test_parallel_files_and_their_mapping(write):
    texts = write("tweets/train_text.txt", "first\nsecond\nthird\nfourth\n")
    write("tweets/train_labels.txt", "0\n1\n0\n1\n")
    mapping = write("tweets/mapping.txt", "0\tnot irony\n1\tirony\n")
    source = read(texts.parent, classes=str(mapping))
    assert pairs(source) == [("first", "not irony"), ("second", "irony"), ("third", "not irony"), ("fourth", "irony")]
    assert any("data.classes=" in note for note in read(texts).notes)
    write("tweets/train_labels.txt", "0\n1\n0\n")
    assert "do not have the same number of lines: row 4" in complaint(texts)


@pytest.mark.parametrize(
    "content", ["World\nSports\n", '["World", "Sports"]', '{"World": 0, "Sports": 1}', "0,World\n1,Sports"]
)
def test_what_numbers_stand_for_comes_from_a_list_or_a_file(write, content):
    path = write("rows.csv", "text,label\na,1\nb,0\n")
    assert read(path, classes=str(write("classes.txt", content))).labels == [("Sports",), ("World",)]
    assert read(path, classes=["World", "Sports"]).classes == ("World", "Sports")


def test_a_file_for_each_class(write):
    positive = write("mr/rt-polarity.pos", "a gem .\nfine caf\u00e9 .\n", "cp1252")
    write("mr/rt-polarity.neg", "dull .\n")
    write("mr/rt-polaritydata.README.1.0.txt", "about")
    expected = [("dull .", "neg"), ("a gem .", "pos"), ("fine caf\u00e9 .", "pos")]
    assert pairs(read(positive.parent)) == pairs(read(positive)) == expected
    named = write("two/pos.txt", "a gem\n")
    write("two/neg.txt", "dull\n")
    assert pairs(read(named.parent)) == [("dull", "neg"), ("a gem", "pos")]


def test_class_folders_of_files_of_any_ending_and_encoding(write):
    write("news/sci/1001", "a r\u00e9sum\u00e9", "cp1252")
    write("news/sci/1002.eml", "not a text file by its ending")
    write("news/rec/1.txt", "plain")
    source = read(write("news/rec/2.txt", "more").parents[1])
    assert pairs(source) == [("plain", "rec"), ("more", "rec"), ("a r\u00e9sum\u00e9", "sci")]
    assert "2 class folders, 1 of them in Windows-1252, 3 rows" in source.line


def test_a_folder_of_roles_and_a_class_without_labels(write):
    for role in ("train", "test"):
        for name in ("pos", "neg", *(["unsup"] if role == "train" else [])):
            for n in range(3):
                folder = write(f"imdb/{role}/{name}/{n}.txt", f"a {name} review {role} {n}").parents[2]
    loaded = data.load(keys(train=str(folder), test=str(folder)), ("train", "test"))
    assert loaded.label_names == ["neg", "pos", "unsup"]
    assert any("'unsup' of train does not occur in test: data.exclude=[unsup]" in n for n in loaded.report.notes)
    loaded = data.load(keys(train=str(folder), test=str(folder), exclude=["unsup"]), ("train", "test"))
    assert (loaded.label_names, len(loaded.train)) == (["neg", "pos"], 6)
    said = complaint(folder, exclude=["unsub"])
    assert "data.exclude: " in said
    assert "has no class 'unsub', did you mean 'unsup'?: its classes are neg, pos, unsup" in said


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    one = datasets.Dataset.from_dict({"text": list("abcd"), "label": [1, 0, 1, 0]}, features=features)
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": one, "test": one.select(range(2))}).save_to_disk(tmp_path / "both")
    assert pairs(read(tmp_path / "one")) == [("a", "good"), ("b", "bad"), ("c", "good"), ("d", "bad")]
    assert read(tmp_path / "both").classes == ("bad", "good")
    assert len(sources.read(str(tmp_path / "both"), keys(), "test").texts) == 2
    assert len(sources.read(f"{tmp_path / 'both'}[test]", keys(), "train").texts) == 2
    assert "no split for validation: its splits are train, test" in _of_role(tmp_path / "both", "validation")


def _of_role(path, role):
    with pytest.raises(UserError) as caught:
        sources.read(str(path), keys(), role)
    return str(caught.value)


def test_json_of_optional_keys_and_of_nan(write):
    lines = '{"text": "a", "label": 1.5}\n{"label": 2, "text": "b", "extra": NaN}\n{"text": "c", "label": NaN}\n'
    source = read(write("rows.jsonl", lines))
    assert source.labels == [("1.5",), ("2",)]
    assert any("1 row of train without a label in 'label' left out" in note for note in source.notes)


def test_half_a_character_is_replaced_and_whole_ones_are_kept(write):
    whole = [
        "so \U0001f600\U0001f1eb\U0001f1f7",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0627\u0644\u0637",
        "line\u2028separator",
    ]
    lines = "".join(
        json.dumps({"text": text, "label": n % 2}, ensure_ascii=n % 2 == 0) + "\n" for n, text in enumerate(whole)
    )
    source = read(write("rows.jsonl", lines + '{"text": "love \\ud83d", "label": 1}\n'))
    assert source.texts == [*whole, "love \ufffd"]
    assert any("half a character" in note for note in source.notes)


# --- labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["[1, 0, 1]", "[1 0 1]", "[1. 0. 1.]"])
def test_multi_hot_lists_are_places_and_never_the_labels_0_and_1(write, content):
    other = content.replace("0", "x").replace("1", "0").replace("x", "1")
    path = write("rows.csv", f'text,labels\na,"{content}"\nb,"{other}"\nc,"{content}"\n')
    source = read(path, multi_label=True)
    assert source.labels == [("0", "2"), ("1",), ("0", "2")]
    assert "data.classes" in source.notes[0]
    assert read(path, multi_label=True, classes=["rude", "late", "cold"]).labels[0] == ("rude", "cold")
    assert "names 2 classes" in complaint(path, multi_label=True, classes=["rude", "late"])
    assert "holds a list in 'labels', as every row does: with data.multi_label=true" in complaint(path)


@pytest.mark.parametrize("cell", ["['x', 'y z']", '["x", "y z"]', "['x' 'y z']"])
def test_lists_written_out(write, cell):
    doubled = cell.replace('"', '""')
    assert read(write("rows.csv", f'text,label\na,"{doubled}"\nb,[]\n'), multi_label=True).labels == [("x", "y z"), ()]


def test_one_column_of_bits_a_label(write):
    path = write("toxic.csv", "id,comment_text,toxic,obscene\n7,a,1,0\n8,b,0,0\n9,c,1,1\n")
    source = read(path, label=["toxic", "obscene"], multi_label=True)
    assert source.labels == [("toxic",), (), ("toxic", "obscene")]
    assert source.ids == ["7", "8", "9"]
    assert source.classes == ("toxic", "obscene")
    assert "multi_label=true" in complaint(path, label=["toxic", "obscene"])
    assert "row 1 (line 2) holds '2' for the label 'toxic'" in complaint(
        write("t.csv", "text,toxic,obscene\na,2,0\n"), label=["toxic", "obscene"], multi_label=True
    )


@pytest.mark.parametrize("mark", [",", ";", "|", "#"])
def test_the_mark_between_labels_is_found(write, mark):
    source = read(write("rows.csv", table([("a", f"G{mark}H"), ("b", "H"), ("c", f"H{mark}I")])), multi_label=True)
    assert source.labels == [("G", "H"), ("H",), ("H", "I")]
    assert source.data.label_separator == mark


def test_two_marks_are_a_question_and_a_label_may_hold_the_other(write):
    rows = [("a", "Folk;R&B|Soul"), ("b", "R&B|Soul"), ("c", "Rock;Folk"), ("d", "Soul|R&B")]
    path = write("rows.csv", table(rows))
    assert "may be separated by '|' or ';'" in complaint(path, multi_label=True)
    assert read(path, multi_label=True, label_separator=";").labels[0] == ("Folk", "R&B|Soul")


def test_numbers_and_truths_are_the_same_classes_however_written(write):
    lines = "".join(f'{{"text": "a", "label": {cell}}}\n' for cell in ("1", '"1"', "1.0", '"1.0"', "2"))
    assert read(write("a.jsonl", lines)).labels == [("1",)] * 4 + [("2",)]
    lines = "".join(f'{{"text": "a", "label": {cell}}}\n' for cell in ("true", '"TRUE"', "true", "false", '"false"'))
    assert read(write("b.jsonl", lines)).labels == [("True",)] * 3 + [("False",)] * 2
    mixed = read(
        write("c.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n{"text": "c", "label": 0}\n')
    )
    assert any("in one column: write one kind" in note for note in mixed.notes)


def test_words_for_nothing_are_classes_until_they_are_said_to_be_missing(write):
    path = write("rows.csv", "text,label\nnan,NA\nb,NL\nc,NULL\nd,\ne,NL\n")
    source = read(path)
    assert source.texts[0] == "nan", "the word is a text"
    assert source.labels == [("NA",), ("NL",), ("NULL",), ("NL",)]
    assert any("1 row of train without a label" in note for note in source.notes)
    assert any("'NA' (1 rows)" in note and "data.missing=[NA]" in note for note in source.notes)
    source = read(path, missing=["NULL", "NA"], unlabelled="keep")
    assert source.labels == [("unlabelled",), ("NL",), ("unlabelled",), ("unlabelled",), ("NL",)]
    assert "row 1 (line 2) has no label in 'label', one of 3 rows" in complaint(
        path, missing=["NULL", "NA"], unlabelled="refuse"
    )


def test_classes_that_hardly_differ_are_named(write):
    words = ["bar", "Bar", "caf\u00e9", "cafe\u0301", "caf\u00e9\u200b", " bar", "bar\u00a0", "stiletto"]
    source = read(write("rows.csv", table([(f"t{n}", word) for n, word in enumerate(words * 2)])))
    assert {name for (name,) in source.labels} == {
        "bar",
        "Bar",
        "caf\u00e9",
        "cafe\u0301",
        "caf\u00e9\u200b",
        "stiletto",
    }
    notes = [note for note in source.notes if note.startswith("the classes")]
    assert any("'bar' and 'Bar' differ in case only" in note for note in notes)
    assert any("invisible characters or how accents are encoded only" in note for note in notes)


def test_a_column_of_as_many_classes_as_rows_is_refused(write):
    rows = [(f"text {n}", f"date {n}") for n in range(30)]
    assert "another value in each of its 30 rows, which is no class" in complaint(write("rows.csv", table(rows)))


def test_texts_that_give_their_class_away_are_told(tmp_path, write):
    rows = [(f"Newsgroups: {name} words {n}", name) for name in ("sci.space", "rec.autos") for n in range(40)]
    loaded = data.load(keys(train=str(write("rows.csv", table(rows)))))
    assert any("mostly hold the name of their class" in note for note in loaded.report.notes)


# --- mistakes -----------------------------------------------------------------------------------------


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is a named pipe" in complaint(tmp_path / "pipe.csv")
    assert "is a device" in complaint("/dev/zero")


def test_a_git_lfs_pointer_is_known(write):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    assert "git lfs pull" in complaint(write("rows.csv", pointer))


def test_an_archive_that_unpacks_to_filler_is_refused_by_its_ratio(tmp_path):
    with gzip.open(tmp_path / "zeros.csv.gz", "wb", compresslevel=9) as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    assert "times its bytes, which no text does" in complaint(tmp_path / "zeros.csv.gz")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(table(ROWS * 500).encode())[:-30])
    assert "cannot be unpacked (gzip" in complaint(tmp_path / "cut.csv.gz")


def test_an_archive_of_several_files_asks_for_one(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("first.csv", table())
        archive.writestr("second.csv", table(ROWS[:2]))
    assert "holds several files (first.csv, second.csv): name one" in complaint(tmp_path / "set.zip")
    assert len(read(f"{tmp_path / 'set.zip'}[second.csv]").texts) == 2


def test_a_workbook_of_two_tables_asks_for_one(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.title = "2024"
    for sheet in (book.active, book.create_sheet("2025")):
        for row in [("text", "label"), ("it is 5", 1), ("b", 2.5)]:
            sheet.append(row)
    book.save(tmp_path / "rows.xlsx")
    assert "several sheets that may be meant, '2024' and '2025': name one" in complaint(tmp_path / "rows.xlsx")
    source = read(f"{tmp_path / 'rows.xlsx'}[2025]")
    assert pairs(source) == [("it is 5", "1"), ("b", "2.5")]


def test_an_unclosed_quote_among_many_rows_is_told_with_its_line(write):
    lines = [f'"text, number {n}",{"ab"[n % 2]}\n' for n in range(5000)]
    lines[3000] = lines[3000].replace('0",', "0,")
    message = complaint(write("rows.csv", "text,label\n" + "".join(lines)))
    assert "the row from line 3,002 cannot be read" in message
    assert "data.quotes=false" in message


def test_a_row_of_too_many_cells_is_told_with_its_line(write):
    lines = [f"text number {n},{'ab'[n % 2]}\n" for n in range(5000)]
    lines[4000] = "one, too many,a\n"
    assert "row 4,001 (line 4,002) has 3 cells, expected 2" in complaint(
        write("rows.csv", "text,label\n" + "".join(lines))
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["Très bon; vraiment", "Mauvais été", "ça va", "bof œuvre"],
        ["Großer Text", "über", "schöne Grüße"],
        ["mycket bra på allt", "dåligt för mig", "ävenså"],
    ],
    ids=["French", "German", "Swedish"],
)
def test_a_few_western_lines_are_windows_1252(write, lines):
    content = table([(line, "ab"[n % 2]) for n, line in enumerate(lines)])
    assert read(write("few.csv", content, "cp1252")).texts == lines
