"""What `gpu.py` measures and checks with, made without a download: texts of AG News' lengths, and encoders of known shapes.

The encoders have random weights: a step takes as long whatever they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 4
SHARE_OF_TOPIC = 0.2
"""of a text's words are its class's own, so that there is something to learn"""
# Tokens of AG News' texts in the vocabulary of BERT, special tokens included, by the share of texts that have no more.
SHARES = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)
TOKENS = (19, 25, 31, 35, 42, 51, 60, 71, 85, 127, 247, 289)
SPECIAL = 2
# Words that every vocabulary of English has as one token; frequent ones first.
COMMON = (
    "the to a of in and for on that at with as its is new by has it from said an his after will was be us over have their up "
    "he are first two this but more one who into last not out were would against about could which next three people group or "
    "been may second all back can some made most former leader today open four if years major down week day just before get "
    "through you five other while there way make your still another third them being under sales since help between north even "
    "take service past high test report red pay go including car start higher should use keep days support so any cut life big "
    "many put lower used work where left expected key much strong straight again like took agreed street provide year case "
    "across near office ahead site offer because per found also round part following close within begun run cuts such sign"
)
TOPICS = (
    "iraq minister president israel troops election peace attack bomb nuclear",
    "game season coach cup team olympic victory champion league players",
    "oil profit stocks shares market bank economy prices investors billion",
    "software internet computer microsoft google wireless space technology web phone",
)
"""of each class"""
_BERT = {"vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": 0}
_ROBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-5,
}
_MINI = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 1000,
}


@dataclass(frozen=True)
class Shape:
    """An encoder by its configuration."""

    name: str
    model_type: str
    values: dict[str, Any]
    specials: tuple[str, str, str, str]
    """tokens that every text may have, by their numbers; the last stands for what is unknown"""

    def smaller(self) -> Shape:
        """The same family in a size that tests run."""
        return Shape(self.name, self.model_type, {**self.values, **_TINY}, self.specials)


MINILM = Shape("MiniLM-L6-random", "bert", {**_BERT, **_MINI}, ("[PAD]", "[CLS]", "[SEP]", "[UNK]"))
ROBERTA = Shape("roberta-base-random", "roberta", {**_ROBERTA, **_BASE}, ("<s>", "<pad>", "</s>", "<unk>"))


def texts(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """Made texts, as long as AG News' are, and their classes."""
    random = np.random.default_rng(seed)
    frequent, topics = COMMON.split(), [words.split() for words in TOPICS]
    weights = 1.0 / np.arange(1, len(frequent) + 1)
    labels = random.integers(0, CLASSES, count)
    made = []
    for label, share in zip(labels, random.random(count), strict=True):
        words = max(1, round(float(np.interp(share, SHARES, TOKENS))) - SPECIAL)
        common = random.choice(frequent, words, p=weights / weights.sum())
        own = random.choice(topics[label], words)
        made.append(" ".join(np.where(random.random(words) < SHARE_OF_TOPIC, own, common)))
    return made, labels.tolist()


def lengths(count: int, seed: int = 0) -> tuple[int, ...]:
    """Tokens of so many texts as AG News has them."""
    shares = np.random.default_rng(seed).random(count)
    return tuple(round(float(tokens)) for tokens in np.interp(shares, SHARES, TOKENS))


def write_rows(path: Path, count: int) -> None:
    """Made texts with their classes as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    rows, labels = texts(count)
    pyarrow.parquet.write_table(pyarrow.table({"text": rows, "label": labels}), path)


def read_texts(path: Path, most: int = 20_000) -> list[str]:
    """Texts of a CSV or Parquet file with a column `text`, from its beginning."""
    import pyarrow.csv
    import pyarrow.parquet

    read = pyarrow.csv.read_csv if path.suffix == ".csv" else pyarrow.parquet.read_table
    return [str(text) for text in read(path)["text"].slice(0, most).to_pylist()]


def write_encoder(folder: Path, shape: Shape, rows: list[str]) -> Path:
    """An encoder of a shape with random weights, and a tokenizer learnt from the texts. Returns: its folder"""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    where = folder / shape.name
    _tokenizer(shape, rows).save_pretrained(where)
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.model_type, num_labels=CLASSES, **shape.values)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(where)
    return where


def _tokenizer(shape: Shape, rows: list[str]) -> Any:
    """Pairs of bytes that occur together become tokens until the vocabulary is full: most words are one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pad, begin, end, unknown = _by_role(shape)
    inner = Tokenizer(models.BPE(unk_token=unknown))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.values["vocab_size"], special_tokens=list(shape.specials), show_progress=False
    )
    inner.train_from_iterator(rows, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        special_tokens=[(begin, shape.specials.index(begin)), (end, shape.specials.index(end))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=pad,
        unk_token=unknown,
        cls_token=begin,
        sep_token=end,
        model_max_length=512,
    )


def _by_role(shape: Shape) -> tuple[str, str, str, str]:
    """Padding, begin, end and unknown."""
    pad = shape.specials[shape.values["pad_token_id"]]
    begin = next(token for token in shape.specials if token in ("[CLS]", "<s>"))
    end = next(token for token in shape.specials if token in ("[SEP]", "</s>"))
    return pad, begin, end, shape.specials[3]
