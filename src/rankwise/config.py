"""The configuration tree: every key, its type, default and help, said once.

A configuration comes from YAML, a dict or `key=value` overrides, is checked as a whole, and is saved
resolved beside every result, where it runs again as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from rankwise.errors import UserError, nearest

ScopeWord = Literal["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]
SCOPE_WORDS: tuple[str, ...] = get_args(ScopeWord)
Method = Literal["lora", "full", "head", "probe", "bitfit", "ia3", "vera", "adalora", "prompt", "prefix"]
Bias = Literal["none", "lora_only", "all"]
HeadKind = Literal["full", "output", "low_rank"]
PositiveInt = Annotated[int, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, lt=1)]
NonNegative = Annotated[float, Meta(ge=0)]


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


class Model(Section, frozen=True):
    """The frozen encoder."""

    name: Annotated[str, _help("Hub name, folder, packaged:all-MiniLM-L6-v2 or packaged:all-mpnet-base-v2")] = (
        "roberta-base"
    )
    revision: Annotated[str | None, _help("Hub revision: branch, tag or commit")] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
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
    alpha: Annotated[
        Annotated[float, Meta(gt=0)] | str, _help("numerator of the scale alpha/rank; '2r' is twice the rank")
    ] = "2r"
    dropout: Annotated[Fraction, _help("dropout on the adapter's input")] = 0.1
    bias: Annotated[Bias, _help("biases that train: none, those of adapted layers, or all")] = "none"
    rslora: Annotated[bool, _help("scale by alpha/sqrt(rank) (Kalajdzievski 2023)")] = False
    dora: Annotated[bool, _help("train magnitudes beside directions (Liu et al. 2024)")] = False
    init: Annotated[Literal["default", "gaussian", "pissa", "olora", "eva"], _help("initialisation of A and B")] = (
        "default"
    )
    layers: Annotated[
        list[Annotated[int, Meta(ge=0)]] | None, _help("encoder layers that carry adapters, from 0; null is all")
    ] = None
    rank_pattern: Annotated[
        dict[str, PositiveInt] | Literal["ascending"],
        _help("rank by place: {'8-11': 16, 'value': 4, '11.query': 2}; ascending gives higher layers more"),
    ] = msgspec.field(default_factory=dict)
    alpha_pattern: Annotated[dict[str, Annotated[float, Meta(gt=0)]], _help("alpha by place, as rank_pattern")] = (
        msgspec.field(default_factory=dict)
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
    probe_first: Annotated[
        bool, _help("fit the head on frozen features before the adapters train (Kumar et al. 2022)")
    ] = False


class Data(Section, frozen=True):
    """Labelled texts and the roles that keep them apart."""

    train: Annotated[
        str | None, _help("Hub name, packaged:bbc-news, CSV/TSV/JSONL/Parquet file, or folder of class folders")
    ] = None
    validation: Annotated[str | None, _help("like train; without it rows are held out of train")] = None
    test: Annotated[str | None, _help("like train; scored only by evaluate or when asked")] = None
    text: Annotated[str | list[str], _help("text column, or several joined by a space")] = "text"
    label: Annotated[str, _help("label column")] = "label"
    validation_size: Annotated[
        Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0, lt=1)] | None,
        _help("rows, or share of rows, held out; null is a tenth, at most 5,000"),
    ] = None
    test_size: Annotated[
        Annotated[int, Meta(gt=0)] | Annotated[float, Meta(gt=0, lt=1)] | None,
        _help("rows, or share, set apart as test when no test is named; null keeps none"),
    ] = None
    stratify: Annotated[bool, _help("keep the class mix in every held-out role (the papers did not)")] = True
    split_seed: Annotated[int, _help("seed of the split")] = 42
    drop_duplicates: Annotated[bool, _help("drop texts that repeat within train before splitting")] = False
    max_length: Annotated[
        PositiveInt | None, _help("tokens kept of a text; null is the 99th percentile, at most the model's")
    ] = None
    preprocess: Annotated[
        list[Literal["lowercase", "punctuation", "stopwords", "stem", "lemmatize"]],
        _help("cleaning applied in this order to every role"),
    ] = msgspec.field(default_factory=list)
    augment: Annotated[
        dict[Literal["sentence_shuffle", "word_dropout", "word_swap"], Fraction],
        _help("probability of each change to a training text, or for word_dropout to a word"),
    ] = msgspec.field(default_factory=dict)
    multi_label: Annotated[bool, _help("a text may carry several labels (sigmoid instead of softmax)")] = False
    label_separator: Annotated[
        str,
        Meta(
            min_length=1,
            description="what stands between the labels of a text in CSV (multi_label); JSONL and Parquet hold lists",
        ),
    ] = "|"
    num_labels: Annotated[
        Annotated[int, Meta(ge=2)] | None, _help("classes; read from the data, named here to plan without data")
    ] = None


class Select(Section, frozen=True):
    """Which evaluation's weights are kept."""

    metric: Annotated[Literal["accuracy", "loss", "macro_f1"], _help("validation metric that picks the checkpoint")] = (
        "accuracy"
    )
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
    head_learning_rate: Annotated[
        Annotated[float, Meta(gt=0)] | None, _help("peak rate of the head; null is learning_rate")
    ] = None
    loraplus_ratio: Annotated[
        Annotated[float, Meta(gt=0)] | None, _help("rate of B over rate of A (LoRA+, Hayou et al. 2024); null is 1")
    ] = None
    momentum: Annotated[Fraction, _help("of sgd, rmsprop and muon")] = 0.0
    betas: Annotated[tuple[Fraction, Fraction], _help("of adam and adamw")] = (0.9, 0.999)
    epsilon: Annotated[Annotated[float, Meta(gt=0)], _help("of adam, adamw, rmsprop and adagrad")] = 1e-8
    weight_decay: Annotated[
        NonNegative, _help("decoupled where the optimizer is; never on biases, norms or magnitudes")
    ] = 0.01
    schedule: Annotated[
        Literal["constant", "linear", "cosine", "cosine_restarts", "step", "polynomial", "plateau"],
        _help("shape of the learning rate after warm-up"),
    ] = "linear"
    cycles: Annotated[PositiveInt, _help("cycles of cosine_restarts, drops of step")] = 2
    decay: Annotated[Annotated[float, Meta(gt=0, lt=1)], _help("factor of each drop (step and plateau)")] = 0.5
    power: Annotated[Annotated[float, Meta(gt=0)], _help("exponent of polynomial")] = 2.0
    plateau_patience: Annotated[
        Annotated[int, Meta(ge=0)], _help("evaluations without improvement before plateau cuts the rate")
    ] = 1
    warmup_steps: Annotated[Annotated[int, Meta(ge=0)] | None, _help("linear warm-up")] = None
    warmup_ratio: Annotated[Fraction | None, _help("linear warm-up as a share of all steps")] = None
    steps: Annotated[PositiveInt | None, _help("optimizer steps; or give epochs")] = None
    epochs: Annotated[
        Annotated[float, Meta(gt=0)] | None, _help("passes over the training rows; 3 when steps is not given either")
    ] = None
    batch_size: Annotated[PositiveInt, _help("rows a forward pass")] = 16
    eval_batch_size: Annotated[PositiveInt, _help("rows a forward pass in evaluation")] = 64
    accumulate: Annotated[PositiveInt, _help("forward passes an optimizer step")] = 1
    label_smoothing: Annotated[Fraction, _help("share of the target spread over all classes")] = 0.0
    class_weights: Annotated[
        Literal["balanced"] | list[NonNegative] | None,
        _help("weight of each class in the loss; balanced is inverse frequency"),
    ] = None
    max_grad_norm: Annotated[
        Annotated[float, Meta(gt=0)] | None, _help("gradient norm above which gradients are scaled down; null never")
    ] = 1.0
    eval_every: Annotated[
        PositiveInt | Literal["epoch"] | None,
        _help("steps between evaluations, or epoch; null is a twelfth of the run"),
    ] = None
    evaluate: Annotated[bool, _help("evaluate on validation during training")] = True
    select: Select = Select()
    early_stopping: EarlyStopping | None = None
    seed: Annotated[Annotated[int, Meta(ge=0)], _help("of the head, the adapter, the order of rows and dropout")] = 0
    compile: Annotated[
        Literal["auto", "on", "off"], _help("fuse elementwise work with torch.compile; auto when the steps repay it")
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


# --- reading ------------------------------------------------------------------------------------------


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """YAML whose `5e-4` is a number and whose `no` is a word, as YAML 1.2 has it."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":bool", ":float"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$|^[-+]?\.inf$|^\.nan$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; `where` names it in the error."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the configuration {path} cannot be read: {error}") from error
    tree = parse_yaml(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds a {type(tree).__name__}, expected keys such as 'model:' and 'data:'")
    return tree


def set_key(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Put a value at a dotted key of a nested dict, making the sections on the way."""
    *sections, last = dotted.split(".")
    for section in sections:
        if not isinstance(tree.get(section), dict):
            tree[section] = {}
        tree = tree[section]
    tree[last] = value


def apply_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the tree with `dotted.key=value` words applied; values are YAML."""
    result: dict[str, Any] = msgspec.to_builtins(tree)
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"'{word}' is not an override: write key=value, for example adapter.rank=8")
        _check_key(key)
        set_key(result, key, parse_yaml(value, f"the value of {key}"))
    return result


def _section_type(annotation: Any) -> type[Section] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def every_key(section: type[Section] = Config, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every dotted key with its help and default, in the order of the tree."""
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        annotation = hints[field.name]
        nested = _section_type(annotation)
        if nested is not None:
            yield from every_key(nested, f"{prefix}{field.name}.")
            continue
        help_text = next(
            (m.description for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Meta) and m.description),
            "",
        )
        default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        yield f"{prefix}{field.name}", help_text, default


