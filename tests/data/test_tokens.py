"""Tokens are the tokenizer's own, cut where transformers would cut, and kept safely on disk."""

import multiprocessing

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from rankwise.data import tokens
from rankwise.errors import UserError
from rankwise.machine import segments

transformers = pytest.importorskip("transformers")

TEXTS = ["a b c", "", "b", "unknown a", "a b c d e f g h " * 6, "h"] * 40


def make(template="[CLS] $A [SEP]", words="abcdefgh", truncated=False):
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.WordPiece()
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    if truncated:
        inner.enable_truncation(8)
        inner.enable_padding(length=16)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )


TEMPLATES = {"bert": "[CLS] $A [SEP]", "before": "[CLS] $A", "none": "$A", "two behind": "[CLS] $A [SEP] [SEP]"}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("truncated", [False, True], ids=["plain", "file truncates and pads"])
@pytest.mark.parametrize("cached", [False, True], ids=["memory", "disk"])
def test_ids_are_those_of_transformers(tmp_path, template, truncated, cached):
    for max_length, positions in ((5, None), (13, 40), (64, 64)):
        made = tokens.tokenise(
            TEXTS, make(template, truncated=truncated), max_length, tmp_path if cached else None, positions=positions
        )
        tokenizer = make(template)
        expected = tokenizer(TEXTS, truncation=True, max_length=max_length)["input_ids"]
        assert [ids.tolist() for ids in made] == expected
        assert made[0].dtype == np.int32
        assert made.lengths.tolist() == [len(ids) for ids in expected]
        assert made.full_lengths.tolist() == [len(ids) for ids in tokenizer(TEXTS)["input_ids"]]
        assert [
            ids.tolist() for ids in tokens.encode(TEXTS, make(template, truncated=truncated), max_length)
        ] == expected
        assert [ids.tolist() for ids in made.take(np.array([4, 0]))] == [expected[4], expected[0]]
        assert made[-1].tolist() == expected[-1]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("cached", [False, True], ids=["memory", "disk"])
def test_both_ends_are_half_of_what_is_kept_each(tmp_path, template, cached):
    tokenizer, texts = make(template), ["a b c", "", "a b c d e f g h", "a b c d e f g h " * 12]
    for max_length, positions in ((5, None), (6, 40), (13, 40), (40, 40), (64, 64)):
        made = tokens.tokenise(
            texts,
            tokenizer,
            max_length,
            tmp_path if cached else None,
            positions=positions,
            truncation="head_and_tail",
        )
        whole = tokenizer(texts)["input_ids"]
        tail = max_length // 2
        expected = [ids if len(ids) <= max_length else ids[: max_length - tail] + ids[-tail:] for ids in whole]
        assert [ids.tolist() for ids in made] == expected
        assert made.lengths.tolist() == [len(ids) for ids in expected]
        assert [ids.tolist() for ids in tokens.encode(texts, tokenizer, max_length, "head_and_tail")] == expected
        other = tokens.tokenise(texts, tokenizer, max_length, tmp_path if cached else None, positions=positions)
        assert [ids.tolist() for ids in other] == tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        assert (other.truncation, other.max_length) == ("head", max_length)


@pytest.mark.parametrize("behind", [0, 1, 2])
@pytest.mark.parametrize("gap", [0, 1, 2])
def test_what_is_stored_is_cut_as_the_text_itself_is(behind, gap):
    """Of pairs, too, whose texts give way by how long each is: gap is how many special tokens stand between them."""
    chance = np.random.default_rng(0)
    for first, second in [(90, 91), (91, 90), (90, 90), (100, 3), (3, 100), (0, 90), (90, 0), (40, 20), (65, 60)]:
        body = chance.integers(10, 99, first + second).astype(np.int32)
        separators = np.full(gap, 3, np.int32)
        pair = np.concatenate([[2], body[:first], separators, body[first:] | segments.SECOND, [3] * behind])
        pair = pair.astype(np.int32)
        if gap and behind:  # by which the border is found
            pair[1 + first + gap] |= segments.BOUNDARY
        for most in (32, 33):
            stored = segments.storable(pair, most, behind)
            assert len(stored) <= 1.5 * most + 1
            for fewer in range(behind + gap + 2, most + 1):
                for truncation in ("head", "head_and_tail"):
                    cut = segments.cut(pair, fewer, behind, truncation)
                    assert len(cut) == min(fewer, len(pair))
                    np.testing.assert_array_equal(segments.cut(stored, fewer, behind, truncation), cut)


def test_texts_are_tokenised_once(tmp_path, monkeypatch):
    first = tokens.tokenise(TEXTS, make(), 16, tmp_path, positions=64)
    assert isinstance(first.ids, np.memmap)
    monkeypatch.setattr(tokens, "_encode", lambda *_: pytest.fail("tokenised again"))
    again = tokens.tokenise(TEXTS, make(), 16, tmp_path, positions=64)
    assert [a.tolist() for a in again] == [a.tolist() for a in first]
    assert tokens.tokenise(TEXTS, make(), 32, tmp_path, positions=64).lengths.max() == 32, (
        "another length shares the file"
    )
    both = tokens.tokenise(TEXTS, make(), 32, tmp_path, positions=64, truncation="head_and_tail")
    assert both.truncation == "head_and_tail", "so do other ends"


