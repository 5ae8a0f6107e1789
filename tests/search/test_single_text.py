"""auto --max-ms: what is shipped answers one text in time, TF-IDF where the base is too slow, or nothing is."""

import rankwise
from rankwise.cli import main
from rankwise.errors import BudgetError
from rankwise.search import single_text
from rankwise.search.auto import auto


def test_words_are_shipped_where_the_base_is_too_slow(tiny_model, news, tmp_path, monkeypatch):
    def too_slow(*_):
        raise BudgetError("one text takes 9 ms on this machine, over budget.max_ms of 5")

    monkeypatch.setattr(single_text.latency, "within", too_slow)
    words = [f"model.name={tiny_model}", "data.validation_size=0.1"]
    record = auto(str(news["train"]), words, max_ms=60_000, out=tmp_path / "a")
    assert record["winner"]["run"] == "all-rows"
    lines = record["auto"]["explanation"]
    assert any(line.startswith("plan      one text takes 9 ms") for line in lines)
    assert any(line.startswith("one text") for line in lines)
    assert rankwise.load(tmp_path / "a").label_names == ["business", "science", "sport"]


def test_where_even_words_are_too_slow_nothing_is_left_behind(tiny_model, news, tmp_path, capsys):
    words = [f"model.name={tiny_model}", "--max-ms", "0.000001", "--out", str(tmp_path / "a")]
    assert main(["auto", str(news["train"]), *words]) == 2
    assert "over budget.max_ms of" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