def _check_key(dotted: str, section: type[Section] = Config, prefix: str = "") -> None:
    """Refuse a key that does not exist, with the nearest that does."""
    name, _, rest = dotted.partition(".")
    fields = get_type_hints(section)
    if name not in fields:
        wanted = f"{prefix}{dotted}"
        known = [key for key, _, _ in every_key()] + [f"{prefix}{field}" for field in fields]
        # A leaf under the wrong section (`rank` for `adapter.rank`) is the commonest slip: try the leaf first.
        leaf = [key for key in known if key.rpartition(".")[2] == wanted.rpartition(".")[2]]
        hint = f", did you mean '{leaf[0]}'?" if leaf else nearest(wanted, known)
        raise UserError(f"unknown key '{wanted}'{hint or '; rankwise plan --help lists the keys'}")
    nested = _section_type(fields[name])
    if rest and nested is not None:
        _check_key(rest, nested, f"{prefix}{name}.")


def _check_tree(tree: Mapping[str, Any], prefix: str = "", section: type[Section] = Config) -> None:
    fields = get_type_hints(section)
    for name, value in tree.items():
        _check_key(str(name), section, prefix)
        nested = _section_type(fields[str(name)])
        if nested is not None and isinstance(value, Mapping):
            _check_tree(value, f"{prefix}{name}.", nested)


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The checked configuration of a nested mapping."""
    for name, value in tree.items():
        if _section_type(get_type_hints(Config).get(str(name))) is not None and value is None:
            raise UserError(f"section '{name}' is empty: give it keys or leave it out")
    _check_tree(tree)
    try:
        config = msgspec.convert(_with_text_keys(tree), Config)
    except msgspec.ValidationError as error:
        raise UserError(_readable(error, tree)) from error
    _check_together(config)
    return config


def _with_text_keys(tree: Any) -> Any:
    """The tree with every key as text: in YAML the pattern {11: 4} names layer 11, as {'11': 4} does."""
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _with_text_keys(value) for key, value in tree.items()}


def _readable(error: msgspec.ValidationError, tree: Mapping[str, Any]) -> str:
    """msgspec's message with our dotted key and the value that came."""
    message, _, path = str(error).partition(" - at `$.")
    dotted = path.rstrip("`")
    value: Any = tree
    for part in re.findall(r"[^.\[\]]+", dotted):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
    choices = ""
    if message.startswith("Invalid enum value"):
        message, choices = "unknown value", _choices(dotted)
    return f"{dotted}: {message[0].lower()}{message[1:]}, got {value!r}{choices}"


