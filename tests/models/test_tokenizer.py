"""A tokenizer that is kept gives what transformers' own gives, and is found by the contents it was made of."""

import json
import shutil

import pytest
from transformers import AutoTokenizer

from rankwise.data.tokens import encode, tokenizer_identity
from rankwise.errors import UserError
from rankwise.machine import caches
from rankwise.models import tokenizer, tokenizer_of

TEXTS = ["the team scored", "The  match, of\nthe TEAM!", "", "unknown wörds 漢字"]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))


def no_transformers(monkeypatch):
    monkeypatch.setattr(tokenizer, "_by_transformers", lambda folder: pytest.fail("transformers was asked"))


def kept(folder, monkeypatch):
    """The tokenizer as it is read the second time."""
    tokenizer_of(folder)
    with monkeypatch.context() as patch:
        no_transformers(patch)
        return tokenizer_of(folder)


def assert_same(ours, theirs):
    for name in ("pad_token", "pad_token_id", "model_max_length", "is_fast"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert tokenizer_identity(ours) == tokenizer_identity(theirs)
    assert [ids.tolist() for ids in encode(TEXTS, ours, 30)] == theirs(TEXTS)["input_ids"]
    assert ours(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]


def test_it_gives_the_same_ids(tiny_model, monkeypatch):
    assert_same(kept(tiny_model, monkeypatch), AutoTokenizer.from_pretrained(tiny_model))


def test_a_class_beside_the_file_counts_as_for_transformers(tiny_model, tmp_path, monkeypatch):
    """BertTokenizer builds its own of the vocabulary: what the file says of cleaning is not asked."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_model, folder)
    tree = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tree | {"tokenizer_class": "BertTokenizer"}))
    ours = kept(folder, monkeypatch)
    assert_same(ours, AutoTokenizer.from_pretrained(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(tree | {"pad_token": "[UNK]"}))
    assert tokenizer_of(folder).pad_token_id == ours.get_vocab()["[UNK]"]


def test_what_it_saves_is_what_transformers_saves_and_is_known(tiny_model, tmp_path, monkeypatch):
    ours = kept(tiny_model, monkeypatch)
    for one, name in ((ours, "ours"), (tokenizer._by_transformers(tiny_model), "theirs")):
        (tmp_path / name).mkdir()
        one.save_pretrained(tmp_path / name)
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()} == files
    with monkeypatch.context() as patch:
        no_transformers(patch)
        tokenizer_of(tmp_path / "ours")
    shutil.rmtree(caches.cache("tokenizers"))
    (tmp_path / "later").mkdir()
    ours.save_pretrained(tmp_path / "later")
    assert (tmp_path / "later" / "tokenizer.json").is_file()


@pytest.mark.parametrize("content", ["", "[1,2]", '{"version": "1.0"}'])
@pytest.mark.parametrize("name", ["tokenizer.json", "facts.json"])
def test_a_damaged_one_is_made_again(tiny_model, name, content, monkeypatch):
    kept(tiny_model, monkeypatch)
    for folder in caches.cache("tokenizers").iterdir():
        (folder / name).write_text(content)
    assert_same(tokenizer_of(tiny_model), AutoTokenizer.from_pretrained(tiny_model))
    assert_same(kept(tiny_model, monkeypatch), AutoTokenizer.from_pretrained(tiny_model))


def test_a_folder_without_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer"):
        tokenizer_of(tmp_path)
