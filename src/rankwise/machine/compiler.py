"""torch's compiler, left out where nothing is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, cast

import torch

Kind = TypeVar("Kind", bound=torch.optim.Optimizer)
_MARK = "__dynamo_disable"
"""where torch keeps a function as the compiler is to leave it, once it has asked the compiler for that"""


@contextmanager
def without_compiler() -> Iterator[None]:
    """Let optimizers work without torch's compiler in this block.

    torch imports it (sympy, distributed tensors: 2 s, 90 MB) at an optimizer's first call, only to tell it not to compile
    the call. What is marked here is unmarked behind the block, so a host that compiles finds its torch as it was. Where torch
    marks its functions otherwise, it imports what it wants.
    """
    marked: list[Any] = []
    for method in vars(torch.optim.Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if not isinstance(method, FunctionType) or plain is None or hasattr(plain, _MARK):
            continue
        if Path(method.__code__.co_filename).name == "_compile.py":
            setattr(plain, _MARK, plain)
            marked.append(plain)
    try:
        yield
    finally:
        for plain in marked:
            if getattr(plain, _MARK, None) is plain:
                delattr(plain, _MARK)


def eager(kind: type[Kind]) -> type[Kind]:
    """A kind of optimizer whose step is torch's own without the decorator that asks the compiler for a break around it."""
    own = inspect.unwrap(kind.step)

    class Eager(kind):  # type: ignore[misc,valid-type]
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            return own(self, closure)

    return cast("type[Kind]", Eager)
