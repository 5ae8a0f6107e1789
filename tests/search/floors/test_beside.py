"""TF-IDF beside a trained encoder: both answer in one, wherever the adapter is loaded, and what cannot hold both says so."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import rankwise
from rankwise import records
from rankwise.baselines.words import WordClassifier
from rankwise.config import from_dict
from rankwise.deadline import Deadline
from rankwise.errors import UserError
from rankwise.export.command import export
from rankwise.records import SearchRecord, Winner
from rankwise.runs.folder import Run
from rankwise.scoring import predictions
from rankwise.search.after.all_rows import on_all_rows
from rankwise.search.floors import beside
from rankwise.search.floors import floor as floors
from rankwise.search.sweep.trial import load_data


def loaded(config):
    config = from_dict(config) if isinstance(config, dict) else config
    return load_data(config.data, ["train", "validation", "test"])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What is made once, for tests to have copies of."""
    return tmp_path_factory.mktemp("kept"), {}


@pytest.fixture
def search(config, kept, tmp_path):
    """A trial of a few steps and the floor of words, in a search's folder."""
    folder, known = kept[0] / "search", kept[1]
    config["train"] |= {"steps": 6, "eval_every": 6}
    if "floor" not in known:
        rankwise.train(config, out=folder / "trial")
        known["floor"] = floors.of_words(config, loaded(config), folder / "floors" / "words")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return config, tmp_path, known["floor"]


def trial(folder, **others):
    scores = Run(folder / "trial").record.metrics.validation
    accuracy = scores.accuracy
    known = {"run": "trial", "point": {"design": "one"}, "peak": accuracy, "chosen": accuracy, "mean": accuracy}
    return Winner(**known | {"chosen_ci95": scores.accuracy_ci95, "final": accuracy} | others)


@pytest.fixture
def both(search, kept):
    (config, folder, floor), known = search, kept[1]
    if "found" not in known:
        beside.prepared(config, loaded(config), [floor], folder)
        known["found"] = beside.with_words(trial(folder), folder, lambda path: True)
        assert known["found"] is not None
        shutil.copytree(folder, kept[0] / "both")
    shutil.copytree(kept[0] / "both", folder, dirs_exist_ok=True)
    return folder, known["found"]


@pytest.mark.parametrize("most", [20_000, 1_000])
def test_a_head_on_frozen_features_with_words_beside_it_is_a_floor_within_the_budget(config, tmp_path, most):
    """Of 1,000 numbers words take a tenth; where the head has taken all of them, there is no such floor."""
    config["budget"]["max_trainable"], roles = most, loaded(config)
    solved = [floors.of_words(config, roles, tmp_path / "floors" / "words")]
    own = {**config, "head": {"pooling": "mean", "penalty": "auto"}}
    solved.append(floors.of_features(own, set(), "mean", tmp_path / "floors" / "features-auto", Deadline.after(900)))
    beside.prepared(config, roles, solved, tmp_path)
    if most == 1_000:
        with Run(tmp_path / solved[1].run).changing() as result:
            result.parameters.trainable = most
        assert beside.of_features(solved, tmp_path, lambda path: True) is None
        return
    found = beside.of_features(solved, tmp_path, lambda path: True)
    counts = Run(tmp_path / found.run).record.parameters
    assert (found.alone, found.winner().alone) == ("floors/features-auto", "floors/features-auto")
    assert counts.trainable == found.trainable > solved[1].trainable
    assert counts.budget == most
    assert found.scores.loss < solved[1].scores.loss
    beside.put_away(tmp_path)
    assert beside.of_features(solved, tmp_path, lambda path: True) is None


def test_words_share_the_budgets_with_what_is_trained(search):
    config, folder, floor = search
    config["budget"]["max_mb"] = 2.0
    left, seconds = beside.prepared(config, loaded(config), [floor], folder)
    kept = WordClassifier.load(folder / "floors" / "beside")
    assert 0 < kept.trainable <= 2_000
    assert left["budget"]["max_trainable"] == 20_000 - kept.trainable
    assert left["budget"]["max_mb"] == pytest.approx(2.0 - kept.shipped_bytes / 1e6)
    assert seconds > 0
    assert beside.prepared(config, loaded(config), [], folder) == (config, 0.0)


def test_words_of_some_rows_stand_beside_as_they_were_counted_and_wait_for_time_for_all(search):
    config, folder, floor = search
    place = folder / "floors" / "words" / "words"
    replace(WordClassifier.load(place), fitted_on=100).save(place)
    beside.prepared(config, loaded(config), [floor], folder)
    assert WordClassifier.load(folder / "floors" / "beside").fitted_on == 100
    found = beside.with_words(trial(folder), folder, lambda path: True)
    took = Run(folder / "floors" / "words").record.timing.total_s
    assert on_all_rows(found, folder, Deadline.after(2 * took)) is found


