"""What the files of an adapter's folder are called: PEFT's layout, and Rankwise's own record beside it."""

from __future__ import annotations

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
RECORD = "rankwise.json"
"""label names, the configuration it was trained with, its temperature"""
PREFIX = "base_model.model."
"""what PEFT puts before the names of the model it wraps"""
