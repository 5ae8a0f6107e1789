"""Every key, its type, default and help, said once."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

ScopeWord = Literal["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
SCOPE_WORDS: tuple[str, ...] = get_args(ScopeWord)
Method = Literal["lora", "adalora", "vera", "ia3", "bitfit", "prompt", "prefix", "head", "probe", "full"]
Bias = Literal["none", "lora_only", "all"]
HeadKind = Literal["full", "output", "low_rank"]
Pooling = Literal["first", "mean", "both", "auto"]
PositiveInt = Annotated[int, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A group of keys; unknown keys are refused."""


def _help(text: str) -> Meta:
    return Meta(description=text)


class Budget(Section, frozen=True):
    """What a run may cost."""

    max_trainable: Annotated[
        PositiveInt | str | None,
        _help("trainable parameters allowed, head included: 1_000_000, 250k, 1M; null lifts it"),
    ] = 1_000_000
    max_mb: Annotated[
        Positive | None,
        _help(
            "megabytes (a million bytes) of the file that is shipped: adapter and head, the base not counted; null is any"
        ),
    ] = None
    max_ms: Annotated[
        Positive | None,
        _help(
            "milliseconds that one text may take on this machine, measured before anything trains: data.max_length is solved "
            "where it is not given; null is any"
        ),
    ] = None
    ms_percentile: Annotated[
        Annotated[int, Meta(ge=1, le=100)],
        _help("of the training texts' lengths: the text that budget.max_ms is about; 50 is the median"),
    ] = 50


class Model(Section, frozen=True):
    """The frozen encoder."""

    name: Annotated[str, _help("Hub name, folder, packaged:all-MiniLM-L6-v2 or packaged:all-mpnet-base-v2")] = (
        "roberta-base"
    )
    revision: Annotated[str | None, _help("Hub revision: branch, tag or commit")] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"],
        _help("arithmetic of the frozen encoder; adapters and head always train in fp32"),
    ] = "auto"
    random_weights: Annotated[
        bool, _help("build the architecture from its config alone, for tests and speed measurements")
    ] = False


class Adapter(Section, frozen=True):
    """What is added to the encoder and trained."""

    method: Annotated[Method, _help("lora, or another way to adapt under the same budget")] = "lora"
    scope: Annotated[
        list[ScopeWord] | Literal["all"], _help("linear layers that carry an adapter, the same words on every encoder")
    ] = msgspec.field(default_factory=lambda: ["query", "value"])
    rank: Annotated[PositiveInt | Literal["max"], _help("rank of the update, or max: the largest that fits")] = "max"
    alpha: Annotated[Positive | str, _help("numerator of the scale alpha/rank; '2r' is twice the rank")] = "2r"
    dropout: Annotated[Fraction, _help("dropout on the adapter's input")] = 0.1
    bias: Annotated[Bias, _help("biases that train: none, those of adapted layers, or all")] = "none"
    rslora: Annotated[bool, _help("scale by alpha/sqrt(rank) (Kalajdzievski 2023)")] = False
    dora: Annotated[bool, _help("train magnitudes beside directions (Liu et al. 2024)")] = False
    init: Annotated[Literal["default", "gaussian", "pissa", "olora", "eva"], _help("initialisation of A and B")] = (
        "default"
    )
    layers: Annotated[list[Count] | None, _help("encoder layers that carry adapters, from 0; null is all")] = None
    rank_pattern: Annotated[
        dict[str, PositiveInt] | Literal["ascending"],
        _help("rank by place: {'8-11': 16, 'value': 4, '11.query': 2}; ascending gives higher layers more"),
    ] = msgspec.field(default_factory=dict)
    alpha_pattern: Annotated[dict[str, Positive], _help("alpha by place, as rank_pattern")] = msgspec.field(
        default_factory=dict
    )
    virtual_tokens: Annotated[PositiveInt, _help("length of the prompt or prefix (methods prompt and prefix)")] = 20


