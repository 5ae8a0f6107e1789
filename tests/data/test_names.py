"""Names of classes as texts beside a few rows."""

import numpy as np
import pytest
from safetensors.numpy import load_file

import rankwise
from rankwise.data.names import are_words, with_names
from rankwise.data.rows import Rows
from rankwise.errors import UserError


def rows_of(labels):
    return Rows(["a", "b"], np.asarray(labels), [0, 1], "x", "y")


def test_every_class_has_two_texts_of_its_name():
    given = with_names(rows_of([1, 0]), ["card_arrival", "SciTech"])
    assert given.texts == [
        *("a", "b", "card arrival", "Sci Tech"),
        *("This text is about card arrival.", "This text is about Sci Tech."),
    ]
    assert given.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert len(given.ids) == 6
    assert with_names(rows_of([1, 0]), ["ПолитикаМира", "αθλητικά_νέα"]).texts[2:4] == ["Политика Мира", "αθλητικά νέα"]
    several = with_names(rows_of([[1.0, 1.0], [0.0, 1.0]]), ["x", "y"])
    assert several.labels[2:].tolist() == [[1, 0], [0, 1]] * 2


def test_numbers_are_no_words():
    assert are_words(["ham", "spam"])
    assert are_words(["ärger", "B2"])
    assert not are_words(["0", "1"])
    assert not are_words(["ham", "1.5"])


def test_a_pair_has_no_name(tiny_model):
    tree = {"model": {"name": str(tiny_model)}, "data": {"pair": True, "name_texts": True, "text": ["a", "b"]}}
    with pytest.raises(UserError, match="data.name_texts cannot apply with data.pair"):
        rankwise.plan(tree)


def test_what_trains_has_them_and_what_is_counted_has_not(tiny_model, news, tmp_path):
    tree = {
        "model": {"name": str(tiny_model)},
        "adapter": {"method": "probe"},
        "data": {"train": str(news["train"]), "max_length": 32},
    }
    plain, named = (
        rankwise.train({**tree, "data": {**tree["data"], "name_texts": given}}, out=tmp_path / str(given))
        for given in (False, True)
    )
    assert named.record.data["train"].rows == plain.record.data["train"].rows
    before, after = (load_file(run.adapter / "adapter_model.safetensors") for run in (plain, named))
    assert any(not np.allclose(after[name], value) for name, value in before.items()), "a head of six texts more"
