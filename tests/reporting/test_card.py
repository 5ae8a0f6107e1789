"""The model card says what the run's files say, and its code works."""

import json
import re
import shutil

import numpy as np
import pytest

import rankwise
from rankwise.runs import card


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card") / "run"
    shutil.copytree(finished, folder)
    return folder


def test_states_the_runs_scores_and_counts(run):
    text = card.write(run).read_text(encoding="utf-8")
    result = json.loads((run / "result.json").read_text())
    for role in ("test", "validation"):
        scores = result["metrics"][role]
        low, high = scores["accuracy_ci95"]
        row = f"| {role} rows | 60 | {scores['accuracy']:.2%} ({100 * low:.2f} to {100 * high:.2f}) | {scores['macro_f1']:.4f}"
        assert row in text
    assert f"{result['parameters']['trainable']:,} of 20,000 allowed" in text
    assert "This run looked at these test rows once, all runs of this user together " in text
    for name, row in result["metrics"]["test"]["per_class"].items():
        assert re.search(rf"\| {name} \| [\d.–]+ \| {row['recall']:.3f} ", text)
    assert str(run.parent.parent) not in text, "paths of this machine have no place on a card"


def test_its_code_loads_in_peft_and_agrees(run):
    """The block is run as it stands; its logits are those of Rankwise."""
    block = re.findall(r"```python\n(.*?)```", card.write(run).read_text(encoding="utf-8"), re.DOTALL)[1]
    names: dict = {}
    exec(block.replace("THIS_FOLDER", str(run / "adapter")), names)
    ours = rankwise.load(run).logits(["a text"])
    np.testing.assert_allclose(names["logits"].detach().numpy(), ours, atol=1e-5)


def test_front_matter_is_yaml_that_hubs_read(run):
    import yaml

    text = card.write(run).read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front == {"library_name": "peft", "pipeline_tag": "text-classification", "tags": ["lora", "rankwise"]}


def test_a_label_with_a_bar_stays_in_its_cell(run):
    result = json.loads((run / "result.json").read_text())
    text = (run / "result.json").read_text()
    try:
        for scores in (result["metrics"]["test"], result["metrics"]["validation"]):
            scores["per_class"]["a|b"] = scores["per_class"].pop("sport")
        (run / "result.json").write_text(json.dumps(result))
        row = next(line for line in card.write(run).read_text(encoding="utf-8").splitlines() if line.startswith("| a"))
        assert row.replace("\\|", "").count("|") == 6
    finally:
        (run / "result.json").write_text(text)