@pytest.mark.parametrize(
    "change",
    [
        {"texts": [*TEXTS[:-1], "g"]},
        {"texts": [*TEXTS[:-2], TEXTS[-2] + TEXTS[-1], ""]},
        {"tokenizer": make(words="abcdefhg")},
        {"tokenizer": make(template="[CLS] $A")},
        {"positions": 60},
    ],
    ids=["text", "border between texts", "vocabulary", "template", "positions"],
)
def test_another_content_is_another_file(tmp_path, change):
    same = {"texts": TEXTS, "tokenizer": make(), "max_length": 16, "cache_dir": tmp_path, "positions": 64}
    tokens.tokenise(**same)
    tokens.tokenise(**same)
    assert len(list(tmp_path.iterdir())) == 1
    tokens.tokenise(**{**same, **change})
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "rubbish"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    expected = [a.tolist() for a in tokens.tokenise(TEXTS, make(), 16, tmp_path)]
    (folder,) = tmp_path.iterdir()
    ids, lengths = folder / "ids.int32", folder / "lengths.npy"
    if damage == "cut":
        ids.write_bytes(ids.read_bytes()[:-4])
    elif damage == "gone":
        ids.unlink()
    else:
        lengths.write_bytes(b"\x93NUMPY")
    assert [a.tolist() for a in tokens.tokenise(TEXTS, make(), 16, tmp_path)] == expected
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def race(folder, barrier, results):
    tokenizer = make()
    barrier.wait()
    results.put([ids.tolist() for ids in tokens.tokenise(TEXTS, tokenizer, 16, folder)])


@pytest.mark.slow
def test_processes_that_race_all_get_the_tokens(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path, barrier, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    expected = [a.tolist() for a in tokens.tokenise(TEXTS, make(), 16, None)]
    assert found == [expected] * 4
    assert len(list(tmp_path.iterdir())) == 1, "one file, and nothing half-written beside it"


def test_of_processes_that_race_the_first_ones_file_stays(tmp_path, monkeypatch):
    """Others have it mapped by then: one copy is in memory."""
    encode, first, inodes = tokens._encode, [], []

    def beside(*given):
        monkeypatch.setattr(tokens, "_encode", encode)
        first.append(tokens.tokenise(TEXTS, make(), 16, tmp_path))
        inodes.append(first[0].ids.filename.stat().st_ino)
        yield from encode(*given)

    monkeypatch.setattr(tokens, "_encode", beside)
    last = tokens.tokenise(TEXTS, make(), 16, tmp_path)
    assert [a.tolist() for a in last] == [a.tolist() for a in first[0]]
    assert last.ids.filename.stat().st_ino == inodes[0]
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        yield np.array([1], dtype=np.int32)
        raise KeyboardInterrupt

    monkeypatch.setattr(tokens, "_encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokens.tokenise(TEXTS, make(), 16, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    without, within = (tokens.tokenise(TEXTS, make(), 16, place) for place in (tmp_path / "file", tmp_path))
    assert [row.tolist() for row in without] == [row.tolist() for row in within]


def test_the_automatic_length_is_the_99th_percentile_rounded_up():
    lengths = np.array([10] * 985 + [33] * 10 + [500] * 5)
    assert tokens.automatic_max_length(lengths, 512) == 40
    assert tokens.automatic_max_length(lengths, 36) == 36
    assert tokens.automatic_max_length(np.array([8]), 512) == 8
    made = tokens.tokenise(["a b c"] * 200 + ["a " * 60], make(), None, None, positions=64)
    assert (made.max_length, made.lengths.max(), made.full_lengths.max()) == (8, 8, 62)


@pytest.mark.parametrize(("max_length", "expected"), [(65, "the model takes 64"), (2, "no room beside 2 special")])
def test_a_length_that_cannot_be_is_told(max_length, expected):
    with pytest.raises(UserError, match=expected):
        tokens.tokenise(TEXTS, make(), max_length, None, positions=64)


def test_no_texts_are_no_trouble(tmp_path):
    for folder in (None, tmp_path):
        assert list(tokens.tokenise([], make(), 16, folder)) == []


def test_texts_that_a_process_has_met_are_not_tokenised_again(tmp_path, monkeypatch):
    """In another split of the same texts, and beside texts that are new."""
    tokenizer, asked, encode = make(), [], tokens._encode

    def counted(texts, tokenizer):
        asked.append(len(texts))
        return encode(texts, tokenizer)

    monkeypatch.setattr(tokens, "_encode", counted)
    other = ["h g", *TEXTS[3:40], "a new one", "", TEXTS[0]]
    expected = tokens.tokenise(other, tokenizer, 13, None)
    with tokens.remembered():
        for folder in (tmp_path, None):
            asked.clear()
            tokens.tokenise(TEXTS, tokenizer, 40, folder, positions=40)
            again = tokens.tokenise(other, tokenizer, 13, folder, positions=40)
            first = len(TEXTS) if folder else 0
            assert asked == [first, 2 if folder else 0]
            assert [ids.tolist() for ids in again] == [ids.tolist() for ids in expected]
            assert again.full_lengths.tolist() == expected.full_lengths.tolist()
            assert tokens.tokenise(other, tokenizer, 13, None, positions=20)[3].tolist() == expected[3].tolist()
    asked.clear()
    tokens.tokenise(TEXTS, tokenizer, 40, None, positions=40)
    assert asked == [len(TEXTS)], "nothing is kept outside"
