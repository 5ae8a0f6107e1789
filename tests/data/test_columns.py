"""Text, label and id columns are found by name and by content, with a reason, and asked about where two would do."""

import pytest

from rankwise import config, data
from rankwise.data import columns, formats, sources
from rankwise.data.table import Reading
from rankwise.errors import UserError


def choose(path, text=None, label=None):
    return columns.choose(formats.open_file(path, None, Reading()), text, label)


@pytest.fixture
def write(tmp_path):
    def write(content, name="rows.csv"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("text,label", "a b,x", (("text",), "label")),
        ("id,Title,Description,Class", "1,a,b,x", (("Title", "Description"), "Class")),
        ("Category,Message", "x,a b", (("Message",), "Category")),
        ("headline,topic", "a b,x", (("headline",), "topic")),
    ],
)
def test_columns_are_known_by_name(write, header, row, expected):
    chosen = choose(write(f"{header}\n{row}\n"))
    assert (chosen.text, chosen.label) == expected
    assert "(by name)" in chosen.reason


def test_columns_of_other_names_are_known_by_their_values(write):
    rows = [f"{number},some words that make a text {number},{'ab'[number % 2]},{number % 7}" for number in range(70)]
    chosen = choose(write("id,was,welche,wann\n" + "\n".join(rows)))
    assert (chosen.text, chosen.label, chosen.others) == (("was",), "welche", ("wann",))
    assert chosen.reason == "text is 'was' (the longest strings); label is 'welche' (2 values that come again)"
    with pytest.raises(UserError, match="which column is the label"):
        choose(write("was\n" + "\n".join(rows).replace(",", ";")))


def test_two_columns_that_would_do_are_a_question(write):
    rows = [f"words that make a text {i},{'ab'[i % 2]},{'xyz'[i % 3]}" for i in range(60)]
    with pytest.raises(UserError, match="which column is the label, 'eins' or 'zwei'"):
        choose(write("was,eins,zwei\n" + "\n".join(rows)))


def test_what_a_name_decides_lists_the_others(write):
    rows = [f"words that make a text {i},{i % 2},{i % 3}" for i in range(60)]
    path = write("tweet,class,hate_speech\n" + "\n".join(rows))
    loaded = data.load(config.from_dict({"data": {"train": str(path)}}).data)
    assert loaded.data.label == "class"
    assert "the label is 'class'; 'hate_speech' would do too" in loaded.report.notes
    assert "text is 'tweet' (by name); label is 'class' (by name)" in loaded.report.sources[0]


def test_an_index_is_never_the_text_or_the_label(write):
    rows = [f"{i},{'ab'[i % 2]},t{i}" for i in range(40)]
    chosen = choose(write(",welche,was\n" + "\n".join(rows)))
    assert (chosen.text, chosen.label) == (("was",), "welche")


def test_columns_without_names_or_twice_named_matter_only_when_asked_for(write):
    path = write("v1,v2,,,\nham,hello,,,\nspam,win,,,\n")
    assert choose(path, ["v2"], "v1").text == ("v2",)
    with pytest.raises(UserError, match="names the column 'v1' twice"):
        choose(write("v1,v1,v2\na,b,c\n"), ["v2"], "v1")


def test_row_ids_are_a_column_of_that_name_that_never_repeats(write):
    def ids(content):
        return columns.row_ids(formats.open_file(write(content), None, Reading()))

    assert ids("ID,text\n7,a\n8,b\n") == "ID"
    assert ids("tweet_id,text\n7,a\n8,b\n") == "tweet_id"
    assert ids("user_id,text\n7,a\n7,b\n") is None
    assert ids("user_id,tweet_id,text\n7,8,b\n") is None


def test_a_column_of_single_words_is_the_text_beside_longer_labels(tmp_path):
    (tmp_path / "rows.csv").write_text("".join(f"w{n},{'negative' if n % 2 else 'good'}\n" for n in range(40)))
    source = sources.read(str(tmp_path / "rows.csv"), config.from_dict({"data": {}}).data, "train")
    assert (source.texts[:2], source.labels[:2]) == (["w0", "w1"], [("good",), ("negative",)])


@pytest.mark.parametrize("mark", [" ", "/", "&", "+"])
def test_labels_that_may_be_several_are_asked_about(tmp_path, mark):
    cells = [f"sql{mark}python", "java", "sql"]
    (tmp_path / "rows.csv").write_text("text,tags\n" + "".join(f"text {n},{cells[n % 3]}\n" for n in range(9)))
    given = {"multi_label": True, "label": "tags"}

    def read(**more):
        return sources.read(str(tmp_path / "rows.csv"), config.from_dict({"data": given | more}).data, "train")

    with pytest.raises(UserError) as caught:
        read()
    assert f"'sql{mark}python' may be one label or several: data.label_separator='{mark}'" in str(caught.value)
    assert read(label_separator=mark).labels[0] == ("sql", "python")
    assert read(label_separator="|").labels[0] == (f"sql{mark}python",)


def read(path, **given):
    return sources.read(str(path), config.from_dict({"data": given}).data, "train")


PAIRS = [(f"it rained on day {n}", f"the street was wet on day {n}", "ab"[n % 2]) for n in range(12)]


@pytest.mark.parametrize(
    "names", [("premise", "hypothesis"), ("sentence1", "sentence2"), ("#1 String", "#2 String"), ("text_a", "text_b")]
)
def test_two_texts_a_row_are_a_question_that_one_key_answers(write, names):
    rows = "".join("\t".join(row) + "\n" for row in PAIRS)
    path = write("\t".join((*names, "label")) + "\n" + rows, "pairs.tsv")
    with pytest.raises(UserError, match=r"has two texts a row.*data\.pair=true"):
        read(path)
    assert read(path, pair=True).data.text == list(names)
    assert read(path, text=names[0]).texts == [one for one, _, _ in PAIRS]


def test_another_column_of_texts_is_told(write):
    rows = "".join(f"{'ab'[n % 2]},a headline of day {n},and what was written below it on day {n}\n" for n in range(12))
    source = read(write(f"category,headline,summary\n{rows}"))
    assert any("data.text=[headline,summary]" in note for note in source.notes)


def test_a_label_column_that_stands_twice_is_told(write):
    path = write("text,label,label\n" + "".join(f"a text of day {n},a,b\n" for n in range(12)))
    with pytest.raises(UserError, match="names the column 'label' twice"):
        read(path)


def test_a_label_that_is_called_as_texts_are_leaves_the_text_to_another_column(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("words,text\n" + "".join(f"a soup of day {n},{'good' if n % 2 else 'bad'}\n" for n in range(20)))
    source = read(path, label="text")
    assert (source.texts[0], source.labels[0]) == ("a soup of day 0", ("bad",))
