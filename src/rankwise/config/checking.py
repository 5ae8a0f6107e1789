"""A nested mapping becomes a configuration, or one sentence that says why it cannot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from rankwise.config.keys import check_tree, choices, hints_of, section_type, suited, takes_numbers
from rankwise.config.tree import Config
from rankwise.config.values import alpha_of, max_trainable
from rankwise.errors import UserError
from rankwise.scoring.goals import goal_of

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
"""what msgspec calls a type, in words"""


def from_dict(tree: Mapping[str, Any]) -> Config:
    """The checked configuration of a nested mapping.

    Raises: UserError in one sentence that names the key, or both keys that contradict each other.
    """
    for name, value in tree.items():
        if section_type(hints_of(Config).get(str(name))) is not None and value is None:
            raise UserError(f"section '{name}' is empty: give it keys or leave it out")
    check_tree(tree)
    try:
        config = msgspec.convert(suited(_with_text_keys(tree), Config), Config)
    except msgspec.ValidationError as error:
        raise UserError(readable(error, tree)) from error
    _check_together(config)
    return config


def _with_text_keys(tree: Any) -> Any:
    """The tree with every key as text: in YAML the pattern {11: 4} names layer 11, as {'11': 4} does."""
    if not isinstance(tree, Mapping):
        return tree
    return {str(key): _with_text_keys(value) for key, value in tree.items()}


def readable(error: msgspec.ValidationError, tree: Any, root: type = Config) -> str:
    """msgspec's message with our dotted key and the value that came.

    root
        The structure that the tree was to become.
    """
    # A value is "at `$.train.steps`", a mapping's key "at `key` in `$.data.augment`".
    message, _, path = str(error).partition(" - at `")
    dotted = path.removeprefix("key` in `").removeprefix("$").removeprefix(".").rstrip("`")
    value: Any = tree
    for part in re.findall(r"[^.\[\]]+", dotted):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)]
    expected = ""
    if message.startswith("Invalid enum value"):
        words = choices(dotted, root)
        message, expected = "unknown value", f"; expected one of {', '.join(words)}" if words else ""
        if value in words:  # the word is right, but stands alone
            message, expected = "expected a list", f"; write [{value}]"
        elif takes_numbers(dotted, root):
            expected = f"; expected a number or {', '.join(words)}"
    if message.startswith("Object missing required field"):
        message = message.replace("Object missing required field", "needs").replace("`", "'")
    message = message.partition(", got `")[0]  # the type that came: the value itself follows
    message = re.sub(r"`([a-z]+(?: \| [a-z]+)*)`", _in_words, message)
    return f"{dotted}: {message[0].lower()}{message[1:]}, got {value!r}{expected}"


def _in_words(types: re.Match[str]) -> str:
    """The types that msgspec names as one would say them."""
    kinds = types[1].split(" | ")
    return (
        " or ".join(word for kind, word in _TYPES.items() if kind in kinds) if set(kinds) <= set(_TYPES) else types[0]
    )


def _check_together(config: Config) -> None:
    """Refuse options that cannot apply together, naming both keys."""
    from rankwise.methods import method_of  # a method's file reads the tree of this folder

    train = config.train
    if train.steps is not None and train.epochs is not None:
        raise UserError("train.steps and train.epochs are both given: keep one")
    if train.warmup_steps is not None and train.warmup_ratio is not None:
        raise UserError("train.warmup_steps and train.warmup_ratio are both given: keep one")
    if train.steps is not None and train.warmup_steps is not None and train.warmup_steps >= train.steps:
        raise UserError(f"train.warmup_steps is {train.warmup_steps}, the whole run has {train.steps} steps")
    if not train.evaluate and train.early_stopping is not None:
        raise UserError("train.early_stopping needs train.evaluate: true, there is nothing to watch without it")
    if not train.evaluate and train.schedule == "plateau":
        raise UserError("train.schedule: plateau needs train.evaluate: true, it follows the validation loss")
    _check_folds(config)
    _check_refit(config)
    if config.data.pair and config.data.augment:
        raise UserError("data.augment cannot apply with data.pair: true: what it changes would no longer be the pair")
    if config.data.pair and config.data.name_texts:
        raise UserError("data.name_texts cannot apply with data.pair: true: a name is no pair of texts")
    if "sentence_shuffle" in config.data.augment and "punctuation" in config.data.preprocess:
        raise UserError(
            "data.augment: sentence_shuffle cannot apply with data.preprocess: punctuation, which leaves no sentences"
        )
    if train.momentum and train.optimizer not in ("sgd", "rmsprop", "muon"):
        raise UserError(f"train.momentum: {train.momentum} cannot apply to train.optimizer: {train.optimizer}")
    if train.objective == "contrastive" and config.data.multi_label:
        raise UserError(
            "train.objective: contrastive cannot apply with data.multi_label: true: texts are of one class or of two"
        )
    if train.average_from is not None and method_of(config).ranks_move:
        raise UserError(f"train.average_from cannot apply to adapter.method: {config.adapter.method}, whose ranks move")
    if train.prefix_cache_mb is not None and config.data.augment:
        raise UserError(
            "train.prefix_cache_mb cannot apply with data.augment: a text that changes every epoch is never met again"
        )
    method_of(config).check(config)
    goal_of(train.select.metric, "train.select.metric")
    max_trainable(config)
    alpha_of(config.adapter.alpha, 1)


def _check_refit(config: Config) -> None:
    """Refuse steps on all rows where none are held out, or where nothing can go on. Raises: UserError."""
    from rankwise.methods import method_of

    if config.train.refit_steps is None:
        return
    reasons = {
        "train.evaluate: false, which holds no rows out": not config.train.evaluate,
        "data.folds, after which the run is fitted on all rows anyway": config.data.folds is not None,
        f"adapter.method: {config.adapter.method}, whose ranks are settled": method_of(config).ranks_move,
    }
    for reason, given in reasons.items():
        if given:
            raise UserError(f"train.refit_steps cannot apply with {reason}")


def _check_folds(config: Config) -> None:
    """Refuse what needs rows held out once beside `data.folds`, which scores all of them and chooses nothing by them.

    Raises: UserError.
    """
    data, train = config.data, config.train
    if data.folds is None:
        return
    other = next((key for key in ("validation", "validation_size") if getattr(data, key) is not None), None)
    if other is not None:
        raise UserError(f"data.folds and data.{other} are both given: folds hold every row out once, keep one")
    if not train.evaluate:
        raise UserError("data.folds needs train.evaluate: true, folds are there to be scored")
    if train.early_stopping is not None or train.schedule == "plateau":
        what = "train.early_stopping" if train.early_stopping is not None else "train.schedule: plateau"
        raise UserError(f"{what} cannot apply with data.folds: the run on all rows has none to watch")