class Head(Section, frozen=True):
    """The classification head, part of the plan like everything that trains."""

    kind: Annotated[
        HeadKind,
        _help(
            "full: the model's own; output: the projection alone, the dense layer frozen; low_rank: LoRA on the dense layer"
        ),
    ] = "full"
    rank: Annotated[PositiveInt, _help("rank of the dense layer's update (kind low_rank)")] = 8
    pooling: Annotated[
        Pooling,
        _help(
            "what the head reads of a text: first, the model's own head on its first token; mean, a projection of the "
            "tokens' mean; both, of first and mean side by side; auto, what the base's 1_Pooling/config.json says, else first"
        ),
    ] = "first"
    penalty: Annotated[
        Positive | Literal["auto"],
        _help(
            "of the fitted projection (adapter.method: probe, head.probe_first): weight of its squares beside the summed "
            "loss, features at deviation 1; auto takes the best of three folds and fits on all rows"
        ),
    ] = 1.0
    directions: Annotated[
        bool,
        _help(
            "fit the projection on the directions of texts' features, whatever their lengths: surer on few rows "
            "(adapter.method: probe, head.probe_first, train.objective: contrastive)"
        ),
    ] = False
    probe_first: Annotated[
        bool, _help("fit the head on frozen features before the adapters train (Kumar et al. 2022)")
    ] = False
    probe_rows: Annotated[
        PositiveInt | None,
        _help(
            "training rows, drawn by train.seed, that the projection is fitted on (adapter.method: probe, head.probe_first); "
            "null is all for a penalty of auto and for a probe, else 2,048"
        ),
    ] = None


class Data(Section, frozen=True):
    """Labelled texts and the roles that keep them apart."""

    train: Annotated[
        str | None,
        _help("Hub name, packaged:bbc-news, a table (CSV, TSV, JSON, Parquet, Excel, packed or not), or a folder"),
    ] = None
    validation: Annotated[str | None, _help("like train; without it rows are held out of train")] = None
    test: Annotated[str | None, _help("like train; scored only by evaluate or when asked")] = None
    text: Annotated[
        str | list[str] | None, _help("text column, or several joined by a space; null is found by name and content")
    ] = None
    label: Annotated[
        str | list[str] | None,
        _help("label column; with multi_label also several columns of 0 and 1, one a label; null is found"),
    ] = None
    pair: Annotated[bool, _help("give the two columns of data.text to the encoder as a pair")] = False
    encoding: Annotated[str, _help("of text files, such as utf-8 or cp1252; auto is found")] = "auto"
    delimiter: Annotated[str, _help("character between the cells of a line; auto is found")] = "auto"
    quotes: Annotated[
        bool | Literal["auto"], _help("whether double quotes enclose cells; false reads them as characters")
    ] = "auto"
    header: Annotated[
        bool | Literal["auto"], _help('whether the first line names the columns; without one they are "0", "1", ...')
    ] = "auto"
    classes: Annotated[
        list[str] | dict[str, str] | str | None,
        _help("names of the classes in their order, {number: name}, or a file of them: what numbers stand for"),
    ] = None
    exclude: Annotated[list[str], _help("classes whose rows are left out of every role")] = msgspec.field(
        default_factory=list
    )
    empty: Annotated[
        Literal["refuse", "drop"], _help("training rows without a text: refused, or left out and counted")
    ] = "refuse"
    unlabelled: Annotated[
        Literal["drop", "keep", "refuse"],
        _help("rows without a label: left out and counted, kept as a class 'unlabelled', or refused"),
    ] = "drop"
    missing: Annotated[
        list[str], _help("label cells that stand for no label beside empty ones, such as [NULL, NA]")
    ] = msgspec.field(default_factory=list)
    validation_size: Annotated[
        PositiveInt | Annotated[float, Meta(gt=0, lt=1)] | None,
        _help("rows, or share of rows, held out; null is a tenth, at most 5,000"),
    ] = None
    folds: Annotated[
        Annotated[int, Meta(ge=2)] | None,
        _help(
            "score every training row by so many runs, each fitted on the others' rows, then fit on all; null holds rows out "
            "once"
        ),
    ] = None
    test_size: Annotated[
        PositiveInt | Annotated[float, Meta(gt=0, lt=1)] | None,
        _help("rows, or share, set apart as test when no test is named; null keeps none"),
    ] = None
    stratify: Annotated[bool, _help("keep the class mix in every held-out role (the papers did not)")] = True
    split_seed: Annotated[int, Meta(ge=0), _help("seed of the split")] = 42
    excerpts: Annotated[bool, _help("keep the beginnings of some repeated texts in result.json and its report")] = False
    drop_duplicates: Annotated[bool, _help("drop texts that repeat within train before splitting")] = False
    max_length: Annotated[
        PositiveInt | None, _help("tokens kept of a text; null is the 99th percentile, at most the model's")
    ] = None
    truncation: Annotated[
        Literal["head", "head_and_tail"],
        _help("which of them are kept of a longer text: its first, or half its first and half its last"),
    ] = "head"
    preprocess: Annotated[
        list[Literal["lowercase", "punctuation", "stopwords", "stem", "lemmatize"]],
        _help("cleaning applied in this order to every role"),
    ] = msgspec.field(default_factory=list)
    augment: Annotated[
        dict[Literal["sentence_shuffle", "word_dropout", "word_swap", "crop"], Fraction],
        _help(
            "probability of each change to a training text, or for word_dropout to a word; for crop the largest share that "
            "is left out around a run of words"
        ),
    ] = msgspec.field(default_factory=dict)
    name_texts: Annotated[
        bool,
        _help(
            "train on two texts a class made of its name, beside the rows: where rows are few, names that are words help"
        ),
    ] = False
    multi_label: Annotated[bool, _help("a text may carry several labels (sigmoid instead of softmax)")] = False
    label_separator: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        _help("what stands between the labels of a text in CSV (multi_label); null is found"),
    ] = None
    num_labels: Annotated[
        Annotated[int, Meta(ge=2)] | None, _help("classes; read from the data, named here to plan without data")
    ] = None