def test_both_answer_in_one_and_the_trial_stays_as_it_was(both, news):
    folder, found = both
    before, run = Run(folder / "trial"), Run(folder / found.run)
    words = WordClassifier.load(run.adapter / "words")
    texts = loaded(run.config).validation.texts
    alone, together = rankwise.load(before), rankwise.load(run)
    assert words.weight > 0
    expected = alone.logits(texts) + words.logits(texts)
    np.testing.assert_allclose(together.logits(texts), expected, atol=1e-5)
    assert not np.allclose(together.logits(texts), alone.logits(texts), atol=1e-2)
    kept = predictions.read(run.path, "validation")
    np.testing.assert_allclose(kept.logits, expected, atol=1e-4)
    assert found.chosen == kept.correct.mean() == run.record.metrics.validation.accuracy
    assert found.chosen > before.record.metrics.validation.accuracy
    shared = rankwise.load_many([run.path, before.path])
    np.testing.assert_allclose(shared.logits(texts)[beside.FOLDER], expected, atol=1e-4)
    counts = run.record.parameters
    assert counts.trainable == before.record.parameters.trainable + words.trainable == found.trainable
    roles = load_data(
        from_dict({"data": {"train": str(news["train"]), "test": str(news["test"])}}).data, ["train", "test"]
    )
    right = (together.logits(roles.test.texts).argmax(1) == roles.test.labels).mean()
    assert rankwise.evaluate(run, [f"data.test={news['test']}"])["accuracy"] == pytest.approx(right)
    assert "plain transformers and peft read the encoder alone" in (run.adapter / "README.md").read_text()


def test_words_that_add_nothing_are_left_out(search):
    config, folder, floor = search
    beside.prepared(config, loaded(config), [floor], folder)
    place = folder / "floors" / "beside"
    words = WordClassifier.load(place)
    replace(words, coefficients=0 * words.coefficients, offsets=0 * words.offsets).save(place)
    assert beside.with_words(trial(folder), folder, lambda path: True) is None
    assert not (folder / beside.FOLDER).exists()


def test_what_is_too_slow_with_words_is_not_shipped(search):
    config, folder, floor = search
    beside.prepared(config, loaded(config), [floor], folder)
    assert beside.with_words(trial(folder), folder, lambda path: False) is None
    assert not (folder / beside.FOLDER).exists()


def test_words_are_fitted_on_all_rows_and_the_encoder_stays(both):
    folder, found = both
    again = on_all_rows(found, folder, Deadline.after(600))
    before, after = Run(folder / found.run), Run(folder / again.run)
    old, new = (WordClassifier.load(run.adapter / "words") for run in (before, after))
    assert again.refit.words
    assert after.record.metrics.validation == before.record.metrics.validation
    assert "TF-IDF beside it was fitted once more on all" in after.record.refit.note
    assert new.weight == old.weight
    texts = ["a text of two words", "match"]
    assert not np.array_equal(new.logits(texts), old.logits(texts))
    name = "adapter_model.safetensors"
    assert (after.adapter / name).read_bytes() == (before.adapter / name).read_bytes()


def test_words_that_are_lost_or_of_others_are_told(both):
    folder, found = both
    adapter = Run(folder / found.run).adapter
    details = adapter / "words" / "words.json"
    whole = details.read_text()
    first = rankwise.load(adapter).label_names[0]
    details.write_text(whole.replace(f'"{first}"', '"another"', 1))
    with pytest.raises(UserError, match="names other classes"):
        rankwise.load(adapter)
    shutil.rmtree(adapter / "words")
    with pytest.raises(UserError, match="lacks its folder words"):
        rankwise.load(adapter)


def test_an_export_and_a_merge_say_that_they_cannot_hold_words(both, tmp_path):
    from rankwise.export.subject import subject_of
    from rankwise.inference.tools import merge

    folder, found = both
    with pytest.raises(UserError, match="an export cannot hold .* TF-IDF of words answers beside"):
        subject_of(folder / found.run)
    with pytest.raises(UserError, match="a merged adapter cannot hold"):
        merge([folder / found.run, folder / "trial"], tmp_path / "merged")


def test_what_is_shared_holds_the_words(both):
    from rankwise.export.share import share

    folder, found = both
    files = share(folder / found.run, "someone/something", dry_run=True)["files"]
    assert {"words/words.json", "words/words.safetensors"} <= set(files)


def test_an_export_of_a_search_is_of_the_run_without_words(both, tmp_path, answers_here):
    folder, found = both
    record = SearchRecord(status="finished", metric="accuracy", strategy={"name": "factorial"}, winner=found)
    records.write(folder / "search.json", record)
    assert found.alone == "trial"
    told = export(folder, "merged", tmp_path / "merged")["facts"][-1]
    alone = Run(folder / "trial").record.metrics.validation.accuracy
    assert f"{alone:.4f} of the validation rows right, {found.chosen:.4f} with it" in told
    with pytest.raises(UserError, match="cannot hold"):
        export(folder / found.run, "merged", tmp_path / "other")
