"""The ways to adapt an encoder, one file each, named as `adapter.method` names it.

A method is added by its word in `config.tree.Method` and a file of that name here, which ends with `METHOD`.
Checking, counting, planning, assembling, saving, the engine and the documentation ask the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import get_args

from rankwise.config.tree import Config
from rankwise.config.tree import Method as MethodName
from rankwise.methods.method import Entry, Method

__all__ = ["METHODS", "Entry", "Method", "method_of"]

METHODS: Mapping[str, Method] = {
    name: import_module(f"rankwise.methods.{name}").METHOD for name in get_args(MethodName)
}


def method_of(config: Config) -> Method:
    """The method of a configuration."""
    return METHODS[config.adapter.method]
