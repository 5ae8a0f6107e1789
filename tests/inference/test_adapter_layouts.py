"""Adapter folders as people leave them: peft's own logits, or one sentence that says what the folder is."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    OFTConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    RandLoraConfig,
    ShiraConfig,
    VBLoRAConfig,
    VeraConfig,
)
from safetensors.torch import load_file, save_file

import rankwise
from rankwise.errors import UserError
from rankwise.inference import saved
from rankwise.inference.classifier import why_not_fast

SITES = "bert.encoder.layer.{}.attention.self.{}"
AS_PEFT = {
    "plain": {},
    "heads named over and over": {"modules_to_save": ["classifier", "score", "classifier"]},
    "full paths of one layer": {"target_modules": [SITES.format(1, "query"), SITES.format(0, "key")]},
    "a regular expression": {"target_modules": r".*layer\.1\.attention\.self\.(query|value)"},
    "one layer by number": {"layers_to_transform": [1]},
    "one layer by pattern": {"layers_to_transform": 0, "layers_pattern": "layer"},
    "all but the key": {"target_modules": r".*attention\.self\.(query|key|value)", "exclude_modules": ["key"]},
    "every linear layer": {"target_modules": "all-linear"},
    "mixed ranks": {"rank_pattern": {"layer.1.attention.self.query": 2}, "alpha_pattern": {"query": 12}},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora with all biases": {"use_dora": True, "bias": "all"},
    "biases of adapted layers": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "the word embedding whole": {"modules_to_save": ["word_embeddings", "classifier"]},
    "the word embedding adapted": {"target_modules": ["query", "word_embeddings"]},
    "the pooler adapted": {"target_modules": ["query", "pooler.dense"]},
    "dora on the pooler": {"target_modules": ["query", "pooler.dense"], "use_dora": True},
    "a bias on B": {"lora_bias": True},
    "no task, the head named": {"task_type": None, "modules_to_save": ["classifier"]},
    "no task, the base's head": {"task_type": None},
    "pissa, which changes its base": {"init_lora_weights": "pissa"},
    "norms saved whole": {"modules_to_save": ["classifier", "LayerNorm"]},
    "two tokens trained": {"trainable_token_indices": {"word_embeddings": [7, 9]}},
    "loha": {"kind": LoHaConfig, "r": 4, "alpha": 4, "target_modules": ["query"]},
    "lokr": {"kind": LoKrConfig, "r": 4, "alpha": 4, "target_modules": ["query"]},
    "oft": {"kind": OFTConfig, "oft_block_size": 4, "target_modules": ["query"]},
    "adalora": {"kind": AdaLoraConfig, "init_r": 4, "r": 8, "total_step": 10, "target_modules": ["query", "value"]},
    "ia3": {"kind": IA3Config, "target_modules": ["key", "output.dense"], "feedforward_modules": ["output.dense"]},
    "vera": {"kind": VeraConfig, "r": 4, "target_modules": ["query", "value"]},
    "randlora": {"kind": RandLoraConfig, "r": 4, "target_modules": ["query", "value"]},
    "vblora": {
        "kind": VBLoRAConfig,
        "r": 4,
        "num_vectors": 16,
        "vector_length": 8,
        "target_modules": ["query", "value"],
    },
    "shira": {"kind": ShiraConfig, "r": 4, "target_modules": ["query", "value"]},
    "prompt": {"kind": PromptTuningConfig, "num_virtual_tokens": 3},
    "prefix": {"kind": PrefixTuningConfig, "num_virtual_tokens": 3},
}
AS_PEFT |= {  # of kinds that the oldest PEFT read here has not
    name: {"kind": getattr(peft, name), "target_modules": ["query", "value"]}
    for name in ("PveraConfig", "TinyLoraConfig", "UniLoraConfig", "FrodConfig")
    if hasattr(peft, name)
}


ENGINES = ("auto", "reference")


@pytest.fixture(scope="module")
def of_another(adapters, texts):
    """What an adapter says that none of those below is."""
    return rankwise.load(adapters(target_modules=["query"], r=1), precision="fp32").logits(texts)


@pytest.mark.parametrize("kind", AS_PEFT)
def test_pefts_own_logits(adapt, peft_logits, texts, kind, of_another):
    folder = adapt(**AS_PEFT[kind])
    expected = peft_logits(folder)
    for engine in ENGINES:
        ours = rankwise.load(folder, precision="fp32", engine=engine)
        np.testing.assert_allclose(ours.logits(texts), expected, rtol=1e-4, atol=1e-4, err_msg=engine)
        assert ours.label_names == ["sport", "business", "science"]
    assert np.abs(of_another - expected).max() > 1e-3


@pytest.mark.parametrize(
    "kind", ["plain", "dora", "all biases", "mixed ranks", "the pooler adapted", "every linear layer"]
)
def test_the_engine_reads_lora_itself(adapt, kind):
    assert why_not_fast(saved.read(adapt(**AS_PEFT[kind]))) is None


RESPELT = {
    "a compiled model's": lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."),
    "a compiled peft model's": lambda key: f"_orig_mod.{key}",
    "a parallel model's": lambda key: f"module.{key}",
    "without peft's prefix": lambda key: key.removeprefix("base_model.model."),
    "the adapter's name left in": lambda key: key.replace("lora_A.weight", "lora_A.default.weight").replace(
        "lora_B.weight", "lora_B.mine.weight"
    ),
    "the head's wrapper left in": lambda key: key.replace("classifier.", "classifier.modules_to_save.default."),
}


@pytest.mark.parametrize("spelling", RESPELT)
def test_keys_spelt_otherwise_are_read(adapt, rewrite, peft_logits, texts, spelling):
    folder = adapt()
    change = RESPELT[spelling]
    other = rewrite(folder, "other", lambda found: {change(key): value for key, value in found.items()})
    assert (
        load_file(other / "adapter_model.safetensors").keys() != load_file(folder / "adapter_model.safetensors").keys()
    )
    expected = peft_logits(folder)
    for engine in ENGINES:
        ours = rankwise.load(other, precision="fp32", engine=engine).logits(texts)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4, err_msg=engine)


def renamed(old, new):
    return lambda found: {key.replace(old, new): value for key, value in found.items()}


def changed(part, change):
    return lambda found: {key: change(value) if part in key else value for key, value in found.items()}


def without(part):
    return lambda found: {key: value for key, value in found.items() if part not in key}


NAN, INF = (lambda value, number=number: value.index_fill(0, torch.tensor([0]), number) for number in (np.nan, np.inf))
REFUSED = {
    "another base's prefix": (renamed("bert.", "roberta."), {}, "roberta.encoder.layer.0.*matches nothing"),
    "deeper layers": (renamed("layer.1.", "layer.9."), {}, r"layer\.9\..*matches nothing"),
    "a wrapper's": (
        renamed("bert.encoder", "encoder.encoder"),
        {},
        "encoder.encoder.layer.*no text encoder known here",
    ),
    "a decoder's": (
        renamed("bert.encoder.layer.0.attention.self.query", "transformer.h.0.attn.c_attn"),
        {},
        "transformer.h.0.attn.c_attn.*no text encoder known here",
    ),
    "an image model's": (renamed("bert.", "vit."), {}, "vit.encoder.layer.*no text encoder known here"),
    "a decoder's head": (renamed("classifier.weight", "score.weight"), {}, "trains 'score'.*a decoder"),
    "a tensor of no kind": (
        lambda found: found | {f"base_model.model.{SITES.format(0, 'query')}.extra": torch.ones(2)},
        {},
        "query.extra'",
    ),
    "a wider base's": (
        changed("lora_A", lambda value: value.repeat(1, 2)),
        {},
        r"of shape \(4, 64\).*ask for \(4, 32\)",
    ),
    "a head of another width": (changed("classifier.weight", lambda value: value[:, :16]), {}, r"of shape \(3, 16\)"),
    "NaN in a weight": (changed("layer.0.attention.self.query.lora_B", NAN), {}, "not finite.*query.lora_B"),
    "infinity in the head": (changed("classifier.weight", INF), {}, "not finite.*classifier.weight"),
    "a rank that contradicts": (lambda found: found, {"r": 16}, r"of shape \(4, 32\).*ask for \(16, 32\)"),
    "an update not targeted": (lambda found: found, {"target_modules": ["query"]}, "value.*does not name"),
    "an update that is missing": (lambda found: found, {"target_modules": ["query", "value", "key"]}, "lacks.*key"),
    "half an update": (without("layer.0.attention.self.query.lora_B"), {}, "lacks.*query.lora_B"),
    "no head": (without("classifier"), {}, "lacks 'classifier.weight'"),
    "a magnitude too many": (
        lambda found: found | {f"base_model.model.{SITES.format(0, 'query')}.lora_magnitude_vector": torch.ones(32)},
        {},
        "use_dora",
    ),
    "dora without magnitudes": (lambda found: found, {"use_dora": True}, "lacks.*lora_magnitude_vector"),
    "whole numbers": (changed("lora_B", lambda value: value.to(torch.int8)), {}, r"whole numbers \(I8\)"),
    "a rank below one": (lambda found: found, {"r": -4}, r"no configuration of LoRA: .*>= 1.*\$\.r"),
    "no rank": (lambda found: found, {"r": None}, r"no configuration of LoRA: .*\$\.r"),
    "an alpha in words": (
        lambda found: found,
        {"lora_alpha": "sixteen"},
        r"no configuration of LoRA: .*\$\.lora_alpha",
    ),
    "an alpha without end": (lambda found: found, {"lora_alpha": float("inf")}, "alpha is not finite"),
    "an alpha that is no number": (
        lambda found: found,
        {"alpha_pattern": {"query": float("nan")}},
        "alpha is not finite",
    ),
    "a regression": (changed("classifier", lambda value: value[:1]), {}, "gives one number a text"),
    "a kind that nobody knows": (lambda found: found, {"peft_type": "FOO"}, "knows no adapter of the kind FOO"),
    "a kind of several tasks": (lambda found: found, {"peft_type": "POLY"}, "asks which one a text is of"),
    "a broken expression": (lambda found: found, {"target_modules": "(query"}, "no regular expression"),
    "a broken name": (lambda found: found, {"modules_to_save": ["("]}, r"'\(' is no regular expression"),
    "a broken pattern": (lambda found: found, {"rank_pattern": {"(": 2}}, r"'\(' is no regular expression"),
    "modules that are a number": (lambda found: found, {"target_modules": 5}, r"no configuration .*\$\.target_modules"),
    "saved modules that are one": (lambda found: found, {"modules_to_save": 5}, r"no configuration .*modules_to_save"),
    "tokens": (lambda found: found, {"task_type": "TOKEN_CLS"}, "another task: task_type TOKEN_CLS labels tokens"),
    "questions": (lambda found: found, {"task_type": "QUESTION_ANS"}, "another task: task_type QUESTION_ANS"),
    "embeddings": (lambda found: found, {"task_type": "FEATURE_EXTRACTION"}, "another task"),
    "a writer": (lambda found: found, {"task_type": "SEQ_2_SEQ_LM"}, "another task"),
    "no base": (
        lambda found: found,
        {"base_model_name_or_path": None},
        "its base is not known: name the base's folder",
    ),
    "a base elsewhere": (
        lambda found: found,
        {"base_model_name_or_path": "/kaggle/input/bert/1"},
        "no folder '/kaggle/input/bert/1'; name the base's folder with base=FOLDER",
    ),
}


@pytest.mark.parametrize("kind", ["plain", "norms saved whole", "ia3"])
def test_a_kind_and_a_task_in_small_letters_are_read(adapt, rewrite, peft_logits, texts, kind):
    folder = adapt(**AS_PEFT[kind])
    written = json.loads((folder / "adapter_config.json").read_text())
    other = rewrite(folder, "other", **{key: written[key].lower() for key in ("peft_type", "task_type")})
    ours = rankwise.load(other, precision="fp32").logits(texts)
    np.testing.assert_allclose(ours, peft_logits(folder), rtol=1e-4, atol=1e-4)


def test_numbers_of_eight_bits_are_read(adapt, rewrite, texts):
    folder = adapt()
    rounded = rewrite(folder, "rounded", changed("lora", lambda value: value.to(torch.float8_e4m3fn).float()))
    small = rewrite(folder, "small", changed("lora", lambda value: value.to(torch.float8_e4m3fn)))
    assert np.array_equal(rankwise.load(small).logits(texts), rankwise.load(rounded).logits(texts))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_configuration_that_an_editor_marked_is_read(adapt, texts, encoding):
    folder = adapt()
    before = rankwise.load(folder).logits(texts)
    path = folder / "adapter_config.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert np.array_equal(rankwise.load(folder).logits(texts), before)


@pytest.mark.parametrize("fault", REFUSED)
def test_what_does_not_belong_together_is_refused_in_a_sentence(adapt, rewrite, fault):
    tensors, config, sentence = REFUSED[fault]
    folder = rewrite(adapt(), "other", tensors, **config)
    for engine in ("auto", "reference"):
        with pytest.raises(UserError, match=sentence):
            rankwise.load(folder, engine=engine)


def test_a_head_that_nobody_saved_is_refused(adapt, base, tmp_path, rewrite):
    shutil.copytree(base, tmp_path / "bare")
    path = tmp_path / "bare" / "model.safetensors"
    save_file(without("classifier")(load_file(path)), path, metadata={"format": "pt"})
    folder = adapt(task_type=None)
    with pytest.raises(UserError, match="holds no 'classifier': its head was not saved"):
        rankwise.load(folder, base=tmp_path / "bare")
    save_file(without("pooler")(load_file(path)), path, metadata={"format": "pt"})
    for engine in ("auto", "reference"):  # a pooler made at random would answer at random
        with pytest.raises(UserError, match=r"neither .* nor its base .* holds 'bert.pooler.dense.weight'"):
            rankwise.load(adapt("with head", modules_to_save=["classifier"]), base=tmp_path / "bare", engine=engine)


def test_weights_that_are_no_safetensors_are_named(adapt):
    folder = adapt()
    weights = folder / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    with pytest.raises(UserError, match="is cut short"):
        rankwise.load(folder)
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="adapter_model.safetensors is a pointer of Git LFS"):
        rankwise.load(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="adapter_model.bin is a pointer of Git LFS"):
        rankwise.load(folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(UserError, match=f"a pickle.*rankwise adapters convert {folder}"):
        rankwise.load(folder)
    (folder / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match=r"holds no adapter_model\.safetensors"):
        rankwise.load(folder)


def test_configurations_that_are_none_are_named(adapt):
    folder = adapt()
    config = folder / "adapter_config.json"
    config.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="adapter_config.json is a pointer of Git LFS"):
        rankwise.load(folder)
    config.write_text("{")
    with pytest.raises(UserError, match="adapter_config.json is not valid JSON"):
        rankwise.load(folder)
    config.write_text("[]")
    with pytest.raises(UserError, match="holds no object"):
        rankwise.load(folder)
    config.write_text(
        json.dumps({"config": {"architecture": "pfeiffer"}, "hidden_size": 32, "model_class": "BertModel"})
    )
    with pytest.raises(UserError, match="AdapterHub"):
        rankwise.load(folder)


def test_a_folder_around_adapters(adapt, tmp_path, texts):
    folder = adapt()
    expected = rankwise.load(folder).logits(texts)
    around = tmp_path / "output"
    shutil.copytree(folder, around / "checkpoint-500")
    assert np.array_equal(rankwise.load(around).logits(texts), expected)
    shutil.copytree(folder, around / "checkpoint-1000")
    with pytest.raises(UserError, match="holds 2 adapters: name one of .*checkpoint-1000, .*checkpoint-500"):
        rankwise.load(around)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no adapter_config\.json"):
        rankwise.load(tmp_path / "empty")
    with pytest.raises(UserError, match="does not exist"):
        rankwise.load(tmp_path / "absent")


def test_a_tokenizer_and_an_embedding_that_grew(base, tmp_path, texts):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["goalgoal", "bankbank"])
    model = AutoModelForSequenceClassification.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    peft = get_peft_model(
        model, LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    ).eval()
    peft.save_pretrained(tmp_path / "grown", save_embedding_layers=True)
    tokenizer.save_pretrained(tmp_path / "grown")
    rows = [*texts, "goalgoal bankbank the"]
    batch = tokenizer(rows, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = peft(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    for engine in ("auto", "reference"):
        ours = rankwise.load(tmp_path / "grown", precision="fp32", engine=engine)
        np.testing.assert_allclose(ours.logits(rows), expected, rtol=1e-4, atol=1e-4)


def test_a_tokenizer_larger_than_the_embedding_is_refused_with_both_sizes(adapt, base):
    from transformers import AutoTokenizer

    folder, tokenizer = adapt(), AutoTokenizer.from_pretrained(base)
    rows = len(tokenizer)
    tokenizer.add_tokens(["goalgoal", "bankbank"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=f"knows {rows + 2} tokens, the model's embedding has {rows} rows"):
        rankwise.load(folder)


NAMED = {
    "the base's": (lambda folder: None, ["sport", "business", "science"]),
    "a config.json beside it": (
        lambda folder: (folder / "config.json").write_text(json.dumps({"id2label": {"2": "c", "0": "z", "1": "a"}})),
        ["z", "a", "c"],
    ),
    "names to numbers": (
        lambda folder: (folder / "label_mapping.json").write_text(json.dumps({"late": 2, "early": 0, "noon": 1})),
        ["early", "noon", "late"],
    ),
    "numbers to names": (
        lambda folder: (folder / "label_mapping.json").write_text(json.dumps({"0": "x", "1": "y", "2": "w"})),
        ["x", "y", "w"],
    ),
    "a list": (lambda folder: (folder / "labels.json").write_text(json.dumps(["x", "y", "w"])), ["x", "y", "w"]),
    "one name too few": (
        lambda folder: (folder / "labels.json").write_text(json.dumps(["x", "y"])),
        ["sport", "business", "science"],
    ),
    "no numbers": (
        lambda folder: (folder / "labels.json").write_text('{"a": Infinity, "b": 1, "c": 2}'),
        ["sport", "business", "science"],
    ),
    "nobody's": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}})
        ),
        ["sport", "business", "science"],
    ),
}


@pytest.mark.parametrize("place", NAMED)
def test_names_of_classes(adapt, place):
    write, expected = NAMED[place]
    folder = adapt()
    write(folder)
    assert saved.read(folder).label_names == expected


def test_classes_that_nobody_names_are_numbered_with_a_note(adapt, base, tmp_path):
    shutil.copytree(base, tmp_path / "nameless")
    config = tmp_path / "nameless" / "config.json"
    content = json.loads(config.read_text()) | {"problem_type": "multi_label_classification"}
    content.pop("id2label"), content.pop("label2id")
    config.write_text(json.dumps(content))
    read = saved.read(adapt(), base=tmp_path / "nameless")
    assert (read.label_names, read.multi_label) == (["0", "1", "2"], True)
    assert "numbered 0 to 2" in read.notes[0]


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_training_with_such_a_tokenizer_is_refused_before_anything_is_written(config, base, tmp_path, engine):
    from transformers import AutoTokenizer

    shutil.copytree(base, tmp_path / "grown")
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = len(tokenizer)
    tokenizer.add_tokens(["@user"])
    tokenizer.save_pretrained(tmp_path / "grown")
    config["model"] = {"name": str(tmp_path / "grown")}
    with pytest.raises(UserError, match=f"knows {rows + 1} tokens, the model's embedding has {rows} rows"):
        rankwise.train(config | {"engine": engine}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
