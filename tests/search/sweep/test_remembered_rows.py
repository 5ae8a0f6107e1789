"""Rows that a process remembers are read again when their files have changed."""

import os

from rankwise.config import Data
from rankwise.search.sweep.trial import load_data


def test_class_folders_are_read_again_when_a_file_in_them_changes(tmp_path):
    for label in ("ham", "spam"):
        (tmp_path / label).mkdir()
        for number in range(4):
            (tmp_path / label / f"{number}.txt").write_text(f"{label} words {number}")
    data = Data(train=str(tmp_path), validation_size=2)
    first = load_data(data, ["train", "validation"])
    assert load_data(data, ["train", "validation"]) is first, "remembered"
    inner = tmp_path / "ham" / "3.txt"
    inner.write_text("ham words 9")  # as long as before, in a folder whose own time stays
    os.utime(inner, ns=(1, 1))
    again = load_data(data, ["train", "validation"])
    assert "ham words 9" in [*again.train.texts, *again.validation.texts]
