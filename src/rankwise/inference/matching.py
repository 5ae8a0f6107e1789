"""What an `adapter_config.json` promises of each module, by PEFT's rules: whether it is adapted, its rank, its scale.

The rules are those of `peft.tuners.tuners_utils.check_target_module_exists` and `get_pattern_key`; peft itself takes
seconds to import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any


def is_target(config: Mapping[str, Any], module: str) -> bool | None:
    """Whether a linear layer carries an adapter; None where the configuration leaves it to peft.

    module
        Its path below the classification model.
    """
    targets = config.get("target_modules")
    if targets is None or targets == "all-linear" or config.get("target_parameters"):
        return None
    if _is_named(config.get("exclude_modules") or (), module) or is_saved_whole(config, module):
        return False
    if isinstance(targets, str) or module in targets:
        return _is_named(targets, module)
    return _is_named(targets, module) and _in_layers(config, module)


def is_saved_whole(config: Mapping[str, Any], module: str) -> bool:
    """Whether a module is, or lies in, one of those saved whole beside the adapter (`modules_to_save`)."""
    return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in config.get("modules_to_save") or ())


def _is_named(names: Any, module: str) -> bool:
    """A string is a regular expression of the whole path, a list holds paths or their ends."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _in_layers(config: Mapping[str, Any], module: str) -> bool:
    """Whether a module is in one of the layers that the configuration is limited to."""
    layers = config.get("layers_to_transform")
    if layers is None or layers == []:
        return True
    patterns = config.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        within = re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module)
        if within:
            return int(within[1]) in ([layers] if isinstance(layers, int) else layers)
    return False


def rank_of(config: Mapping[str, Any], module: str) -> int:
    """LoRA's rank there."""
    return int(_by_pattern(config.get("rank_pattern"), module, config.get("r", 8)))


def scale_of(config: Mapping[str, Any], module: str, rank: int) -> float:
    """What LoRA's update there is multiplied by: alpha over the rank, or over its root (rsLoRA)."""
    alpha = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _by_pattern(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """The value of the first pattern, a regular expression, that the path ends with."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(default)