def _choices(dotted: str) -> str:
    annotation: Any = Config
    for part in re.findall(r"[^.\[\]]+", dotted.split("[")[0]):
        section = _section_type(annotation)
        if section is None:
            break
        annotation = get_type_hints(section)[part]
    words: list[str] = []

    def collect(node: Any) -> None:
        for arg in get_args(node):
            if isinstance(arg, str):
                words.append(arg)
            else:
                collect(arg)

    collect(annotation)
    return f"; expected one of {', '.join(dict.fromkeys(words))}" if words else ""


def _check_together(config: Config) -> None:
    """Refuse options that cannot apply together, naming both keys."""
    train = config.train
    if train.steps is not None and train.epochs is not None:
        raise UserError("train.steps and train.epochs are both given: keep one")
    if train.warmup_steps is not None and train.warmup_ratio is not None:
        raise UserError("train.warmup_steps and train.warmup_ratio are both given: keep one")
    if not train.evaluate and train.early_stopping is not None:
        raise UserError("train.early_stopping needs train.evaluate: true, there is nothing to watch without it")
    if not train.evaluate and train.schedule == "plateau":
        raise UserError("train.schedule: plateau needs train.evaluate: true, it follows the validation loss")
    if config.adapter.method != "lora":
        for key in ("dora", "rslora"):
            if getattr(config.adapter, key):
                raise UserError(
                    f"adapter.{key}: true cannot apply to adapter.method: {config.adapter.method}; it is an option of lora"
                )
        if config.adapter.rank_pattern or config.adapter.alpha_pattern:
            raise UserError(
                f"adapter.rank_pattern and alpha_pattern cannot apply to adapter.method: {config.adapter.method}"
            )
        if train.loraplus_ratio is not None:
            raise UserError(
                f"train.loraplus_ratio cannot apply to adapter.method: {config.adapter.method}; only lora has A and B"
            )
        if config.adapter.init != "default":
            raise UserError(
                f"adapter.init: {config.adapter.init} cannot apply to adapter.method: {config.adapter.method}"
            )
    if config.adapter.dora and config.adapter.init in ("pissa", "olora"):
        raise UserError(
            f"adapter.dora: true cannot apply with adapter.init: {config.adapter.init}, which changes the frozen weight the magnitudes are taken from"
        )
    if train.momentum and train.optimizer not in ("sgd", "rmsprop", "muon"):
        raise UserError(f"train.momentum: {train.momentum} cannot apply to train.optimizer: {train.optimizer}")
    if config.adapter.method in ("full", "probe") and config.head.kind != "full":
        raise UserError(f"head.kind: {config.head.kind} cannot apply to adapter.method: {config.adapter.method}")
    if config.adapter.method == "probe":
        _check_probe(config)
    if config.adapter.scope == []:
        raise UserError("adapter.scope is empty: name layers, or use adapter.method: head to train the head alone")
    max_trainable(config)
    alpha_of(config.adapter.alpha, 1)


