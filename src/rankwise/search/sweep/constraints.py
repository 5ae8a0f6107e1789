"""Constraints: comparisons over configuration keys and planned counts, such as `trainable >= 500_000`."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from rankwise import config as configuration
from rankwise.errors import UserError, nearest
from rankwise.planning import Plan

_PLANNED = ("trainable", "rank", "largest_rank", "alpha", "adapter_bytes", "frozen")
_WORDS = {"true": True, "false": False, "null": None}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda item, group: item in group,
    ast.NotIn: lambda item, group: item not in group,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}


def check(constraints: list[str]) -> None:
    """Refuse constraints that no plan could be held to, before any is made.

    Raises: UserError for what is no expression, and for a name that is neither a key nor planned.
    """
    keys = [key for key, _, _ in configuration.every_key()]
    for text in constraints:
        for name in _names_in(_parsed(text)):
            if name not in (*_PLANNED, *keys, *_WORDS):
                raise UserError(_unknown(name))


def _parsed(text: str) -> ast.AST:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UserError(_unreadable(text, error)) from error


def _unreadable(text: str, error: Exception) -> str:
    return f"constraint '{text}' cannot be read: {error}; write for example trainable >= 500_000"


def _names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name | ast.Attribute):
        return [ast.unparse(node)]
    return [name for child in ast.iter_child_nodes(node) for name in _names_in(child)]


def _unknown(name: str) -> str:
    known = [*_PLANNED, *(key for key, _, _ in configuration.every_key())]
    return f"constraints name '{name}', which is no configuration key{nearest(name, known)}"


def violated(constraints: list[str], planned: Plan) -> str | None:
    """The first constraint that a planned configuration does not meet; None when it meets them all.

    Names are dotted configuration keys, resolved (`adapter.rank` is a number), and the planned trainable, rank,
    largest_rank, alpha, adapter_bytes and frozen.

    Raises: UserError for a constraint that cannot be read.
    """
    if not constraints:
        return None
    values = {name: getattr(planned, name) for name in _PLANNED}
    tree = configuration.to_dict(planned.config)
    for text in constraints:
        try:
            holds = _value(_parsed(text), values, tree)
        except (TypeError, ZeroDivisionError) as error:
            raise UserError(_unreadable(text, error)) from error
        if not holds:
            return text
    return None


def _value(node: ast.AST, values: Mapping[str, Any], tree: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(ast.unparse(node), values, tree)
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, values, tree) for item in node.elts]
    if isinstance(node, ast.BoolOp):
        results = (_value(item, values, tree) for item in node.values)
        return all(results) if isinstance(node.op, ast.And) else any(results)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, values, tree), _value(node.right, values, tree))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand, values, tree))
    if isinstance(node, ast.Compare) and all(type(op) in _OPERATORS for op in node.ops):
        sides = [_value(side, values, tree) for side in (node.left, *node.comparators)]
        return all(_OPERATORS[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False))
    raise TypeError(f"'{ast.unparse(node)}' is not a comparison of keys and numbers")


def _named(name: str, values: Mapping[str, Any], tree: Mapping[str, Any]) -> Any:
    if name in _WORDS:
        return _WORDS[name]
    if name in values:
        return values[name]
    node: Any = tree
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            raise UserError(_unknown(name))
        node = node[part]
    return node
