"""Encoders by name, from a folder and from the Hub's cache; what is not known is refused in a sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rankwise.config import Model
from rankwise.errors import UserError
from rankwise.planning import encoder_of

BERT = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}


def folder_with(path: Path, config: object, tensors: list[str] = ()) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if tensors:
        header = json.dumps({name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in tensors}).encode()
        (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def test_a_folder_is_read(tmp_path):
    encoder = encoder_of(Model(name=str(folder_with(tmp_path, BERT))))
    assert (encoder.layers, encoder.hidden, len(encoder.sites)) == (3, 32, 18)
    assert encoder.sites[0].module == "bert.encoder.layer.0.attention.self.query"
    assert not encoder.dense_is_new


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_the_weights_tell_whether_the_pooler_is_new(tmp_path, prefix):
    names = [f"{prefix}embeddings.word_embeddings.weight"]
    without = folder_with(tmp_path / "without", BERT, names)
    held = folder_with(tmp_path / "with", BERT, [*names, f"{prefix}pooler.dense.weight"])
    assert encoder_of(Model(name=str(without))).dense_is_new
    assert not encoder_of(Model(name=str(held))).dense_is_new


def test_the_hub_cache_is_read_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--someone--encoder"
    folder_with(repo / "snapshots" / "abc123", BERT)
    folder_with(repo / "snapshots" / "def456", {**BERT, "num_hidden_layers": 5})
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    assert encoder_of(Model(name="someone/encoder")).layers == 3
    assert encoder_of(Model(name="someone/encoder", revision="def456")).layers == 5
    with pytest.raises(UserError, match="not known here"):
        encoder_of(Model(name="someone/encoder", revision="nowhere"))


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HF_HOME"])
def test_the_hub_cache_is_where_its_own_library_puts_it(tmp_path, variable):
    home = tmp_path / "huggingface" if variable == "XDG_CACHE_HOME" else tmp_path
    repo = home / "hub" / "models--someone--encoder"
    folder_with(repo / "snapshots" / "abc123", BERT)
    code = "from rankwise.config import Model; from rankwise.encoders import encoder_of as of; print(of(Model(name='someone/encoder', revision='abc123')).layers)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "HUGGING"))}
    outcome = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {variable: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome.stdout.strip() == "3"


def test_a_pointer_of_git_lfs_is_no_configuration(tmp_path):
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="pointer of Git LFS"):
        encoder_of(Model(name=str(tmp_path)))


def test_an_unknown_name_says_what_to_do():
    with pytest.raises(UserError, match=r"'roberta-bas' is not known here, did you mean 'roberta-base'.*config\.json"):
        encoder_of(Model(name="roberta-bas"))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2', expected one of albert, bert"),
        ({**BERT, "hidden_size": "wide"}, "gives hidden_size = 'wide', expected a whole number"),
        ({k: v for k, v in BERT.items() if k != "vocab_size"}, "gives vocab_size = None"),
        ([1, 2], "holds a list"),
        ({**BERT, "model_type": "albert", "inner_group_num": 2}, "inner_group_num = 2, which is not supported"),
        ({**BERT, "model_type": "deberta-v2", "conv_kernel_size": 3}, "conv_kernel_size = 3"),
        ({**BERT, "quantization_config": {"bits": 4}}, "quantization_config"),
    ],
)
def test_configs_that_cannot_be_planned(tmp_path, config, sentence):
    with pytest.raises(UserError, match=sentence):
        encoder_of(Model(name=str(folder_with(tmp_path, config))))


def test_a_folder_without_or_with_a_broken_config(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        encoder_of(Model(name=str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        encoder_of(Model(name=str(tmp_path)))
