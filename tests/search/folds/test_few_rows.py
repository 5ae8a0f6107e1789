"""Where rows are few, folds choose and all rows are fitted."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import rankwise
from rankwise.baselines.words import WordClassifier
from rankwise.cli import main
from rankwise.data.folds import FOLDS, splits
from rankwise.deadline import NEVER, Deadline
from rankwise.inference.evaluate import score
from rankwise.runs.folder import Run
from rankwise.scoring import predictions
from rankwise.scoring.decisions import decide
from rankwise.scoring.goals import goal_of
from rankwise.search.after.all_rows import FOLDER
from rankwise.search.designs.contenders import DIRECTIONS, WITH_NAMES, Contender, configured, contenders, of_more_rows
from rankwise.search.floors import beside
from rankwise.search.folds import comparison, plan
from rankwise.search.folds.comparison import choose, with_words
from rankwise.search.folds.standing import Standing
from rankwise.search.folds.winner import fit_on_all, with_words_beside
from rankwise.search.request import base_tree as _base
from rankwise.search.sweep.trial import load_data
from rankwise.training import frozen_features
from rankwise.training.interrupt import stop_requests
from rankwise.training.loop import Loop
from support import sentences, write_csv


def standing(title, right, margin=1.0):
    logits = np.array([[margin, 0.0] if hit else [0.0, margin] for hit in right], dtype=np.float32)
    labels = np.zeros(len(right), dtype=np.int64)
    return Standing(Contender(title, {}), [np.arange(len(right))], [labels], [logits], ["a", "b"], 1.0)


def test_the_likeliest_is_kept_unless_another_is_better_by_more_than_chance():
    first = standing("first", [1] * 20 + [0] * 12)
    by_luck = standing("luck", [1] * 19 + [0] * 1 + [1] * 5 + [0] * 7)  # five gained, one lost: one draw in five
    better = standing("better", [1] * 26 + [0] * 6)  # six gained, none lost
    assert choose([first, by_luck], goal_of("accuracy")) is first
    assert choose([first, by_luck, better], goal_of("accuracy")) is better
    assert choose([first, standing("equal", [1] * 20 + [0] * 12, margin=0.1)], goal_of("accuracy")) is first


def test_what_the_user_fixed_is_no_contender_twice(tiny_model):
    config = rankwise.config.load({"model": {"name": str(tiny_model)}})
    titles = [one.title for one in contenders(config, set(), 32)]
    assert titles[0].startswith("contrastive")
    assert any(title.startswith("TF-IDF") for title in titles)
    assert len(titles) == 6
    fewer = contenders(config, {"head.pooling"}, 32)
    assert len(fewer) == 5, "the poolings of frozen features are one"


def test_the_same_folds_choose_how_many_contrastive_steps(tiny_model, monkeypatch, news):
    """The length that knows most at any confidence, of those that every fold came to."""
    config = rankwise.config.load({"model": {"name": str(tiny_model)}})
    contender = contenders(config, set(), 40)[0]
    assert contender.lengths == (16, 24, 32, 48, 72)
    assert contenders(config, set(), 400)[0].lengths == (16, 24, 32, 48, 72, 108)
    roles = load_data(rankwise.config.from_dict(_base(str(news["train"]), [], "20k")[0]).data, ["train"])
    parts = [(np.arange(20), np.arange(20, 40)), (np.arange(20, 40), np.arange(20))]
    folds = iter([4, 3])

    def answers(contender, tree, kept, out, names, deadline, *, longer):
        right = np.eye(len(names), dtype=np.float32)[out.labels]
        wrong = np.roll(right, 1, axis=1)
        loud, timid = np.where(np.arange(len(out))[:, None] % 4, right, wrong), right + 0.9 * wrong
        return [10 * loud, 0.1 * timid, 5 * loud, 50 * right][: next(folds)]

    monkeypatch.setattr(comparison, "_answers", answers)
    judged = comparison._judged(contender, {}, roles.train, roles.label_names, parts, NEVER)
    assert judged.contender.steps == 24
    assert judged.record().steps == 24
    assert judged.scores.accuracy == 1.0


def test_a_length_that_the_user_fixed_is_the_only_one(tiny_model):
    config = rankwise.config.load({"model": {"name": str(tiny_model)}, "train": {"steps": 5}})
    contender = contenders(config, {"train.steps"}, 40)[0]
    assert contender.lengths == (5,)
    assert contender.design["train.warmup_steps"] < 5
    tree = _base("mine.csv", [f"model.name={tiny_model}", "train.steps=5"], "20k")[0]
    assert configured(tree, contender.design, np.zeros(40))["train"]["steps"] == 5


def test_contrastive_steps_are_larger_where_the_budget_leaves_a_lower_rank():
    rates = []
    for budget in ("1M", "10M", "1000M"):
        tree, _ = _base("x.csv", ["model.name=roberta-base"], budget)
        likeliest = contenders(rankwise.config.from_dict(tree), set(), 256, ["ham", "spam"])[0]
        rates.append(likeliest.design["train.learning_rate"])
    few, more, most = rates
    assert 6e-4 >= few > 3e-4 > more > most == 1.5e-4


def test_many_classes_of_a_comparison_are_comparison(news):
    tree, fixed = _base(str(news["train"]), [], "20k")
    config = rankwise.config.from_dict(tree)

    def roles(rows, classes):
        return SimpleNamespace(train=range(rows), validation=[], label_names=[str(name) for name in range(classes)])

    assert plan.are_few(roles(616, 77), config, fixed)
    assert not plan.are_few(roles(616, 6), config, fixed)
    assert not plan.are_few(roles(10_003, 77), config, fixed)


def test_heads_of_fewer_rows_are_held_back_more(tiny_model):
    tree, _ = _base("mine.csv", [f"model.name={tiny_model}"], "20k")
    penalties = [configured(tree, {}, np.zeros(rows))["head"]["penalty"] for rows in (32, 64, 256)]
    width = rankwise.planning.encoder_of(rankwise.config.from_dict(tree).model).pooled_width
    assert penalties == [2 * width, width, width / 4]
    tree["head"]["penalty"] = 7.0
    assert configured(tree, {}, np.zeros(32))["head"]["penalty"] == 7.0


@pytest.mark.slow
def test_every_row_is_fitted_after_folds_have_chosen(tiny_model, tmp_path, capsys):
    train, test = write_csv(tmp_path / "few.csv", sentences(30, 0)), write_csv(tmp_path / "test.csv", sentences(60, 1))
    out, words = tmp_path / "a", [f"model.name={tiny_model}", f"data.test={test}"]
    assert main(["auto", str(train), *words, "--max-params", "20k", "--max-minutes", "10", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    record = json.loads((out / "search.json").read_text())
    folds = {one["design"]: one for one in record["auto"]["folds"]}
    assert len(folds) == 7
    assert all(one["examples"] == 30 for one in folds.values())
    winner = record["winner"]
    assert winner["run"] == FOLDER
    assert winner["chosen"] == folds[winner["point"]["design"]]["accuracy"]
    assert winner["test"]["accuracy"] > 0.8
    assert winner["test"]["looks"] == 1
    assert winner["trainable"] <= 20_000
    assert "5 of 5 folds choose" in shown
    assert "by folds, of 30 rows" in shown
    run = json.loads((out / FOLDER / "result.json").read_text())
    assert run["data"]["train"]["rows"] == 30
    assert (run["metrics"]["validation"]["folds"], run["metrics"]["validation"]["examples"]) == (5, 30)
    assert any("by 5 folds on 30 rows" in note for note in run["notes"])
    assert rankwise.load(out).predict(["the striker scored a goal for the team"]) == ["sport"]
    assert main(["report", str(out)]) == 0
    assert main(["evaluate", str(out), "--json"]) == 0
    assert main(["auto", str(train), *words, "--out", str(out)]) == 2
    assert "holds a finished search" in capsys.readouterr().err
    before = (out / "search.json").read_bytes()
    assert main(["auto", str(train), *words, "--out", str(out), "--resume"]) == 0
    assert (out / "search.json").read_bytes() == before


@pytest.mark.parametrize(
    ("word", "few"),
    [(None, True), ("data.validation_size=5", False), ("train.refit_steps=5", False), ("data.validation=FILE", False)],
)
def test_rows_that_the_user_set_apart_choose_whatever_their_number(news, word, few):
    words = [] if word is None else [word.replace("FILE", str(news["validation"]))]
    tree, fixed = _base(str(news["train"]), words, "20k", "accuracy")
    config = rankwise.config.from_dict(tree)
    roles = load_data(config.data, ["train", "validation", "test"])
    assert plan.are_few(roles, config, fixed) is few


def test_names_that_are_words_are_texts_where_frozen_features_know_more_by_them(tiny_model):
    config = rankwise.config.load({"model": {"name": str(tiny_model)}})
    titles = {
        words: [one.title for one in contenders(config, set(), 32, words)] for words in (("ham", "spam"), ("0", "1"))
    }
    assert WITH_NAMES in titles["ham", "spam"]
    assert WITH_NAMES not in titles["0", "1"]
    likeliest = contenders(config, set(), 32)[0]
    plain, better, worse = (standing(str(hits), [1] * hits + [0] * (32 - hits)) for hits in (24, 28, 20))
    found = {DIRECTIONS: plain, WITH_NAMES: better}
    with_names = comparison._with_names_that_help(likeliest, found)
    assert with_names.design == {**likeliest.design, "data.name_texts": True}
    assert with_names.lengths == likeliest.lengths
    assert comparison._with_names_that_help(likeliest, {**found, WITH_NAMES: worse}) is likeliest
    assert comparison._with_names_that_help(likeliest, {DIRECTIONS: plain}) is likeliest


def test_asked_to_stop_in_its_last_run_it_ends_with_the_steps_taken(tiny_model, tmp_path, monkeypatch):
    rows = write_csv(tmp_path / "few.csv", sentences(30, 0))
    tree = _base(str(rows), [f"model.name={tiny_model}"], "20k")[0]
    config = rankwise.config.from_dict(tree)
    roles = load_data(config.data, ["train"])
    contender = contenders(config, set(), len(roles.train))[0]
    answers = np.eye(len(roles.label_names), dtype=np.float32)[roles.train.labels]
    everyone = np.arange(len(answers))
    judged = Standing(contender, [everyone], [roles.train.labels], [answers], roles.label_names, 1.0)
    take = Loop._train_step

    def taken(loop):
        take(loop)
        if loop.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Loop, "_train_step", taken)
    with stop_requests() as stop:
        winner = fit_on_all(judged, tree, tmp_path / "search", Deadline.after(600))
        assert stop.requested
    run = Run(tmp_path / "search" / winner.run)
    assert run.record.status == "stopped_early"
    assert run.record.timing.steps == 3
    assert rankwise.load(run).predict(["the striker scored a goal"])


def weak(rows, names, folds=2, margin=0.2, seed=0):
    """A standing whose logits know a little of each row that a fold holds out."""
    parts = splits(rows.labels, FOLDS, seed)[:folds]
    noise = np.random.default_rng(0)
    logits = [
        (margin * np.eye(len(names))[rows.labels[out]] + 0.3 * noise.normal(size=(len(out), len(names)))).astype("f4")
        for _, out in parts
    ]
    contender = Contender("frozen features", {"adapter.method": "probe"})
    held_out = [out for _, out in parts]
    return Standing(contender, held_out, [rows.labels[out] for out in held_out], logits, names, 1.0)


def test_a_head_that_folds_chose_is_fitted_on_all_rows_however_late(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(frozen_features, "_AT_ONCE", 8)
    tree = _base(str(write_csv(tmp_path / "few.csv", sentences(80, 0))), [f"model.name={tiny_model}"], "20k")[0]
    roles = load_data(rankwise.config.from_dict(tree).data, ["train", "test"])
    winner = fit_on_all(weak(roles.train, roles.label_names), tree, tmp_path, Deadline.after(-1))
    assert Run(tmp_path / winner.run).config.head.probe_rows is None


@pytest.fixture
def with_words_there(tiny_model, tmp_path):
    rows = write_csv(tmp_path / "few.csv", sentences(80, 0))
    tree = _base(str(rows), [f"model.name={tiny_model}"], "20k")[0]
    roles = load_data(rankwise.config.from_dict(tree).data, ["train", "test"])
    left = beside.of_all_rows(tree, roles.train, roles.label_names, tmp_path, NEVER)
    return left, roles.train, roles.label_names, tmp_path


def test_words_stand_beside_what_folds_chose_where_rows_of_other_folds_say_so(with_words_there):
    tree, rows, names, folder = with_words_there
    alone = weak(rows, names)
    both, weight = with_words(alone, rows, folder)
    assert both.calibrated_loss < alone.calibrated_loss
    assert both.folds == 2
    winner = fit_on_all(alone, tree, folder, NEVER)
    found = with_words_beside(winner, both, weight, folder, lambda path: True)
    words = WordClassifier.load(Run(folder / found.run).adapter / "words")
    texts = rows.texts[:20]
    expected = rankwise.load(folder / winner.run).logits(texts) + words.logits(texts)
    np.testing.assert_allclose(rankwise.load(folder / found.run).logits(texts), expected, atol=1e-5)
    assert words.weight == weight
    assert (found.chosen, found.alone, found.trainable <= 20_000) == (both.scores.accuracy, winner.run, True)
    assert found.point["design"] == both.contender.title
    both.keep(Run(folder / found.run), rows)
    kept = predictions.read(Run(folder / found.run).path, "validation")
    assert kept.correct.mean() == both.scores.accuracy == Run(folder / found.run).record.metrics.validation.accuracy
    assert main(["calibrate", str(folder / found.run)]) == 0
    (note,) = [note for note in Run(folder / found.run).record.notes if "folds" in note]
    assert note.startswith(f"accuracy {both.scores.accuracy:.4f}")
    assert with_words_beside(winner, both, weight, folder, lambda path: False) is None


def test_words_that_say_nothing_of_other_rows_do_not_stand_beside(with_words_there):
    _, rows, names, folder = with_words_there
    chance = replace(rows, labels=np.random.default_rng(1).permutation(rows.labels))
    assert with_words(weak(chance, names), chance, folder) is None
    by_words = replace(weak(rows, names), contender=Contender("TF-IDF", None))
    assert with_words(by_words, rows, folder) is None


def test_of_a_dozen_rows_some_weight_always_looks_better():
    """Words that know nothing are seldom taken; those that know the rows always are."""
    taken = []
    for seed in range(30):
        chance = np.random.default_rng(seed)
        labels = chance.integers(0, 4, 14)
        own, noise = np.eye(4)[labels] + chance.normal(size=(14, 4)), chance.normal(size=(14, 4))
        taken.append(beside.weight_that_helps(own, noise, labels) is not None)
        assert beside.weight_that_helps(own, 3 * np.eye(4)[labels], labels)
    assert sum(taken) < 10


GOAL = "recall@precision=0.9:sport"


def test_a_threshold_is_fitted_on_what_folds_say_and_stands_in_what_is_shipped(tiny_model, tmp_path):
    rows_of = write_csv(tmp_path / "few.csv", sentences(80, 0))
    tree, fixed = _base(str(rows_of), [f"model.name={tiny_model}"], "20k", GOAL)
    config = rankwise.config.from_dict(tree)
    roles = load_data(config.data, ["train", "test"])
    rows, names = roles.train, roles.label_names
    assert plan.are_few(replace_roles(rows, names), config, fixed)
    alone = replace(weak(rows, names, folds=5), goal=goal_of(GOAL))
    logits, labels = np.concatenate(alone.logits), np.concatenate(alone.labels)
    assert alone.decision == goal_of(GOAL).decision(logits, labels, names)
    beside.of_all_rows(tree, rows, names, tmp_path, NEVER)
    both, weight = with_words(alone, rows, tmp_path)
    for chosen in (alone, replace(alone, contender=Contender("TF-IDF", None))):
        winner = fit_on_all(chosen, tree, tmp_path, NEVER)
        assert winner.mean == alone.value
        answering(tmp_path / winner.run, chosen)
        if chosen is alone:
            found = with_words_beside(winner, both, weight, tmp_path, lambda path: True)
            both.keep(Run(tmp_path / found.run), rows)
            answering(tmp_path / found.run, both)


def replace_roles(rows, names):
    return SimpleNamespace(train=rows, validation=[], label_names=names)


def answering(folder, standing):
    """The folder, loaded again, decides as the standing says, and its record has what folds said by that."""
    run, loaded = Run(folder), rankwise.load(folder)
    decision = standing.decision
    assert run.record.decision == decision
    assert loaded.decision == decision
    kept = predictions.read(folder, "validation")
    np.testing.assert_array_equal(kept.predicted, decide(decision, kept.logits, kept.label_names, multi_label=False))
    assert run.record.metrics.validation.goal.value == standing.scores.goal.value


def test_another_than_the_likeliest_wins_by_the_goal_where_rows_drawn_again_say_so():
    """Recall of a class in ten, of which accuracy hardly knows."""
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    goal = goal_of("recall@precision=0.9:rare")

    def of(right_of_rare, noise=0):
        score = np.where(labels == 1, -1.0, -2.0 + noise * np.sin(np.arange(400)))
        score[np.flatnonzero(labels)[:right_of_rare]] = 2.0
        score[(np.cumsum(labels) > right_of_rare) & (labels == 1)] = -9.0
        logits = np.stack([np.zeros(400), score], axis=1).astype(np.float32)
        return Standing(
            Contender(str(right_of_rare), {}), [np.arange(400)], [labels], [logits], ["usual", "rare"], 1.0, goal
        )

    first, better, no_better = of(20), of(25), of(21)
    assert (first.value, better.value) == (0.5, 0.625)
    assert choose([first, better], goal) is better
    assert choose([first, no_better], goal) is first


def test_of_several_labels_heads_and_words_answer_for_the_same_folds(tiny_model, tmp_path):
    """Where pairs are none, few rows ask the clock; what folds chose decides by thresholds of every label."""
    first, second = sentences(60, 0), sentences(60, 1)
    texts = [
        (f"{a} {b}", "|".join(sorted({x, y}))) for (a, x), (b, y) in zip(first, second[7:] + second[:7], strict=True)
    ]
    words = [f"model.name={tiny_model}", "data.multi_label=true"]
    tree, fixed = _base(str(write_csv(tmp_path / "several.csv", texts)), words, "20k")
    config = rankwise.config.from_dict(tree)
    roles = load_data(config.data, ["train", "test"])
    assert plan.can_be_folded(config, fixed)
    assert not plan.are_few(replace_roles(roles.train, roles.label_names), config, fixed)
    quick = [one for one in of_more_rows(fixed, 6) if one.is_quick]
    found = comparison.compared(quick, tree, roles.train, roles.label_names, NEVER, folds=2)
    assert len(found) == 3
    assert all(one.right.shape == (24,) and one.scores.subset_accuracy == one.right.mean() for one in found)
    assert min(one.calibrated_loss for one in found) < np.log(2)
    winner = fit_on_all(found[0], tree, tmp_path, NEVER)
    assert Run(tmp_path / winner.run).record.decision == found[0].decision
    assert len(rankwise.load(tmp_path / winner.run).predict(roles.train.texts[:3])) == 3
    single = _base(str(tmp_path / "several.csv"), words[:1], "20k")[0]
    widths = [
        configured(one, {}, labels)["head"]["penalty"]
        for one, labels in ((tree, np.zeros((60, 3))), (single, np.zeros(60)))
    ]
    assert widths[1] == pytest.approx(3 * widths[0])


def test_words_that_take_away_surprise_and_right_answers_do_not_stand_beside(monkeypatch):
    """Of 30 rows they once cost fourteen points of test rows."""
    one = standing("first", [1] * 30 + [0] * 10)
    one.logits[0][30:, 1] = 6.0
    said = np.zeros((40, 2), dtype=np.float32)
    said[:6, 1], said[30:, 0] = 1.2, 2.5
    monkeypatch.setattr(beside, "of_folds", lambda *_: [said])
    monkeypatch.setattr(beside, "titled", lambda title, _: title)
    own, labels = one.logits[0], one.labels[0]
    weight = beside.weight_that_helps(own, said, labels)
    assert weight is not None
    assert ((own + weight * said).argmax(1) == labels).sum() < 30
    assert with_words(one, None, None) is None
    said[:6, 1] = 0.0
    assert with_words(one, None, None) is not None


def test_words_alone_know_which_rows_they_were_fitted_on(tiny_model, tmp_path):
    """So that an evaluation can say whether test rows repeat some of them."""
    rows = write_csv(tmp_path / "few.csv", sentences(40, 0))
    tree = _base(str(rows), [f"model.name={tiny_model}"], "20k")[0]
    roles = load_data(rankwise.config.from_dict(tree).data, ["train", "test"])
    standing = replace(weak(roles.train, roles.label_names), contender=Contender("words", None))
    winner = fit_on_all(standing, tree, tmp_path / "auto", NEVER)
    again = write_csv(tmp_path / "again.csv", sentences(40, 0))
    scores = score(tmp_path / "auto" / winner.run, [f"data.test={again}"])
    assert not [note for note in scores.notes if "cannot be read" in note]
    assert [note for note in scores.notes if "flatters" in note]