class Select(Section, frozen=True):
    """Which evaluation's weights are kept."""

    metric: Annotated[
        str,
        _help(
            "goal that picks the checkpoint and how the classifier decides: accuracy, loss, macro_f1, "
            "recall@precision=P:CLASS or cost:FILE"
        ),
    ] = "accuracy"
    mode: Annotated[Literal["max", "min"] | None, _help("direction; null follows the metric")] = None


class EarlyStopping(Section, frozen=True):
    """When to stop before the last step."""

    metric: Annotated[Literal["accuracy", "loss", "macro_f1"], _help("validation metric watched")] = "loss"
    patience: Annotated[PositiveInt, _help("evaluations without improvement before stopping")] = 3
    min_delta: Annotated[NonNegative, _help("an improvement smaller than this counts as none")] = 0.0


class Train(Section, frozen=True):
    """The training loop."""

    optimizer: Annotated[
        Literal["adamw", "adam", "sgd", "rmsprop", "adagrad", "muon"], _help("torch's optimizer of that name")
    ] = "adamw"
    learning_rate: Annotated[float, Meta(gt=0, description="peak rate of the adapter")] = 5e-4
    head_learning_rate: Annotated[Positive | None, _help("peak rate of the head; null is learning_rate")] = None
    loraplus_ratio: Annotated[
        Positive | None, _help("rate of B over rate of A (LoRA+, Hayou et al. 2024); null is 1")
    ] = None
    momentum: Annotated[Fraction | None, _help("of sgd, rmsprop and muon; null is 0, for muon 0.95")] = None
    betas: Annotated[tuple[Fraction, Fraction], _help("of adam, adamw, and of muon's vectors")] = (0.9, 0.999)
    epsilon: Annotated[Positive, _help("of adam, adamw, rmsprop, adagrad, and of muon's vectors")] = 1e-8
    weight_decay: Annotated[
        NonNegative, _help("decoupled where the optimizer is; never on biases, norms or magnitudes")
    ] = 0.01
    schedule: Annotated[
        Literal["constant", "linear", "cosine", "cosine_restarts", "step", "polynomial", "plateau"],
        _help("shape of the learning rate after warm-up"),
    ] = "linear"
    cycles: Annotated[PositiveInt, _help("cycles of cosine_restarts, drops of step")] = 2
    decay: Annotated[Annotated[float, Meta(gt=0, lt=1)], _help("factor of each drop (step and plateau)")] = 0.5
    power: Annotated[Positive, _help("exponent of polynomial")] = 2.0
    plateau_patience: Annotated[Count, _help("evaluations without improvement before plateau cuts the rate")] = 1
    warmup_steps: Annotated[Count | None, _help("linear warm-up")] = None
    warmup_ratio: Annotated[Fraction | None, _help("linear warm-up as a share of all steps")] = None
    steps: Annotated[PositiveInt | None, _help("optimizer steps; or give epochs")] = None
    epochs: Annotated[
        Annotated[float, Meta(gt=0, lt=1e6)] | None,
        _help("passes over the training rows; 3 when steps is not given either"),
    ] = None
    batch_size: Annotated[PositiveInt, _help("rows a forward pass")] = 16
    eval_batch_size: Annotated[PositiveInt, _help("rows a forward pass in evaluation")] = 64
    accumulate: Annotated[PositiveInt, _help("forward passes an optimizer step")] = 1
    objective: Annotated[
        Literal["cross_entropy", "contrastive"],
        _help(
            "what steps minimise: cross_entropy of the head; or contrastive, of every pair of texts in a batch, after which "
            "the head is fitted on what the adapters give (Tunstall et al. 2022)"
        ),
    ] = "cross_entropy"
    label_smoothing: Annotated[Fraction, _help("share of the target spread over all classes")] = 0.0
    class_weights: Annotated[
        Literal["balanced"] | list[NonNegative] | None,
        _help("weight of each class in the loss; balanced is inverse frequency"),
    ] = None
    max_grad_norm: Annotated[
        Positive | None, _help("gradient norm above which gradients are scaled down; null never")
    ] = 1.0
    eval_every: Annotated[
        PositiveInt | Literal["epoch"] | None,
        _help("steps between evaluations, or epoch; null is a twelfth of the run"),
    ] = None
    evaluate_at: Annotated[
        list[PositiveInt], _help("steps after which validation is scored beside those of eval_every: a search's rungs")
    ] = msgspec.field(default_factory=list)
    evaluate: Annotated[bool, _help("evaluate on validation during training")] = True
    average_from: Annotated[
        PositiveInt | None,
        _help(
            "step from which on the weights are averaged over steps; the mean is what is scored and saved (Izmailov et al. 2018); "
            "null keeps each step's own"
        ),
    ] = None
    refit_steps: Annotated[
        PositiveInt | None,
        _help(
            "steps on training and validation rows together, at a fifth of learning_rate, once the best weights are chosen and "
            "scored: scores, thresholds and temperature are those before; null keeps validation rows out"
        ),
    ] = None
    select: Select = Select()
    early_stopping: Annotated[EarlyStopping | None, _help("off when null; any of its keys turns it on")] = None
    seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)], _help("of the head, the adapter, the order of rows and dropout")
    ] = 0
    prefix_cache_mb: Annotated[
        PositiveInt | None,
        _help(
            "megabytes for the output of the frozen layers below the lowest adapter, computed once a text without "
            "dropout and kept in bf16; null computes them in every step"
        ),
    ] = None
    compile: Annotated[
        Literal["auto", "on", "off"],
        _help(
            "of no effect any more, and read so that older configurations run: nothing is compiled with torch.compile"
        ),
    ] = "auto"


class Config(Section, frozen=True):
    """Everything a run depends on."""

    budget: Budget = Budget()
    model: Model = Model()
    adapter: Adapter = Adapter()
    head: Head = Head()
    data: Data = Data()
    train: Train = Train()
    engine: Annotated[
        Literal["auto", "fast", "reference"],
        _help("fast: our own step; reference: transformers + peft; auto: fast where it can"),
    ] = "auto"
    track: Annotated[
        Literal["tensorboard", "mlflow", "wandb"] | None,
        _help("also send evaluations to a tracker, whose files go to the run's folder; null sends none"),
    ] = None