def _check_probe(config: Config) -> None:
    """Refuse what a linear probe has no use for: it is solved at once, on features computed once."""
    reasons = {
        "head.probe_first: true": config.head.probe_first,
        "data.augment": config.data.augment,
        "train.early_stopping": config.train.early_stopping,
        "train.schedule: plateau": config.train.schedule == "plateau",
    }
    for key, given in reasons.items():
        if given:
            raise UserError(f"{key} cannot apply to adapter.method: probe, which is solved at once on frozen features")


# --- values derived from keys -------------------------------------------------------------------------

_SUFFIX = {"": 1, "k": 1_000, "m": 1_000_000}


def max_trainable(config: Config) -> int | None:
    """The budget as a number of parameters; None when lifted."""
    value = config.budget.max_trainable
    return parse_count(value, "budget.max_trainable") if isinstance(value, str) else value


def parse_count(text: str, key: str) -> int:
    """`250k`, `1M` or `1_000_000` as a whole number above zero."""
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([kKmM]?)", text.strip())
    count = round(float(match[1].replace("_", "")) * _SUFFIX[match[2].lower()]) if match else 0
    if count <= 0:
        raise UserError(f"{key}: expected a number above zero such as 1_000_000, 250k or 1M, got {text!r}")
    return count


def alpha_of(alpha: float | str, rank: int) -> float:
    """The number alpha stands for at a rank: '2r' is twice the rank."""
    if not isinstance(alpha, str):
        return float(alpha)
    match = re.fullmatch(r"([0-9]*\.?[0-9]*)\s*r", alpha.strip())
    factor = float(match[1] or 1) if match and match[1] != "." else 0.0
    if factor <= 0:
        raise UserError(
            f"adapter.alpha: expected a number above zero or a multiple of the rank such as '2r', got {alpha!r}"
        )
    return factor * rank


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain values, for YAML and JSON."""
    result: dict[str, Any] = msgspec.to_builtins(config)
    return result


def to_yaml(config: Config) -> str:
    """The configuration as YAML that reads back to the same configuration."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)


def config_hash(config: Config) -> str:
    """Sixteen hex digits that name the configuration: equal settings, equal hash."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()[:16]


ConfigLike = Config | Mapping[str, Any] | str | Path


def load(source: ConfigLike | None = None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a recipe's name, a YAML path, a dict or a `Config`, with overrides applied."""
    return from_dict(tree_of(source, overrides))


def tree_of(source: ConfigLike | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Only the keys that are named, as a nested dict, before defaults and checks."""
    if source is None:
        tree: Mapping[str, Any] = {}
    elif isinstance(source, Config):
        tree = to_dict(source)
    elif isinstance(source, Mapping):
        tree = source
    else:
        tree = read_yaml(_find(source))
    return apply_overrides(tree, overrides)


def _find(source: str | Path) -> Path:
    """The YAML file that a recipe's name or a path stands for."""
    from rankwise import recipes

    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder, expected a YAML file or one of the recipes: {', '.join(recipes.names())}")
    shipped = recipes.path(str(source))
    if shipped is not None:
        return shipped
    raise UserError(
        f"no recipe or file '{source}'{nearest(str(source), recipes.names()) or '; rankwise recipes list shows the shipped ones'}"
    )
