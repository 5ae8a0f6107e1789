"""Where models come from: what is not usable is told in one sentence, before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest

from rankwise.config import Model
from rankwise.errors import UserError
from rankwise.models import sources, tokenizer_of


@pytest.fixture
def folder(folders, tmp_path) -> Path:
    shutil.copytree(folders["bert"], tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_folder_is_taken_as_it_is(folder):
    assert sources.locate(Model(name=str(folder))) == folder


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="holds no weights, expected model.safetensors"):
        sources.locate(Model(name=str(folder)))
    assert sources.locate(Model(name=str(folder), random_weights=True)) == folder


def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        sources.locate(Model(name=str(folder)))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[:-1], "is cut short"),
        (lambda content: content + b"more", "is cut short"),
        (lambda content: content[:100], "header cannot be read"),
        (lambda content: content[:5], "header cannot be read"),
        (lambda content: b"", "header cannot be read"),
        (lambda content: content[:8] + b"x" * (len(content) - 8), "header cannot be read"),
        (lambda content: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
    ],
)
def test_damaged_weights(folder, damage, sentence):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence):
        sources.locate(Model(name=str(folder)))


def test_shards_must_all_be_there(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="names model-00002-of-00002.safetensors, which is not in the folder"):
        sources.locate(Model(name=str(folder)))
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model-00002-of-00002.safetensors")
    assert sources.locate(Model(name=str(folder))) == folder


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        sources.locate(Model(name=str(tmp_path / "nowhere")))


def test_the_hub_refused_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot be reached \(HF_HUB_OFFLINE is set\).*packaged:all-MiniLM-L6-v2"):
        sources.locate(Model(name="roberta-base"))
    with pytest.raises(UserError, match="cannot be reached"):
        sources.ensure_config(Model(name="someone/else"))


def test_a_cached_snapshot_is_used_without_network(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / "models--someone--bert" / "snapshots" / "abc"
    shutil.copytree(folder, snapshot)
    assert sources.locate(Model(name="someone/bert", revision="abc")) == snapshot


def test_tokenizers(folder, tiny_model):
    with pytest.raises(UserError, match="holds no .*tokenizer"):
        tokenizer_of(folder)
    assert tokenizer_of(tiny_model)("the match")["input_ids"][0] == 2
    assert tokenizer_of(Model(name=str(tiny_model))).is_fast
