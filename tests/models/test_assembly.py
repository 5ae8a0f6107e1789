"""What the engine trains is read and drawn without transformers and peft, bit for bit as they make it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from rankwise import config as configuration
from rankwise.errors import UserError
from rankwise.models import adapter_file, assemble
from rankwise.models.classifier import ReferenceClassifier, classifier_of, logits_of
from rankwise.models.fresh import assembled

from .conftest import HAS_DENSE, TINY
from .test_pooling import texts

LABELS = ["art", "business", "sport"]
FAMILIES = [*TINY, *(f"{name}-bare" for name in HAS_DENSE)]
CASES = [
    "head.kind=full adapter.scope=all",
    "head.kind=output adapter.dora=true adapter.rslora=true adapter.alpha=7",
    "head.kind=low_rank adapter.init=gaussian adapter.rank_pattern={'query':3} adapter.alpha_pattern={'value':5}",
    "head.pooling=mean adapter.dropout=0.1",
    "head.pooling=both adapter.method=head",
    "adapter.method=probe",
    "model.random_weights=true",
]
BIASES = ["adapter.bias=lora_only", "adapter.bias=all head.kind=low_rank", "adapter.method=bitfit head.kind=output"]


def both(folder, case, labels=LABELS):
    """The same configuration put together here, and by transformers and peft."""
    tree = {"model": {"name": str(folder), "precision": "fp32"}, "adapter": {"rank": 2}, "train": {"seed": 7}}
    config = configuration.load(tree, ["budget.max_trainable=null", *case.split()])
    ours = assembled(config, len(labels), labels)
    assert ours.model is None
    return ours, assemble.build(config, len(labels), labels).assembly


def assert_same(ours, theirs):
    for kind in ("trainable", "frozen", "initial"):
        mine, other = getattr(ours, kind), getattr(theirs, kind)
        assert list(mine) == list(other)
        for name in mine:
            assert torch.equal(mine[name], other[name]), name
    assert ours.base_name == theirs.base_name


@pytest.mark.sampled(24)
@pytest.mark.parametrize("case", CASES + BIASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_begins_as_theirs(family, case, folders, tmp_path):
    if family.startswith("modernbert") and case in BIASES:
        pytest.skip("its layers have no biases")
    ours, theirs = both(folders[family], case)
    assert_same(ours, theirs)
    for one, name in ((ours, "ours"), (theirs, "theirs")):
        adapter_file.save(one, tmp_path / name)
    mine, other = (LoraConfig.from_pretrained(str(tmp_path / name)).to_dict() for name in ("ours", "theirs"))
    assert mine == other
    network = classifier_of(ours, ours.plan.config, pad_token_id=1).eval()
    reference = ReferenceClassifier(theirs.model.eval(), pad_token_id=1, precision="fp32")
    rows = [text % 60 for text in texts()]
    torch.testing.assert_close(
        torch.from_numpy(logits_of(network, rows, 6)), torch.from_numpy(logits_of(reference, rows, 6))
    )
    assert {id(value) for value in network.parameters()} == {id(value) for value in ours.trainable.values()}


@pytest.mark.parametrize("said", [None, "dtype", "torch_dtype"])
def test_a_head_is_drawn_in_the_precision_of_the_files(said, folders, tmp_path):
    shutil.copytree(folders["bert-bare"], tmp_path / "half")
    weights = load_file(tmp_path / "half" / "model.safetensors")
    half = {name: value.half() for name, value in weights.items()}
    save_file(half, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    path = tmp_path / "half" / "config.json"
    shape = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("dtype", "torch_dtype")}
    path.write_text(json.dumps(shape | ({said: "bfloat16"} if said else {})))
    assert_same(*both(tmp_path / "half", "head.kind=full"))


def test_a_head_of_as_many_classes_is_taken_over(folders, tmp_path):
    ours, theirs = both(folders["bert"], "head.kind=full", labels=LABELS[:2])
    assert_same(ours, theirs)
    weights = load_file(folders["bert"] / "model.safetensors")
    assert torch.equal(ours.trainable["classifier.weight"], weights["classifier.weight"])


def test_shards_are_one_model(folders, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(folders["roberta"]).save_pretrained(tmp_path / "shards", max_shard_size="8kB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    assert_same(*both(tmp_path / "shards", "head.kind=full"))


def test_weights_of_another_shape_are_refused(folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "mixed")
    path = tmp_path / "mixed" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 3}))
    tree = {"model": {"name": str(tmp_path / "mixed")}, "adapter": {"rank": 2}}
    with pytest.raises(UserError, match=r"lack 'bert\.encoder\.layer\.2.*do not belong together"):
        assembled(configuration.from_dict(tree), 3, LABELS)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_what_decomposes_weights_is_pefts(init, folders):
    tree = {"model": {"name": str(folders["bert"])}, "adapter": {"rank": 2, "init": init}}
    assert assembled(configuration.from_dict(tree), 3, LABELS).model is not None


PROGRAM = """
import sys
import rankwise
tree = {"model": {"name": sys.argv[1]}, "adapter": {"rank": 2}, "budget": {"max_trainable": None},
        "data": {"train": sys.argv[2], "validation": sys.argv[3]}, "train": {"steps": 2, "batch_size": 4}}
run = rankwise.train(tree, out=sys.argv[4])
rankwise.load(run).predict(["the team"])
assert run.result["engine"]["path"] == "fast"
sys.exit(" ".join({"peft", "transformers", "torch._dynamo", "sympy"} & sys.modules.keys()) or 0)
"""


def test_training_and_answers_import_no_library_that_they_do_not_need(tiny_model, news, tmp_path):
    from rankwise.models import tokenizer_of

    tokenizer_of(tiny_model)  # made by transformers once, and kept
    words = [str(tiny_model), str(news["train"]), str(news["validation"]), str(tmp_path / "run")]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
